#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Everything that only a GPU can tell, as one command within nine minutes: scripts/gpu-check. Standard library only.

    scripts/gpu-check [--only STEP[,STEP...]] [--list] [--minutes 9] [--arch 90a] [--out FOLDER] [--binary MILLRACE]

It builds the kernels with their tests and benches by nvcc and a C++ compiler (nothing else is needed; what was built
before and did not change is kept in build/gpu_check) while the steps run that need only what a bundle holds. Every step
has its own time, and one that fails stops no other. After each, one JSON file gpu_DATE_NAME.json in benches/results is
written anew, with the hash of every kernel: tests/cuda/attested_test.py and benches/cuda/goals.py read those. Tests get
fresh random inputs; --inputs N repeats those of a run. Without a GPU it builds, has every program say that there is
none, says so itself in one line, and exits with 2.
"""
import argparse
import concurrent.futures
import dataclasses
import datetime
import json
import math
import os
import pathlib
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback

from compile_gate import find_nvcc, host_compiler
from kernel_sources import closure, digest, includes, kernel_files, relative

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "benches" / "cuda"))
import goals  # noqa: E402
FLAGS = ["-std=c++20", "-O3", f"-I{ROOT}"]
NO_GPU = 2
CANNOT = 77  # what a program of ours exits with when something it needs is not here
ARCHIVE = "kernels.a"
KEPT_LINES = 400  # of a step's output
PASSED, FAILED, SKIPPED = "passed", "failed", "skipped"


@dataclasses.dataclass
class Gpu:
    name: str
    arch: str
    driver: str
    memory: str


class Stopped(BaseException):
    """Somebody asked this run to end; no step may take it for a fault of its own."""


@dataclasses.dataclass
class Check:
    """What the steps need."""
    options: argparse.Namespace
    gpu: Gpu
    building: concurrent.futures.Future  # of {name: path, or what the compiler said}
    end: float  # of the run
    deadline: float = 0  # of the step

    @property
    def programs(self):
        """Waits for the build, at the run's cost and not the step's."""
        begin = time.monotonic()
        programs = self.building.result(timeout=max(1.0, self.end - begin))
        self.deadline = min(self.end, self.deadline + time.monotonic() - begin)
        return programs

    def left(self):
        return max(1.0, self.deadline - time.monotonic())

    def run(self, command, seconds=None):
        """(exit status or None when out of time, lines of output)."""
        limit = min(self.left(), seconds or self.left())
        # A file, not a pipe: what was said before the end is kept, and nobody's child can hold it open.
        with tempfile.TemporaryFile() as output:
            try:
                child = subprocess.Popen([str(word) for word in command], stdout=output, stderr=subprocess.STDOUT, cwd=ROOT,
                                         stdin=subprocess.DEVNULL, start_new_session=True)
            except OSError as error:
                return 126, [str(error)]
            try:
                code = child.wait(limit)
            except subprocess.TimeoutExpired:
                code = None
            finally:
                end_group(child)
            output.seek(0)
            lines = output.read().decode(errors="replace").splitlines()
            return code, lines if code is not None else [*lines, f"out of time after {limit:.0f} s"]

    def run_all(self, commands, seconds=None):
        """Runs {title: command or error}; (result, lines). Skipped where every program says that it cannot run here."""
        if not commands:
            return SKIPPED, ["there is nothing to run"]
        codes, lines = [], []
        for title, command in commands.items():
            if isinstance(command, str):
                code, output = 1, command.splitlines()
            else:
                code, output = self.run(command, seconds)
            codes.append(code)
            lines += [f"== {title}: exit {code}", *output[-KEPT_LINES:]]
        if all(code == CANNOT for code in codes):
            return SKIPPED, lines
        return (PASSED if all(code in (0, CANNOT) for code in codes) else FAILED), lines


def end_group(child):
    """The program, and whatever it left running."""
    try:
        os.killpg(child.pid, signal.SIGKILL)
    except ProcessLookupError:
        pass
    child.wait()


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


def sources(root):
    """What is built, by what it is for: the kernels with what their launchers need, and a program each of the others."""
    kernels = kernel_files(root)
    kernels += [path for path in sorted((root / "kernels" / "cuda").rglob("*.cc")) if is_plain(path)]
    if is_plain(root / "kernels" / "tensor.cc"):
        kernels.append(root / "kernels" / "tensor.cc")
    return {"kernels": kernels,
            "tests": sorted(path for path in (root / "tests" / "cuda").glob("*_test.c[cu]") if is_plain(path)),
            "benches": sorted(path for path in (root / "benches" / "cuda").glob("*_bench.c[cu]") if is_plain(path))}


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
        main = ROOT / "tests" / "cuda" / "harness_main.cc"
        kernels, tests, benches = sources(ROOT).values()
        with concurrent.futures.ThreadPoolExecutor(self.jobs) as pool:
            everything = [*kernels, main, *tests, *benches]
            built = dict(zip(everything, pool.map(self.compile, everything)))
            broken = "".join(built[path][1] or "" for path in kernels)
            self.archive([built[path][0] for path in kernels if built[path][0]])
            extra = {path: [built[main]] for path in tests}
            linked = pool.map(lambda path: self.link(path.stem, [built[path], *extra.get(path, [])], broken),
                              [*tests, *benches])
            return dict(zip((path.stem for path in [*tests, *benches]), linked))

    def archive(self, objects):
        """Of the kernels: a program takes what it calls, and one that is broken takes no other along."""
        (self.folder / ARCHIVE).unlink(missing_ok=True)
        subprocess.run([*self.nvcc, "-lib", *(str(path) for path in objects), "-o", str(self.folder / ARCHIVE)],
                       capture_output=True, check=True)

    def link(self, name, own, broken):
        """The program's path, or what went wrong."""
        errors = "".join(error or "" for _, error in own)
        if errors:
            return errors
        target = self.folder / name
        objects = [*(path for path, _ in own), self.folder / ARCHIVE]
        command = [*self.nvcc, *(str(path) for path in objects), "-ldl", "-o", str(target)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        return target if done.returncode == 0 else broken + done.stdout + done.stderr


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


def find_program(name):
    """One of a bundle, or of a build here."""
    return next((path for path in [ROOT / "bin" / name, *sorted((ROOT / "build").glob(f"*/server/{name}"))]
                 if path.exists()), None)


def step_model(check):
    """Whole models, CUDA against CPU, and the answer of the bundled one."""
    commands = {}
    program = find_program("cuda_engine_gpu_tests")
    if program is not None:
        commands["cuda_engine_gpu_tests"] = [program]
    binary, missing = find_millrace(check)
    if binary is not None:
        commands["complete"] = [binary, "complete", ROOT / "models" / "millrace-tiny", "-p", "What is Millrace?",
                                "--device", "cuda", "--temperature", "0", "--max-tokens", "24"]
    return check.run_all(commands, 80) if commands else (SKIPPED, missing)


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
    return check.run_all(commands, 20)


def step_server(check):
    """A real server on the GPU under streams that hang up."""
    binary, missing = find_millrace(check)
    if binary is None:
        return SKIPPED, missing
    return check.run_all({"soak": [sys.executable, ROOT / "tests" / "python" / "soak.py", "--binary", binary, "--model",
                                   ROOT / "models" / "millrace-tiny", "--seconds", "15", "--may-differ",
                                   "--serve-flag=--device", "--serve-flag=cuda"]})


def step_bench(check):
    """Benches of kernels, roofs first."""
    benches = sorted((name for name in check.programs if name.endswith("_bench")), key=lambda name: name != "roofs_bench")
    return check.run_all({name: with_flags(check.programs[name]) for name in benches}, 40)


def step_engine(check):
    """Steps of whole models: decoding and prompts, by model and weight format."""
    program = find_program("step_bench")
    if program is None:
        return SKIPPED, ["there is no step_bench here: build it, or unpack a bundle of scripts/gpu-bundle"]
    commands = {}
    for model in ("llama-3.1-8b", "qwen3-8b"):
        for quantization, kv in (("none", "bf16"), ("int8", "int8"), ("int4", "bf16")):
            commands[f"{model} {quantization}"] = [program, "--model", ROOT / "benches/engine/configs" / model,
                                                   "--quantization", quantization, "--kv", kv]
    return check.run_all(commands, 40)


def step_peers(check):
    """The same work by torch, in the same run."""
    if check.run([sys.executable, "-c", "import torch; assert torch.cuda.is_available()"], 30)[0] != 0:
        return SKIPPED, ["there is no torch that sees the GPU"]
    return check.run_all({"peers": [sys.executable, ROOT / "benches" / "cuda" / "peers.py"]})


# Those that need nothing built come first: nvcc works meanwhile. Seconds are the most that each may take.
STEPS = {"model": (step_model, 90), "server": (step_server, 40), "wrappers": (step_wrappers, 20),
         "kernels": (step_kernels, 75), "sanitizer": (step_sanitizer, 40), "bench": (step_bench, 75),
         "engine": (step_engine, 120), "peers": (step_peers, 70)}
BUILT = {"wrappers", "kernels", "sanitizer", "bench"}  # these run what nvcc makes of the sources


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
    parser.add_argument("--minutes", type=float, default=9, help="when to stop, finished or not")
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


class Record:
    """The run's JSON file, whole after every step."""

    def __init__(self, options, gpu):
        name = re.sub(r"[^a-z0-9]+", "-", gpu.name.lower()).strip("-")
        now = datetime.datetime.now(datetime.timezone.utc)
        options.out.mkdir(parents=True, exist_ok=True)
        self.path = options.out / f"gpu_{now:%Y-%m-%d_%H%M}_{name}.json"
        self.fields = {
            "date": now.isoformat(timespec="seconds"), "commit": commit(), "gpu": dataclasses.asdict(gpu),
            "built_for": options.arch, "inputs": options.inputs, "running": None,
            "sources": {relative(ROOT, source): digest(ROOT, source) for source in kernel_files(ROOT)}, "steps": {}}

    def write(self, running=None):
        self.fields["running"] = running
        fresh = self.path.with_suffix(".new")
        fresh.write_text(json.dumps(self.fields, indent=1) + "\n", encoding="utf-8")
        os.replace(fresh, self.path)


def run_step(name, check):
    """(result, lines), whatever the step does."""
    try:
        return STEPS[name][0](check)
    except concurrent.futures.TimeoutError:
        return FAILED, ["the programs were not built in time"]
    except Exception:  # the next step may still tell something
        return FAILED, traceback.format_exc().splitlines()


def run_steps(check, record):
    """The results by step."""
    results = record.fields["steps"]
    for name in check.options.only:
        begin = time.monotonic()
        if begin >= check.end:
            results[name] = {"result": SKIPPED, "seconds": 0, "lines": ["there was no time left"]}
            record.write()
            print(f"{name:10} {SKIPPED}: there was no time left", flush=True)
            continue
        check.deadline = min(check.end, begin + STEPS[name][1])
        record.write(running=name)
        print(f"{name:10} ...", flush=True)
        result, lines = run_step(name, check)
        seconds = round(time.monotonic() - begin, 1)
        results[name] = {"result": result, "seconds": seconds, "lines": lines}
        record.write()
        print(f"{name:10} {result} in {seconds} s" + (f": {lines[-1]}" if result == SKIPPED and lines else ""), flush=True)
        if result == FAILED:
            print("\n".join(lines[-60:]), flush=True)
    return results


def tell_build(building, options, begin):
    """The line about the build; whether something did not build."""
    programs = building.result()
    broken = {name: error for name, error in programs.items() if isinstance(error, str)}
    print(f"build      {len(programs) - len(broken)} of {len(programs)} programs for sm_{options.arch}, "
          f"{time.monotonic() - begin:.0f} s", flush=True)
    for name, error in broken.items():
        print(f"{name} was not built:\n{error[-3000:]}", file=sys.stderr, flush=True)
    return bool(broken)


def refuse(check, is_broken):
    """Without a GPU: what was built starts, and finds none."""
    silent = []
    own = {name: find_program(name) for name in ("cuda_engine_gpu_tests", "step_bench")}
    for name, program in {**check.programs, **{name: path for name, path in own.items() if path}}.items():
        if not isinstance(program, str) and check.run([program], 60)[0] in (0, None, 127, -signal.SIGSEGV):
            silent.append(name)
    if silent:
        print(f"gpu-check: without a GPU these should say so and do not: {', '.join(silent)}")
    print("gpu-check: there is no NVIDIA GPU here (nvidia-smi names none); built what there is, ran nothing")
    return 1 if is_broken or silent else NO_GPU


def stop(*_):
    raise Stopped


def main() -> int:
    options = arguments()
    if options.list:
        print("\n".join(f"{name:10} {step.__doc__} {seconds} s at most" for name, (step, seconds) in STEPS.items()))
        return 0
    begin = time.monotonic()
    end = begin + 60 * options.minutes
    gpu = find_gpu()
    options.arch = options.arch or (gpu.arch if gpu else "90a")
    options.nvcc, options.host = find_nvcc(options.nvcc), host_compiler()
    if options.nvcc is None:
        print("gpu-check: there is no nvcc in PATH or /usr/local/cuda/bin")
        return 1
    signal.signal(signal.SIGTERM, stop)
    builder = concurrent.futures.ThreadPoolExecutor(1)
    building = builder.submit(Builder(options).build if BUILT & set(options.only) else dict)
    if gpu is None:
        is_broken = tell_build(building, options, begin)
        return refuse(Check(options, gpu, building, math.inf, math.inf), is_broken)
    building.add_done_callback(lambda done: None if done.exception() else tell_build(done, options, begin))
    record = Record(options, gpu)
    print(f"writing {record.path} after every step", flush=True)
    results = run_steps(Check(options, gpu, building, end), record)
    if goals.figures(record.fields):
        print(goals.table(record.fields))
    return 1 if any(step["result"] == FAILED for step in results.values()) else 0


if __name__ == "__main__":
    try:
        status = main()
    except (Stopped, KeyboardInterrupt):
        print("gpu-check: stopped")
        status = 1
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)  # without waiting for a build that comes too late
