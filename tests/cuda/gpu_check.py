#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Everything that only a GPU can tell, as one command within nine minutes: scripts/gpu-check. Standard library only.

    scripts/gpu-check [--only STEP[,STEP...]] [--list] [--minutes 9] [--arch 90a] [--out FOLDER] [--binary MILLRACE]

It builds the kernels with their tests and benches by nvcc and a C++ compiler (nothing else is needed; what was built
before and did not change is kept in build/gpu_check), runs the steps, prints a line for each, and writes one JSON file
gpu_DATE_NAME.json to benches/results, with the hash of every kernel: tests/cuda/attested_test.py reads those. Tests get
fresh random inputs; --inputs N repeats those of a run. Without a GPU it builds, says so in one line, and exits with 2.
"""
import argparse
import concurrent.futures
import dataclasses
import datetime
import json
import os
import pathlib
import random
import re
import shutil
import subprocess
import sys
import time

from compile_gate import find_nvcc, host_compiler
from kernel_sources import closure, digest, includes, kernel_files, relative

ROOT = pathlib.Path(__file__).resolve().parents[2]
FLAGS = ["-std=c++20", "-O3", f"-I{ROOT}"]
NO_GPU = 2
KEPT_LINES = 400  # of a step's output
PASSED, FAILED, SKIPPED = "passed", "failed", "skipped"


@dataclasses.dataclass
class Gpu:
    name: str
    arch: str
    driver: str
    memory: str


@dataclasses.dataclass
class Check:
    """What the steps need."""
    options: argparse.Namespace
    gpu: Gpu
    programs: dict  # name: path, or what the compiler said
    deadline: float

    def left(self):
        return max(1.0, self.deadline - time.monotonic())

    def run(self, command, seconds=None):
        """(exit status or None when out of time, lines of output)."""
        limit = min(self.left(), seconds or self.left())
        try:
            done = subprocess.run([str(word) for word in command], stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                                  text=True, errors="replace", timeout=limit, check=False, cwd=ROOT)
            return done.returncode, done.stdout.splitlines()
        except subprocess.TimeoutExpired as late:
            text = (late.stdout or b"").decode(errors="replace")
            return None, [*text.splitlines(), f"out of time after {limit:.0f} s"]

    def run_all(self, commands, seconds=None):
        """Runs {title: command or error}; (result, lines)."""
        if not commands:
            return SKIPPED, ["there is nothing to run"]
        result, lines = PASSED, []
        for title, command in commands.items():
            if isinstance(command, str):
                code, output = 1, [command]
            else:
                code, output = self.run(command, seconds)
            result = result if code == 0 else FAILED
            lines += [f"== {title}: exit {code}", *output[-KEPT_LINES:]]
        return result, lines


def find_gpu():
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return None
    asked = "--query-gpu=name,compute_cap,driver_version,memory.total"
    done = subprocess.run([tool, asked, "--format=csv,noheader"], capture_output=True, text=True, check=False)
    fields = [field.strip() for field in done.stdout.splitlines()[0].split(",")] if done.stdout.strip() else []
    if done.returncode != 0 or len(fields) != 4:
        return None
    digits = fields[1].replace(".", "")
    return Gpu(fields[0], "90a" if digits == "90" else digits, fields[2], fields[3])


def is_plain(source):
    """Whether nvcc and a C++ compiler are enough for it."""
    return not any(name.startswith(("absl/", "catch2/")) for path in closure(ROOT, source) for name in includes(path))


class Builder:
    """Objects and programs below build/gpu_check, named by a hash of all that they are made of."""

    def __init__(self, options):
        self.nvcc = [options.nvcc] + (["-ccbin", options.host] if options.host else [])
        self.arch = f"arch=compute_{options.arch},code=sm_{options.arch}"
        self.jobs = options.jobs
        self.folder = ROOT / "build" / "gpu_check" / options.arch
        self.folder.mkdir(parents=True, exist_ok=True)
        self.version = subprocess.run([options.nvcc, "--version"], capture_output=True, text=True, check=True).stdout

    def compile(self, source):
        """(object, None) or (None, what the compiler said)."""
        command = [*self.nvcc, *FLAGS, "-gencode", self.arch, "-c", str(source)]
        name = f"{source.stem}-{digest(ROOT, source, self.version + ' '.join(command))[:16]}.o"
        target = self.folder / name
        if target.exists():
            return target, None
        done = subprocess.run([*command, "-o", f"{target}.new"], capture_output=True, text=True, check=False)
        if done.returncode != 0:
            return None, done.stdout + done.stderr
        os.replace(f"{target}.new", target)
        return target, None

    def build(self):
        """({program: path, or what went wrong}). Programs are the tests and benches, one a file."""
        kernels = kernel_files(ROOT)
        kernels += [path for path in sorted((ROOT / "kernels" / "cuda").rglob("*.cc")) if is_plain(path)]
        if is_plain(ROOT / "kernels" / "tensor.cc"):
            kernels.append(ROOT / "kernels" / "tensor.cc")
        main = ROOT / "tests" / "cuda" / "harness_main.cc"
        tests = sorted(path for path in (ROOT / "tests" / "cuda").glob("*_test.c[cu]") if is_plain(path))
        benches = sorted(path for path in (ROOT / "benches" / "cuda").glob("*_bench.c[cu]") if is_plain(path))
        with concurrent.futures.ThreadPoolExecutor(self.jobs) as pool:
            sources = [*kernels, main, *tests, *benches]
            built = dict(zip(sources, pool.map(self.compile, sources)))
            broken = "".join(built[path][1] or "" for path in kernels)
            objects = [built[path][0] for path in kernels]
            extra = {path: [built[main]] for path in tests}
            linked = pool.map(lambda path: self.link(path.stem, broken, objects, [built[path], *extra.get(path, [])]),
                              [*tests, *benches])
            return dict(zip((path.stem for path in [*tests, *benches]), linked))

    def link(self, name, broken, objects, own):
        errors = broken + "".join(error or "" for _, error in own)
        if errors:
            return errors
        target = self.folder / name
        command = [*self.nvcc, *(str(path) for path in [*objects, *(path for path, _ in own)]), "-ldl", "-o", str(target)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        return target if done.returncode == 0 else done.stdout + done.stderr


def with_flags(program, *flags):
    return program if isinstance(program, str) else [program, *flags]


def tests(check):
    return {name: program for name, program in check.programs.items() if name.endswith("_test")}


def step_wrappers(check):
    """Every wrapper of PTX against its plain body."""
    return check.run_all({name: with_flags(program) for name, program in tests(check).items() if "wrappers" in name})


def step_kernels(check):
    """All tests of kernels, with fresh random inputs."""
    inputs = ["--inputs", check.options.inputs]
    return check.run_all(
        {name: with_flags(program, *inputs) for name, program in tests(check).items() if "wrappers" not in name})


def find_millrace(check):
    """A millrace that knows --device cuda, or why there is none."""
    candidates = [check.options.binary, ROOT / "bin" / "millrace",
                  *sorted((ROOT / "build").glob("*/server/millrace"))]
    for candidate in candidates:
        if candidate is None or not pathlib.Path(candidate).exists():
            continue
        if any("--device" in line and "cuda" in line for line in check.run([candidate, "serve", "--help"], 20)[1]):
            return pathlib.Path(candidate), None
    return None, ["there is no millrace with CUDA here: build one, or unpack a bundle of scripts/gpu-bundle"]


def step_model(check):
    """Whole models, CUDA against CPU."""
    program = next((path for path in [ROOT / "bin" / "cuda_engine_gpu_tests",
                                      *sorted((ROOT / "build").glob("*/tests/cuda_engine_gpu_tests"))] if path.exists()), None)
    if program is not None:
        return check.run_all({"cuda_engine_gpu_tests": [program]})
    binary, missing = find_millrace(check)
    if binary is None:
        return SKIPPED, missing
    answers, lines = {}, []
    for device in ("cpu", "cuda"):
        code, answers[device] = check.run([binary, "complete", ROOT / "models" / "millrace-tiny", "-p",
                                           "What is Millrace?", "--device", device, "--temperature", "0", "--max-tokens", "24"], 120)
        lines += [f"== {device}: exit {code}", *answers[device]]
        if code != 0:
            return FAILED, lines
    return (PASSED if answers["cpu"] == answers["cuda"] else FAILED), lines


def step_sanitizer(check):
    """compute-sanitizer on tests that end in a minute under it."""
    tool = shutil.which("compute-sanitizer") or "/usr/local/cuda/bin/compute-sanitizer"
    if not pathlib.Path(tool).exists():
        return SKIPPED, ["there is no compute-sanitizer here"]
    small = {name: program for name, program in tests(check).items() if name in ("row_ops_test", "logprobs_test")}
    commands = {}
    for kind in ("memcheck", "racecheck"):
        for name, program in small.items():
            sanitized = [tool, "--tool", kind, "--error-exitcode", "9", program]
            commands[f"{kind} of {name}"] = program if isinstance(program, str) else sanitized
    return check.run_all(commands, 60)


def step_server(check):
    """A real server on the GPU under streams that hang up."""
    binary, missing = find_millrace(check)
    if binary is None:
        return SKIPPED, missing
    return check.run_all({"soak": [sys.executable, ROOT / "tests" / "python" / "soak.py", "--binary", binary, "--model",
                                   ROOT / "models" / "millrace-tiny", "--seconds", "20", "--may-differ",
                                   "--serve-flag=--device", "--serve-flag=cuda"]}, 90)


def step_bench(check):
    """Benches of kernels, and the engine's where it was built."""
    commands = {name: with_flags(program) for name, program in check.programs.items() if name.endswith("_bench")}
    binary, _ = find_millrace(check)
    if binary is not None:
        commands["bench throughput"] = [binary, "bench", "throughput", ROOT / "models" / "millrace-tiny", "--device",
                                        "cuda"]
    return check.run_all(commands, 120)


def step_peers(check):
    """The same work by torch, in the same run."""
    if check.run([sys.executable, "-c", "import torch; assert torch.cuda.is_available()"], 60)[0] != 0:
        return SKIPPED, ["there is no torch that sees the GPU"]
    return check.run_all({"peers": [sys.executable, ROOT / "benches" / "cuda" / "peers.py"]}, 150)


STEPS = {"wrappers": step_wrappers, "kernels": step_kernels, "model": step_model, "sanitizer": step_sanitizer,
         "server": step_server, "bench": step_bench, "peers": step_peers}


def commit():
    bundled = ROOT / "COMMIT"
    if bundled.exists():
        return bundled.read_text(encoding="utf-8").strip()
    git = shutil.which("git")
    done = git and subprocess.run([git, "-C", str(ROOT), "rev-parse", "HEAD"], capture_output=True, text=True, check=False)
    return done.stdout.strip() if done and done.returncode == 0 else "unknown"


def arguments():
    parser = argparse.ArgumentParser(prog="gpu-check", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="these steps, with commas between them")
    parser.add_argument("--list", action="store_true", help="what the steps are")
    parser.add_argument("--minutes", type=float, default=9)
    parser.add_argument("--arch", help="what to build for; default: the GPU's, or 90a")
    parser.add_argument("--inputs", default=str(random.randrange(1, 2**31)), help="seed of the tests' inputs")
    parser.add_argument("--out", type=pathlib.Path, default=ROOT / "benches" / "results")
    parser.add_argument("--binary", type=pathlib.Path, help="a millrace, where it is in none of the usual places")
    parser.add_argument("--nvcc")
    parser.add_argument("--jobs", type=int, default=os.cpu_count())
    options = parser.parse_args()
    options.only = [step for step in options.only.split(",") if step] or list(STEPS)
    unknown = [step for step in options.only if step not in STEPS]
    if unknown:
        parser.error(f"there is no step {', '.join(unknown)}; the steps are {', '.join(STEPS)}")
    return options


def record(check, results):
    name = re.sub(r"[^a-z0-9]+", "-", check.gpu.name.lower()).strip("-")
    now = datetime.datetime.now(datetime.timezone.utc)
    check.options.out.mkdir(parents=True, exist_ok=True)
    path = check.options.out / f"gpu_{now:%Y-%m-%d_%H%M}_{name}.json"
    path.write_text(json.dumps({
        "date": now.isoformat(timespec="seconds"), "commit": commit(), "gpu": dataclasses.asdict(check.gpu),
        "built_for": check.options.arch, "inputs": check.options.inputs,
        "sources": {relative(ROOT, source): digest(ROOT, source) for source in kernel_files(ROOT)},
        "steps": results}, indent=1) + "\n", encoding="utf-8")
    return path


def main() -> int:
    options = arguments()
    if options.list:
        print("\n".join(f"{name:10} {step.__doc__}" for name, step in STEPS.items()))
        return 0
    deadline = time.monotonic() + 60 * options.minutes
    gpu = find_gpu()
    options.arch = options.arch or (gpu.arch if gpu else "90a")
    options.nvcc, options.host = find_nvcc(options.nvcc), host_compiler()
    if options.nvcc is None:
        print("gpu-check: there is no nvcc in PATH or /usr/local/cuda/bin")
        return 1
    begin = time.monotonic()
    programs = Builder(options).build()
    broken = {name: error for name, error in programs.items() if isinstance(error, str)}
    print(f"build      {len(programs) - len(broken)} of {len(programs)} programs for sm_{options.arch}, "
          f"{time.monotonic() - begin:.0f} s")
    for name, error in broken.items():
        print(f"{name} was not built:\n{error}", file=sys.stderr)
    if gpu is None:
        print("gpu-check: there is no NVIDIA GPU here (nvidia-smi names none); built what there is, ran nothing")
        return 1 if broken else NO_GPU
    check = Check(options, gpu, programs, deadline)
    results = {}
    for name in options.only:
        begin = time.monotonic()
        result, lines = STEPS[name](check)
        seconds = round(time.monotonic() - begin, 1)
        results[name] = {"result": result, "seconds": seconds, "lines": lines}
        print(f"{name:10} {result} in {seconds} s" + (f": {lines[0]}" if result == SKIPPED and lines else ""), flush=True)
        if result == FAILED:
            print("\n".join(lines[-60:]), flush=True)
    print(f"written to {record(check, results)}")
    return 1 if any(step["result"] == FAILED for step in results.values()) else 0


if __name__ == "__main__":
    sys.exit(main())
