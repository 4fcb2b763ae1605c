# SPDX-License-Identifier: Apache-2.0
"""Runs this folder's tests with the first Python that has pytest: build/venv's, the one that runs this, Debian's.

Without any, exits with 77, which ctest takes for a skip.
"""
import os
import pathlib
import subprocess
import sys

FOLDER = pathlib.Path(__file__).resolve().parent
CANDIDATES = [FOLDER.parents[1] / "build/venv/bin/python", pathlib.Path(sys.executable), pathlib.Path("/usr/bin/python3")]


def main() -> int:
    for python in CANDIDATES:
        if not python.exists():
            continue
        if subprocess.run([python, "-c", "import pytest"], capture_output=True, check=False).returncode == 0:
            os.execv(python, [python, "-m", "pytest", "-q", "-rs", *(sys.argv[1:] or [str(FOLDER)])])
    print("SKIPPED [1] tests/python: no pytest; scripts/install-deps test installs it")
    return 77


if __name__ == "__main__":
    sys.exit(main())
