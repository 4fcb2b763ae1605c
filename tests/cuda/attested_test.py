#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Names the kernels that no run on a GPU has attested as they are now. attested_test.py ROOT

scripts/gpu-check writes benches/results/gpu_*.json with a hash of every kernel and of all it includes. A kernel counts
as attested when some such file has its hash and says that the kernels' tests passed. Never a failure: the line is
listed when ctest ends, so that nobody takes a green run here for one on hardware.
"""
import json
import pathlib
import sys

from kernel_sources import digest, kernel_files, relative

STEP = "kernels"  # of scripts/gpu-check


def attested(root):
    """{(kernel, hash)} of all recorded runs whose kernel tests passed."""
    pairs = set()
    for path in sorted((root / "benches" / "results").glob("gpu_*.json")):
        try:
            record = json.loads(path.read_text(encoding="utf-8"))
            if record["steps"].get(STEP, {}).get("result") == "passed":
                pairs.update(record["sources"].items())
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            print(f"skipped: {path.name} is no record of scripts/gpu-check: {error!r}")
    return pairs


def main() -> int:
    root = pathlib.Path(sys.argv[1]).resolve()
    known = attested(root)
    files = kernel_files(root)
    missing = [path for path in files if (relative(root, path), digest(root, path)) not in known]
    if missing:
        names = ", ".join(path.stem for path in missing)
        print(f"skipped: a run on a GPU (scripts/gpu-check) of {len(missing)} of {len(files)} kernel files: {names}")
    else:
        print(f"all {len(files)} kernel files have passed their tests on a GPU as they are")
    return 0


if __name__ == "__main__":
    sys.exit(main())
