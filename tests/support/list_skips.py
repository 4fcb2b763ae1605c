# SPDX-License-Identifier: Apache-2.0
"""What the tests of a build folder left out: ctest runs it when all tests are over. list_skips.py BUILD_FOLDER"""
import pathlib
import re
import sys

SKIP = re.compile(r"^(?:skipped: |SKIPPED \[\d+\] )(.*)$", re.MULTILINE)


def main() -> int:
    folder = pathlib.Path(sys.argv[1]) / "Testing" / "Temporary"
    # While ctest runs, its log has not got its final name yet, and that name is of an earlier run.
    log = next((path for path in (folder / "LastTest.log.tmp", folder / "LastTest.log") if path.exists()), None)
    if log is None:
        return 0
    skips = sorted(set(SKIP.findall(log.read_text(encoding="utf-8", errors="replace"))))
    if skips:
        print(f"\n{len(skips)} skipped, because something is missing here:")
        print("\n".join("  " + skip.strip() for skip in skips))
    return 0


if __name__ == "__main__":
    sys.exit(main())
