#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""What FindWarpgroups reads says which architecture it was compiled for. warpgroups_build_test.py ROOT; 77 without nvcc.

A library for plain sm_90 runs on a device that multiplies by warpgroups, and its kernels that do are traps.
"""
import pathlib
import re
import subprocess
import sys
import tempfile

from compile_gate import SKIPPED, find_nvcc, host_compiler

FLAG = re.compile(r"\.global .*is_built_for_warpgroups\w*(?: = (\d+))?;")


def built_flag(root, nvcc, arch):
    """The flag's value in the code for an architecture; without an initialiser it is zero."""
    host = host_compiler()
    with tempfile.TemporaryDirectory() as folder:
        ptx = pathlib.Path(folder) / "out.ptx"
        command = [nvcc, "-std=c++20", "-gencode", f"arch=compute_{arch},code=compute_{arch}", f"-I{root}", "-ptx",
                   str(root / "kernels" / "cuda" / "warpgroups.cu"), "-o", str(ptx)]
        subprocess.run(command + (["-ccbin", host] if host else []), check=True)
        found = FLAG.search(ptx.read_text(encoding="utf-8"))
    return None if found is None else int(found.group(1) or 0)


def main() -> int:
    root, nvcc = pathlib.Path(sys.argv[1]).resolve(), find_nvcc(None)
    if nvcc is None:
        print("skipped: what the kernels were built for: there is no nvcc here")
        return SKIPPED
    faults = [f"sm_{arch}: the flag is {flag}, not {want}" for arch, want in (("90a", 1), ("90", 0))
              if (flag := built_flag(root, nvcc, arch)) != want]
    print("\n".join(faults) or "the flag is set for sm_90a and not for sm_90")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
