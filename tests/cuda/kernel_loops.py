#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Counts the instructions of a kernel's loops, for kernels whose limit is memory: a multiprocessor issues at most four
a clock, so a loop that takes too many for the bytes it reads is slower than memory. Standard library, nvcc and
nvdisasm (of CUDA, or of PyPI's nvidia-cuda-nvdisasm).

    kernel_loops.py ROOT FILE.cu [--kernel REGEX] [--arch 90a] [--nvdisasm PATH] [--show]

Prints every loop without loops inside it that has at least 20 instructions: their number, the most frequent, and what
to look at: divisions (MUFU.RCP by I2F), and calls. --show prints the instructions themselves.
"""
import argparse
import collections
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile

SECTION = re.compile(r"\s*\.section\s+\.text\.(\S+?),")
LABEL = re.compile(r"\s*(\.L_x_\d+):")
INSTRUCTION = re.compile(r"\s*/\*[0-9a-f]+\*/\s+(.*?)\s*;")
TARGET = re.compile(r"\bBRA\b.*(\.L_x_\d+)")
LEAST = 20


def disassemble(root, file, arch, nvdisasm):
    nvcc = shutil.which("nvcc") or "/usr/local/cuda/bin/nvcc"
    with tempfile.TemporaryDirectory() as folder:
        cubin = str(pathlib.Path(folder) / "kernel.cubin")
        subprocess.run([nvcc, "-std=c++20", "-O3", "-I", root, f"-arch=sm_{arch}", "-cubin", file, "-o", cubin], check=True)
        return subprocess.run([nvdisasm, "-c", cubin], check=True, capture_output=True, text=True).stdout


def functions(text):
    """{mangled name: [label or instruction]}, labels with their colon."""
    found, lines = {}, None
    for line in text.splitlines():
        if section := SECTION.match(line):
            lines = found.setdefault(section.group(1), [])
        elif lines is not None and (label := LABEL.match(line)):
            lines.append(label.group(1) + ":")
        elif lines is not None and (instruction := INSTRUCTION.match(line)):
            lines.append(instruction.group(1))
    return found


def loops(lines):
    """Innermost ones, as lists of instructions."""
    place = {line[:-1]: at for at, line in enumerate(lines) if line.endswith(":")}
    spans = []
    for at, line in enumerate(lines):
        target = TARGET.search(line)
        if target and place.get(target.group(1), at) < at:
            spans.append((place[target.group(1)], at))
    for begin, end in spans:
        if not any(begin <= b and e <= end and (b, e) != (begin, end) for b, e in spans):
            yield [line for line in lines[begin : end + 1] if not line.endswith(":")]


def operation(instruction):
    return re.sub(r"^@!?U?P\w+ ", "", instruction).split()[0].split(".")[0]


def report(name, body, show):
    counts = collections.Counter(map(operation, body))
    often = ", ".join(f"{operation} {count}" for operation, count in counts.most_common(12))
    print(f"{name}\n  {len(body)} instructions: {often}")
    if counts["I2F"]:
        print(f"  {counts['I2F']} divisions")
    if counts["CALL"]:
        print(f"  {counts['CALL']} calls")
    if show:
        print("".join(f"    {line}\n" for line in body), end="")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("root")
    parser.add_argument("file")
    parser.add_argument("--kernel", default="")
    parser.add_argument("--arch", default="90a")
    parser.add_argument("--nvdisasm", default=shutil.which("nvdisasm") or "/usr/local/cuda/bin/nvdisasm")
    parser.add_argument("--show", action="store_true")
    options = parser.parse_args()
    if not pathlib.Path(options.nvdisasm).exists():
        sys.exit("kernel_loops: no nvdisasm; `pip install nvidia-cuda-nvdisasm` has one, for --nvdisasm")
    text = disassemble(options.root, options.file, options.arch, options.nvdisasm)
    names = functions(text)
    readable = dict(zip(names, subprocess.run(["c++filt"], input="\n".join(names), capture_output=True, text=True,
                                              check=True).stdout.splitlines()))
    for name, lines in names.items():
        if not re.search(options.kernel, readable[name]):
            continue
        for body in loops(lines):
            if len(body) >= LEAST:
                report(readable[name], body, options.show)


if __name__ == "__main__":
    main()
