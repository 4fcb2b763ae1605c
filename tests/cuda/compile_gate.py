#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Compiles every kernel for one architecture and judges what ptxas says. Standard library only.

    compile_gate.py ROOT [--nvcc PATH] [--cache FOLDER] [--arch 90a] [--jobs N] [--update] [NAME...]

Fails on a ptxas warning (such as a wgmma that is serialised), on a stack frame or a spill in a kernel that
tests/data/kernel_resources.json does not list as cold, and where a kernel uses more registers, shared memory, stack or
spills than that table says: no cost grows unnoticed. --update writes the table anew; the list of cold kernels is kept.
NAMEs choose files (matmul means matmul*.cu); without them the device code of tests and benches, which only nvcc can
refuse, must compile too. Logs are kept in --cache under a hash of the compiler, its flags, the file
and the headers it includes, so that only what changed is compiled. Without nvcc it is skipped (77).
"""
import argparse
import concurrent.futures
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys

from kernel_sources import digest, kernel_files

TABLE = "tests/data/kernel_resources.json"
SKIPPED = 77
FLAGS = ["-std=c++20", "-O3", "-Xptxas", "-v"]
COSTS = ["registers", "shared_bytes", "stack_bytes", "spill_bytes"]
ENTRY = re.compile(r"Compiling entry function '([^']+)' for")
STACK = re.compile(r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads")
REGISTERS = re.compile(r"Used (\d+) registers")
SHARED = re.compile(r"(\d+) bytes smem")


def find_nvcc(given):
    for candidate in [given, shutil.which("nvcc"), "/usr/local/cuda/bin/nvcc"]:
        if candidate and pathlib.Path(candidate).exists():
            return candidate
    return None


def host_compiler():
    """One that nvcc takes: ours, else what a machine with CUDA has; a clang of any other age nvcc may refuse."""
    return next((name for name in ("clang++-19", "g++", "clang++") if shutil.which(name)), None)


def run(command):
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout + done.stderr


def short_name(demangled):
    """'void millrace::cuda::(anonymous namespace)::Kernel<(millrace::cuda::Mode)1>(...)' -> 'Kernel<1>'."""
    name = re.sub(r"\([\w: ]+\)(?=\d)", "", demangled)  # casts of enumerators
    name = re.sub(r"\(anonymous namespace\)::|\b(?:\w+::)+", "", name)
    name = re.sub(r"^(void|bool|int) ", "", name)
    depth = 0
    for at, character in enumerate(name):  # without the parameters
        depth += {"<": 1, ">": -1}.get(character, 0)
        if character == "(" and depth == 0:
            return name[:at]
    return name


def demangle(names):
    if not names:
        return {}
    # nvcc's names of anonymous namespaces carry a hash of the file, which is no part of a kernel's name.
    plain = [re.sub(r"\d+_GLOBAL__N__[0-9a-f]{8}_(\d+)_", r"12_GLOBAL__N_1\1~", name) for name in names]
    plain = [re.sub(r"12_GLOBAL__N_1(\d+)~.*?_cu_[0-9a-f]{8}", "12_GLOBAL__N_1", name) for name in plain]
    tool = shutil.which("c++filt") or shutil.which("llvm-cxxfilt-19") or shutil.which("cu++filt")
    if tool is None:
        return dict(zip(names, plain))
    text = subprocess.run([tool], input="\n".join(plain), capture_output=True, text=True, check=True).stdout
    return dict(zip(names, (short_name(line) for line in text.splitlines())))


def parse(log):
    """{kernel: costs} of a log of ptxas -v."""
    kernels, costs = {}, None
    for line in log.splitlines():
        entry = ENTRY.search(line)
        if entry:
            costs = kernels.setdefault(entry.group(1), dict.fromkeys(COSTS, 0))
        elif costs is not None and "Function properties" not in line:
            stack, registers, shared = STACK.search(line), REGISTERS.search(line), SHARED.search(line)
            if stack:
                costs["stack_bytes"] = max(costs["stack_bytes"], int(stack.group(1)))
                costs["spill_bytes"] = max(costs["spill_bytes"], int(stack.group(2)) + int(stack.group(3)))
            if registers:
                costs["registers"] = int(registers.group(1))
            if shared:
                costs["shared_bytes"] = int(shared.group(1))
    names = demangle(list(kernels))
    return {names[name]: costs for name, costs in kernels.items()}


def compile_one(root, source, options):
    """(name, log, error): the log of ptxas, from the cache where it is there."""
    home = root / "kernels" / "cuda"
    name = str(source.relative_to(home if home in source.parents else root))
    arch = f"arch=compute_{options.arch},code=sm_{options.arch}"
    command = [options.nvcc, *FLAGS, "-gencode", arch, f"-I{root}", "--cubin", str(source), "-o", os.devnull]
    if options.host:
        command[1:1] = ["-ccbin", options.host]
    salt = " ".join([options.version, *command])
    kept = options.cache / f"{digest(root, source, salt)}.log"
    if kept.exists():
        return name, kept.read_text(encoding="utf-8"), None
    code, log = run(command)
    if code != 0:
        return name, "", log
    kept.write_text(log, encoding="utf-8")
    return name, log, None


def judge(name, log, table, is_comparable):
    """Sentences about what is wrong with a file's kernels."""
    for line in log.splitlines():
        if "ptxas" in line and ("warning" in line.lower() or "Potential Performance Loss" in line):
            yield f"{name}: {line.strip()}"
    known = table["kernels"].get(name, {})
    found = parse(log)
    for kernel, costs in found.items():
        where = f"{name}: {kernel}"
        is_cold = any(re.fullmatch(pattern, kernel) for pattern in table["cold"])
        if not is_cold and (costs["stack_bytes"] or costs["spill_bytes"]):
            yield f"{where}: {costs['stack_bytes']} bytes of stack, {costs['spill_bytes']} bytes spilled"
        if kernel not in known:
            yield f"{where} is not in {TABLE}: look at its costs ({costs}), then --update"
            continue
        for cost in COSTS if is_comparable else []:
            if costs[cost] > known[kernel][cost]:
                yield f"{where}: {cost} grew from {known[kernel][cost]} to {costs[cost]}; if it is worth it, --update"
    for kernel in sorted(set(known) - set(found)):
        yield f"{name}: {kernel} of {TABLE} is gone: --update"


def device_code(root):
    """Of tests and benches."""
    return [path for folder in ("tests", "benches") for path in sorted((root / folder / "cuda").glob("*.cu"))]


def table_text(table):
    """A line a kernel, so that a change reads as one."""
    files = []
    for name, kernels in table["kernels"].items():
        lines = [f"   {json.dumps(kernel)}: {json.dumps(costs)}" for kernel, costs in kernels.items()]
        files.append(f"  {json.dumps(name)}: {{\n" + ",\n".join(lines) + "\n  }")
    head = "".join(f" {json.dumps(key)}: {json.dumps(table[key])},\n" for key in ("nvcc", "arch", "cold"))
    return "{\n" + head + ' "kernels": {\n' + ",\n".join(files) + "\n }\n}\n"


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("root", type=pathlib.Path)
    parser.add_argument("names", nargs="*")
    parser.add_argument("--nvcc")
    parser.add_argument("--cache", type=pathlib.Path)
    parser.add_argument("--arch", default="90a")
    parser.add_argument("--jobs", type=int, default=os.cpu_count())
    parser.add_argument("--update", action="store_true")
    options = parser.parse_args()
    options.root = options.root.resolve()
    options.cache = options.cache or options.root / "build" / "compile_gate"
    return options


def main() -> int:
    options = arguments()
    options.nvcc, options.host = find_nvcc(options.nvcc), host_compiler()
    if options.nvcc is None:
        print("skipped: compile gate: there is no nvcc here")
        return SKIPPED
    options.version = re.search(r"release ([\d.]+)", run([options.nvcc, "--version"])[1]).group(1)
    options.cache.mkdir(parents=True, exist_ok=True)
    path = options.root / TABLE
    table = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {"cold": [], "kernels": {}}
    sources = kernel_files(options.root)
    if options.names:
        sources = [source for source in sources if any(source.name.startswith(name) for name in options.names)]
    beside = [] if options.names else device_code(options.root)
    with concurrent.futures.ThreadPoolExecutor(options.jobs) as pool:
        logs = list(pool.map(lambda source: compile_one(options.root, source, options), [*sources, *beside]))
    broken = [f"{name} does not compile:\n{error}" for name, _, error in logs if error is not None]
    logs = logs[:len(sources)]
    if options.update and not broken:
        kernels = {} if not options.names else table["kernels"]
        kernels.update({name: dict(sorted(parse(log).items())) for name, log, _ in logs})
        table = {"nvcc": options.version, "arch": options.arch, "cold": table["cold"],
                 "kernels": {name: costs for name, costs in sorted(kernels.items()) if costs}}
        path.write_text(table_text(table), encoding="utf-8")
    is_comparable = (options.version, options.arch) == (table.get("nvcc"), table.get("arch"))
    if not is_comparable:
        print(f"{TABLE} is of nvcc {table.get('nvcc')} and sm_{table.get('arch')}: registers are not compared")
    faults = broken + [fault for name, log, error in logs if error is None
                       for fault in judge(name, log, table, is_comparable)]
    if not options.names:
        there = {name for name, _, _ in logs}
        faults += [f"{name} of {TABLE} is gone: --update" for name in table["kernels"] if name not in there]
    print("\n".join(faults) or f"{len(logs)} files: no spill, no stack frame, nothing grew")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
