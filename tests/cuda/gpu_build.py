# SPDX-License-Identifier: Apache-2.0
"""What scripts/gpu-check builds by nvcc and a C++ compiler alone, and how. Standard library only."""
import concurrent.futures
import json
import os
import pathlib
import re
import shutil
import time

import children
from kernel_sources import closure, digest, includes, kernel_files

ARCHIVE = "kernels.a"
LINK_SECONDS = 60  # at least, for a program whose objects are there
SYSTEM = re.compile(r"^\s*#\s*include\s+<([^>]+)>", re.MULTILINE)
CUBLAS = "cublasLt.h"  # what asks for it is left out where the toolkit has none
# Headers of the system and of the CUDA toolkit's smallest parts; those of C++ itself have no suffix.
GIVEN = {CUBLAS, "cuda.h", "cuda_bf16.h", "cuda_fp16.h", "cuda_runtime.h", "cuda_runtime_api.h", "dlfcn.h"}


def foreign(root, source):
    """Headers that a machine with nvcc and a C++ compiler may not have, with the file that asks for each."""
    for path in closure(root, source):
        for name in includes(path):
            if not (root / name).exists():
                yield f'{path.name}: "{name}"'
        # The emulator's headers are for its compiler only.
        for name in SYSTEM.findall(path.read_text(encoding="utf-8")):
            if "." in name and name not in GIVEN and not name.startswith("simt_"):
                yield f"{path.name}: <{name}>"


def needs_cublas(root, source):
    return any(CUBLAS in SYSTEM.findall(path.read_text(encoding="utf-8"))
               for header in closure(root, source) for path in (header, header.with_suffix(".cc")) if path.exists())


def sources(root, has_cublas=True):
    """What is built, by what it is for: the kernels with what their launchers need, and a program each of the others.

    Of the backend only what calls cuBLASLt: the rest is the engine's, tested and measured through libmillrace_cuda.so.
    """
    cuda = root / "kernels" / "cuda"
    host = [path for path in sorted(cuda.rglob("*.cc"))
            if cuda / "backend" not in path.parents or path.name == "cublaslt.cc"]
    found = {"kernels": [*kernel_files(root), *host, root / "kernels" / "tensor.cc"],
             "tests": sorted((root / "tests" / "cuda").glob("*_test.c[cu]")),
             "benches": sorted((root / "benches" / "cuda").glob("*_bench.c[cu]"))}
    return {group: [path for path in paths if has_cublas or not needs_cublas(root, path)]
            for group, paths in found.items()}


def weights(root):
    """{file: how long it compiles, roughly}: by the registers of all its kernels."""
    table = root / "tests" / "data" / "kernel_resources.json"
    kernels = json.loads(table.read_text(encoding="utf-8"))["kernels"] if table.exists() else {}
    return {name: sum(costs["registers"] for costs in found.values()) for name, found in kernels.items()}


def has_cublas(nvcc):
    """Whether the compiler's toolkit has the headers of cuBLASLt."""
    toolkit = pathlib.Path(nvcc).resolve().parents[1]
    folders = [toolkit / "include", *toolkit.glob("targets/*/include")]
    return any((folder / CUBLAS).exists() for folder in folders)


class Builder:
    """Objects and programs below build/gpu_check, named by a hash of all that they are made of."""

    def __init__(self, root, options, deadline):
        self.compiler = options.nvcc
        self.root = root
        # The steps that run meanwhile need the processor more.
        quiet = ["nice", "-n", "5"] if shutil.which("nice") else []
        self.nvcc = [*quiet, options.nvcc] + (["-ccbin", options.host] if options.host else [])
        # ptxas makes the same code of a kernel in a thread of its own.
        self.flags = ["-std=c++20", "-O3", f"-I{root}", "-Xptxas", "--split-compile=4",
                      "-gencode", f"arch=compute_{options.arch},code=sm_{options.arch}"]
        self.jobs = options.jobs
        self.deadline = deadline  # for compiling
        self.folder = root / "build" / "gpu_check" / options.arch
        self.version = ""
        self.seconds = {}  # that each source took; those that were kept took none

    def run(self, command, deadline):
        """What went wrong, or None."""
        code, lines = children.run([*self.nvcc, *command], max(1.0, deadline - time.monotonic()))
        return None if code == 0 else "\n".join([*lines, f"nvcc: exit {code}"]) + "\n"

    def link_deadline(self):
        return max(self.deadline, time.monotonic() + LINK_SECONDS)

    def compile(self, source):
        """(object, None) or (None, what the compiler said)."""
        salt = " ".join([self.version, *self.nvcc, *self.flags])
        target = self.folder / f"{source.stem}-{digest(self.root, source, salt)[:16]}.o"
        if target.exists():
            return target, None
        begin = time.monotonic()
        error = self.run([*self.flags, "-c", source, "-o", f"{target}.new"], self.deadline)
        self.seconds[source.name] = round(time.monotonic() - begin, 1)
        if error is not None:
            return None, error
        os.replace(f"{target}.new", target)
        return target, None

    def build(self):
        """{program: path, or what went wrong}. Programs are the tests and benches, one a file; a kernel that is broken is
        there by its file's name."""
        self.folder.mkdir(parents=True, exist_ok=True)
        code, lines = children.run([*self.nvcc, "--version"], LINK_SECONDS)
        self.version = "\n".join(lines)
        if code != 0:
            raise RuntimeError(f"{self.nvcc[-1]} --version: exit {code}: {self.version}")
        kernels, tests, benches = sources(self.root, has_cublas(self.compiler)).values()
        main = self.root / "tests" / "cuda" / "harness_main.cc"
        weight = weights(self.root)  # what takes longest is begun first
        everything = sorted([*kernels, main, *tests, *benches], key=lambda path: -weight.get(path.name, 0))
        with concurrent.futures.ThreadPoolExecutor(self.jobs) as pool:
            built = dict(zip(everything, pool.map(self.compile, everything)))
            broken = {path.name: built[path][1] for path in kernels if built[path][1] is not None}
            failed = self.archive([built[path][0] for path in kernels if built[path][0]])
            why = (failed or "") + "".join(broken.values())
            extra = {path: [built[main]] for path in tests}
            linked = pool.map(lambda path: self.link(path.stem, [built[path], *extra.get(path, [])], why),
                              [*tests, *benches])
            return {**dict(zip((path.stem for path in [*tests, *benches]), linked)), **broken}

    def archive(self, objects):
        """Of the kernels: a program takes what it calls, and one that is broken takes no other along."""
        (self.folder / ARCHIVE).unlink(missing_ok=True)
        return self.run(["-lib", *objects, "-o", self.folder / ARCHIVE], self.link_deadline())

    def link(self, name, own, broken):
        """The program's path, or what went wrong."""
        errors = "".join(error for _, error in own if error is not None)
        if errors:
            return errors
        target = self.folder / name
        command = [*(path for path, _ in own), self.folder / ARCHIVE, "-ldl", "-o", target]
        error = self.run(command, self.link_deadline())
        return target if error is None else broken + error
