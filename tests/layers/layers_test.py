# SPDX-License-Identifier: Apache-2.0
"""Fails on an include that goes against the arrows of ARCHITECTURE.md, or on a word a room must not know."""
import pathlib
import re
import sys

ROOMS = {
    "proto": set(),
    "server": {"server", "proto", "agent", "cache", "engine"},
    "agent": {"agent", "engine"},
    "cache": {"cache"},
    "engine": {"engine", "scheduler", "kernels"},
    "scheduler": {"scheduler"},
    "kernels": {"kernels"},
}
FORBIDDEN = {
    "scheduler": [r"\bcuda", r"\bjson\b", r"std::thread", r"absl::Now\(", r"std::mutex", r"absl::Mutex"],
    "kernels": [r"nlohmann", r"prometheus", r"\bgrpc"],
    "engine": [r"nlohmann", r"prometheus/", r"\bgrpc", r"boost/"],
    "agent": [r"boost/", r"\bgrpc", r"prometheus/"],
}
ENDINGS = {".h", ".cc", ".cu", ".cuh"}
INCLUDE = re.compile(r'^\s*#\s*include\s+"([^"/]+)/')


def offences(root: pathlib.Path):
    for room, allowed in ROOMS.items():
        for path in sorted((root / room).rglob("*")):
            if path.suffix not in ENDINGS:
                continue
            for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
                where = f"{path.relative_to(root)}:{number}"
                found = INCLUDE.match(line)
                if found and found.group(1) in ROOMS and found.group(1) not in allowed:
                    yield f"{where}: {room}/ must not include {found.group(1)}/"
                code = line.split("//")[0]
                for word in FORBIDDEN.get(room, []):
                    if re.search(word, code):
                        yield f"{where}: {room}/ must not know '{word}'"


def main() -> int:
    found = list(offences(pathlib.Path(sys.argv[1])))
    print("\n".join(found) or "every include follows an arrow")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
