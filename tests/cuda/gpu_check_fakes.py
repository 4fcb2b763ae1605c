# SPDX-License-Identifier: Apache-2.0
"""A tree in which scripts/gpu-check finds a GPU, a compiler and programs that are all shell scripts. For its self test."""
import pathlib

SMI = "echo 'NVIDIA H200, 9.0, 580.1, 143771 MiB'"
# How a program may end, by what its script does.
BEHAVIOURS = {
    "succeeds": "exit 0",
    "fails": "echo it is wrong; exit 3",
    "cannot": "exit 77",
    "crashes": "kill -SEGV $$",
    "hangs": "echo begun; sleep 600 & wait",
    "floods": "exec yes",
    "prints garbage": "head -c 100000 /dev/urandom; exit 1",
    "prints half a line": "printf '{\"what\": \"engine deco'; exit 1",
}
# What is asked for its version, compiles a source named broken_*, crashes_* or hangs_* so, and makes programs of PROGRAM.
NVCC = """for word; do last=$word; done
case "$*" in
  *--version*) echo "release 13.0"; exit 0 ;;
  *broken_*.cu*) echo "error: broken"; seq 2000; exit 1 ;;
  *crashes_*.cu*) kill -SEGV $$ ;;
  *hangs_*.cu*) case "$*" in *" -c "*) sleep 600 & wait ;; esac ;;
esac
case "$*" in *" -c "* | *" -lib "*) echo made >"$last" ;; *) cp "PROGRAM" "$last" ;; esac
"""
SOURCES = ["kernels/cuda/good.cu", "kernels/tensor.cc", "tests/cuda/harness_main.cc", "tests/cuda/row_ops_test.cc",
           "tests/cuda/wrappers_test.cu", "benches/cuda/roofs_bench.cu", "benches/cuda/a_bench.cc"]


def script(path, body):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{body}\n", encoding="utf-8")
    path.chmod(0o755)


class Tree:
    """Below `root`: the sources, bin/ as in a bundle, and tools/ for PATH."""

    def __init__(self, root, program="exit 0"):
        self.root = pathlib.Path(root)
        self.tools = self.root / "tools"
        for name in SOURCES:
            self.add(name)
        (self.root / "COMMIT").write_text("abc\n", encoding="utf-8")
        self.behave(program)
        self.tool("nvidia-smi", SMI)
        self.tool("nvcc", NVCC.replace("PROGRAM", str(self.tools / "program")))

    def add(self, name):
        (self.root / name).parent.mkdir(parents=True, exist_ok=True)
        (self.root / name).write_text("\n", encoding="utf-8")

    def tool(self, name, body):
        script(self.tools / name, body)

    def behave(self, program):
        """Every program that a step runs does this, but millrace when it is asked for its flags and torch's probe."""
        for name in ("cuda_engine_gpu_tests", "step_bench"):
            script(self.root / "bin" / name, program)
        script(self.root / "bin" / "millrace", f'[ "$2" = --help ] && {{ echo "  --device cpu|cuda"; exit 0; }}\n{program}')
        self.tool("python", f'[ "$1" = -c ] && exit 0\n{program}')
        self.tool("compute-sanitizer", program)
        self.tool("program", program)
