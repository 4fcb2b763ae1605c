#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Everything that only a GPU can tell, as one command within nine minutes: scripts/gpu-check. Standard library only.

    scripts/gpu-check [--only STEP[,STEP...]] [--list] [--minutes 9] [--arch 90a] [--out FOLDER] [--binary MILLRACE]

It builds the kernels with their tests and benches (gpu_build.py) while the steps run that need only what a bundle
holds. Every step has its own time, and one that fails or hangs stops no other. After each, one JSON file
gpu_DATE_NAME.json in benches/results is written anew, with the hash of every kernel: tests/cuda/attested_test.py and
benches/cuda/goals.py read those. Tests get fresh random inputs; --inputs N repeats those of a run. Without a GPU it
builds, has every program say that there is none, says so itself in one line, and exits with 2.
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
import sys
import threading
import time
import traceback

import children
from compile_gate import find_nvcc, host_compiler
from gpu_build import Builder
from kernel_sources import digest, kernel_files, relative

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "benches" / "cuda"))
import goals  # noqa: E402
NO_GPU = 2
CANNOT = 77  # what a program of ours exits with when something it needs is not here
KEPT_LINES = 400  # of a program's output
SMI_SECONDS = 30
LOOK_SECONDS = 0.5  # between looks at whether to stop
UNHURRIED_SECONDS = 3600  # for building where there is no GPU to wait for it
PASSED, FAILED, SKIPPED = "passed", "failed", "skipped"


@dataclasses.dataclass
class Gpu:
    name: str
    arch: str
    driver: str
    memory: str


def wait_for(building, end):
    """Whether it was done by then."""
    while not building.done() and time.monotonic() < end:
        children.look()
        concurrent.futures.wait([building], timeout=LOOK_SECONDS)
    return building.done()


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
        wait_for(self.building, self.end)
        programs = self.building.result(timeout=0)
        self.deadline = min(self.end, self.deadline + time.monotonic() - begin)
        return programs

    def left(self):
        return self.deadline - time.monotonic()

    def run(self, command, seconds=math.inf, environment=None):
        """(exit status or None when out of time, lines of output)."""
        limit = min(self.left(), seconds)
        if limit <= 0:
            return None, ["there was no time left for it"]
        return children.run(command, limit, ROOT, environment)

    def run_all(self, commands, seconds=math.inf, environment=None):
        """Runs {title: command or error}; (result, lines). Skipped where every program says that it cannot run here.

        A program takes at most `seconds`, and one that others follow no more than half of what is left: when it hangs,
        they still tell something."""
        if not commands:
            return SKIPPED, ["there is nothing to run"]
        codes, lines = [], []
        for number, (title, command) in enumerate(commands.items(), 1):
            if isinstance(command, str):
                code, output = 1, command.splitlines()
            else:
                share = self.left() / (1 if number == len(commands) else 2)
                code, output = self.run(command, min(seconds, share), environment)
            codes.append(code)
            lines += [f"== {title}: {'ended' if code is None else f'exit {code}'}", *output[-KEPT_LINES:]]
        if all(code == CANNOT for code in codes):
            return SKIPPED, lines
        return (PASSED if all(code in (0, CANNOT) for code in codes) else FAILED), lines


def find_gpu():
    """(the first GPU, None) or (None, why there is none)."""
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return None, "there is no nvidia-smi"
    asked = "--query-gpu=name,compute_cap,driver_version,memory.total"
    code, lines = children.run([tool, asked, "--format=csv,noheader"], SMI_SECONDS)
    for line in lines if code == 0 else []:
        fields = [field.strip() for field in line.split(",")]
        if len(fields) == 4 and re.fullmatch(r"\d+\.\d", fields[1]):
            digits = fields[1].replace(".", "")
            return Gpu(fields[0], "90a" if digits == "90" else digits, fields[2], fields[3]), None
    return None, f"nvidia-smi names none: {(lines or ['it says nothing'])[-1][:200]}"


def with_flags(program, *flags, sanitizer=()):
    return program if isinstance(program, str) else [*sanitizer, program, *flags]


def tests(check):
    """Kernels that did not compile are among them, so that nobody takes them for tested."""
    return {name: program for name, program in check.programs.items() if not name.endswith("_bench")}


def step_wrappers(check):
    """Every wrapper of PTX against its plain body."""
    return check.run_all({name: with_flags(program) for name, program in tests(check).items() if "wrappers" in name})


def step_kernels(check):
    """All tests of kernels, with fresh random inputs."""
    inputs = ["--inputs", check.options.inputs]
    return check.run_all(
        {name: with_flags(program, *inputs) for name, program in tests(check).items() if "wrappers" not in name},
        environment=with_cublas())


def find_programs(name):
    """Of a bundle, or of builds here."""
    return [path for path in [ROOT / "bin" / name, *sorted((ROOT / "build").glob(f"*/server/{name}"))] if path.exists()]


def find_millrace(check):
    """(a millrace that knows --device cuda, None), or (None, why there is none)."""
    given = [check.options.binary] if check.options.binary else []
    missing = ["there is no millrace with CUDA here: build one, or unpack a bundle of scripts/gpu-bundle"]
    for candidate in given + find_programs("millrace"):
        code, lines = check.run([candidate, "serve", "--help"], 10)
        if code == 0 and any("--device" in line and "cuda" in line for line in lines):
            return candidate, None
        missing.append(f"{candidate} serve --help: exit {code}: {(lines or [''])[-1][:200]}")
    return None, missing


def with_cublas():
    """Where the loader is to look for libcublasLt too: in the toolkit, or beside torch."""
    folders = [pathlib.Path("/usr/local/cuda/lib64"), *(path for entry in sys.path for path in sorted(
        pathlib.Path(entry or ".").glob("nvidia/*/lib")))]
    found = [str(folder) for folder in folders if (folder / "libcublasLt.so.13").exists()][:1]
    return {"LD_LIBRARY_PATH": ":".join([*found, os.environ.get("LD_LIBRARY_PATH", "")])} if found else {}


def step_model(check):
    """The answer of the bundled model, and whole models, CUDA against CPU."""
    commands = {}
    binary, missing = find_millrace(check)
    if binary is not None:
        commands["complete"] = [binary, "complete", ROOT / "models" / "millrace-tiny", "-p", "What is Millrace?",
                                "--device", "cuda", "--temperature", "0", "--max-tokens", "24"]
    for program in find_programs("cuda_engine_gpu_tests")[:1]:
        commands["cuda_engine_gpu_tests"] = [program]
    return check.run_all(commands, environment=with_cublas()) if commands else (SKIPPED, missing)


def step_sanitizer(check):
    """compute-sanitizer on tests that end in a minute under it."""
    tool = shutil.which("compute-sanitizer") or "/usr/local/cuda/bin/compute-sanitizer"
    if not pathlib.Path(tool).exists():
        return SKIPPED, ["there is no compute-sanitizer here"]
    small = {name: program for name, program in tests(check).items() if name in ("row_ops_test", "logprobs_test")}
    commands = {f"{kind} of {name}": with_flags(program, sanitizer=[tool, "--tool", kind, "--error-exitcode", "9"])
                for kind in ("memcheck", "racecheck") for name, program in small.items()}
    result, lines = check.run_all(commands, 20)
    if any("Device not supported" in line for line in lines):
        return SKIPPED, [*lines, "compute-sanitizer does not work on this device"]
    return result, lines


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
    program = next(iter(find_programs("step_bench")), None)
    if program is None:
        return SKIPPED, ["there is no step_bench here: build it, or unpack a bundle of scripts/gpu-bundle"]
    commands = {}
    for model in ("llama-3.1-8b", "qwen3-8b"):
        for quantization, kv in (("none", "bf16"), ("int8", "int8"), ("int4", "bf16")):
            commands[f"{model} {quantization}"] = [program, "--model", ROOT / "benches/engine/configs" / model,
                                                   "--quantization", quantization, "--kv", kv]
    environment = with_cublas()
    result, lines = check.run_all(commands, 40, environment)
    return result, [f"libcublasLt: {environment or 'where the loader finds it, if there is one'}", *lines]


def step_peers(check):
    """The same work by torch, in the same run."""
    code, lines = check.run([sys.executable, "-c", "import torch; assert torch.cuda.is_available()"], 40)
    if code is None:
        return FAILED, ["torch did not start in time", *lines]
    if code != 0:
        return SKIPPED, [*lines, "there is no torch that sees the GPU"]
    return check.run_all({"peers": [sys.executable, ROOT / "benches" / "cuda" / "peers.py"]})


# Those that need nothing built come first: nvcc works meanwhile. Seconds are the most that each may take.
STEPS = {"model": (step_model, 80), "server": (step_server, 40), "wrappers": (step_wrappers, 40),
         "kernels": (step_kernels, 75), "sanitizer": (step_sanitizer, 40), "bench": (step_bench, 70),
         "engine": (step_engine, 115), "peers": (step_peers, 70)}
BUILT = {"wrappers", "kernels", "sanitizer", "bench"}  # these run what nvcc makes of the sources


def commit():
    bundled = ROOT / "COMMIT"
    if bundled.exists():
        return bundled.read_text(encoding="utf-8").strip()
    code, lines = children.run(["git", "-C", ROOT, "rev-parse", "HEAD"], 10)
    return lines[0] if code == 0 and lines else "unknown"


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


def say(text):
    """Nobody may be listening any more; the record is what counts."""
    try:
        print(text, flush=True)
    except OSError:
        pass


class Record:
    """The run's JSON file, whole after every step."""

    def __init__(self, options, gpu):
        name = re.sub(r"[^a-z0-9]+", "-", gpu.name.lower()).strip("-")[:60]
        now = datetime.datetime.now(datetime.timezone.utc)
        self.path = options.out / f"gpu_{now:%Y-%m-%d_%H%M%S}_{name}.json"
        self.lock = threading.Lock()
        self.fields = {
            "date": now.isoformat(timespec="seconds"), "commit": commit(), "gpu": dataclasses.asdict(gpu),
            "built_for": options.arch, "inputs": options.inputs, "running": None,
            "sources": {relative(ROOT, source): digest(ROOT, source) for source in kernel_files(ROOT)}, "build": {},
            "steps": {}}

    def write(self, **changed):
        """The steps go on where it cannot be written: what they tell is printed too."""
        with self.lock:
            self.fields.update(changed)
            text = json.dumps(self.fields, indent=1) + "\n"
            fresh = self.path.with_suffix(".new")
            try:
                self.path.parent.mkdir(parents=True, exist_ok=True)
                fresh.write_text(text, encoding="utf-8")
                os.replace(fresh, self.path)
            except OSError as error:
                say(f"the record cannot be written: {error}")


def run_step(name, check):
    """(result, lines), whatever the step does."""
    try:
        return STEPS[name][0](check)
    except concurrent.futures.TimeoutError:
        return FAILED, ["the programs were not built in time"]
    except Exception:  # the next step may still tell something
        return FAILED, traceback.format_exc().splitlines()


def next_step(waiting, check):
    """The first; where the build is not done and waiting for it would cost the others' time, one that needs none."""
    free = [name for name in waiting if name not in BUILT]
    if not free or waiting[0] not in BUILT:
        return waiting[0]
    is_built = wait_for(check.building, check.end - sum(STEPS[name][1] for name in waiting))
    return waiting[0] if is_built else free[0]


def run_steps(check, record):
    """The results by step."""
    waiting = list(check.options.only)
    while waiting:
        children.look()
        name = next_step(waiting, check)
        waiting.remove(name)
        begin = time.monotonic()
        is_building = name not in BUILT and not check.building.done()
        result, lines = SKIPPED, ["there was no time left"]
        if begin < check.end:
            check.deadline = min(check.end, begin + STEPS[name][1])
            record.write(running=name)
            say(f"{name:10} ...")
            result, lines = run_step(name, check)
        seconds = round(time.monotonic() - begin, 1)
        told = {"result": result, "seconds": seconds, "while_building": is_building, "lines": lines}
        record.write(running=None, steps={**record.fields["steps"], name: told})
        say(f"{name:10} {result} in {seconds} s" + (f": {lines[-1]}" if result == SKIPPED and lines else ""))
        if result == FAILED:
            say("\n".join(lines[-60:]))
    return record.fields["steps"]


def shortened(text, most=3000):
    """A compiler's first words say what is wrong, a linker's last ones."""
    return text if len(text) <= most else f"{text[:most // 2]}\n...\n{text[-most // 2:]}"


def build(options, deadline, record):
    """{name: path, or what went wrong}; tells what came of it."""
    if not BUILT & set(options.only):
        return {}
    begin = time.monotonic()
    builder = Builder(ROOT, options, deadline)
    try:
        programs = builder.build() if options.nvcc else {"nvcc": "there is none in PATH or /usr/local/cuda/bin"}
    except Exception as error:  # no program is built then; steps that need none go on
        programs = {"nvcc": f"{type(error).__name__}: {error}"}
    broken = {name: shortened(error) for name, error in programs.items() if isinstance(error, str)}
    longest = dict(sorted(builder.seconds.items(), key=lambda pair: -pair[1])[:8])
    seconds = round(time.monotonic() - begin, 1)
    if record:
        record.write(build={"seconds": seconds, "compiled": len(builder.seconds), "longest": longest, "broken": broken})
    say(f"build      {len(programs) - len(broken)} of {len(programs)} programs for sm_{options.arch}, {seconds:.0f} s; "
        "longest: " + ", ".join(f"{name} {taken:.0f} s" for name, taken in list(longest.items())[:3]))
    for name, error in broken.items():
        say(f"{name} was not built:\n{error}")
    return programs


def refuse(check, why):
    """Without a GPU: what was built starts, and finds none."""
    wait_for(check.building, math.inf)
    programs = check.building.result()
    own = {name: find_programs(name)[0] for name in ("cuda_engine_gpu_tests", "step_bench") if find_programs(name)}
    silent = []
    for name, program in {**programs, **own}.items():
        code = None if isinstance(program, str) else check.run([program], 60)[0]
        if not isinstance(program, str) and (code is None or code <= 0 or code in (126, 127)):
            silent.append(name)
    if silent:
        say(f"gpu-check: without a GPU these should say so and do not: {', '.join(silent)}")
    say(f"gpu-check: there is no NVIDIA GPU here ({why}); built what there is, ran nothing")
    is_broken = any(isinstance(program, str) for program in programs.values())
    return 1 if is_broken or silent else NO_GPU


def main() -> int:
    options = arguments()
    if options.list:
        print("\n".join(f"{name:10} {step.__doc__} {seconds} s at most" for name, (step, seconds) in STEPS.items()))
        return 0
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
        if signal.getsignal(number) is not signal.SIG_IGN:  # as nohup leaves it
            signal.signal(number, lambda *_: children.stopping.set())
    begin = time.monotonic()
    end = begin + 60 * options.minutes
    gpu, why = find_gpu()
    options.arch = options.arch or (gpu.arch if gpu else "90a")
    options.nvcc, options.host = find_nvcc(options.nvcc), host_compiler()
    record = Record(options, gpu) if gpu else None
    if record:
        record.write()
        say(f"writing {record.path} after every step")
    deadline = end - sum(STEPS[name][1] for name in BUILT & set(options.only)) if gpu else begin + UNHURRIED_SECONDS
    building = concurrent.futures.ThreadPoolExecutor(1).submit(build, options, deadline, record)
    if gpu is None:
        return refuse(Check(options, gpu, building, math.inf, math.inf), why)
    results = run_steps(Check(options, gpu, building, end), record)
    if goals.figures(record.fields):
        say(goals.table(record.fields))
    return 1 if any(step["result"] == FAILED for step in results.values()) else 0


def ended(status):
    """Without waiting for a build that comes too late, and with nothing left running."""
    children.end_all()
    try:
        sys.stdout.flush()
    except OSError:
        pass
    os._exit(status)


if __name__ == "__main__":
    sys.stdout.reconfigure(errors="replace")
    try:
        ended(main())
    except children.Stopped:
        say("gpu-check: stopped")
    except SystemExit as exit_:
        ended(exit_.code or 0)
    except BaseException:
        say(traceback.format_exc())
    ended(1)
