# SPDX-License-Identifier: Apache-2.0
"""docs/cli.md names every flag of every command, and no flag that none has. check_docs.py MILLRACE DOCS_CLI_MD"""
import pathlib
import re
import subprocess
import sys

COMMANDS = ["serve", "chat", "complete", "bench throughput", "bench latency", "bench serve", "inspect", "quantize",
            "keys new"]
FLAG = re.compile(r"(?<![\w-])--[a-z][a-z0-9-]*")
# A flag is documented where it stands in a table's first column.
ROW = re.compile(r"^\| (`--[^|]*)\|", re.MULTILINE)
ANYWHERE = {"--help", "--version"}


def flags_of(binary: str, command: str) -> set:
    text = subprocess.run([binary, *command.split(), "--help"], capture_output=True, text=True, check=True).stdout
    # A line of help begins with its flags; what follows two spaces is prose.
    heads = [re.split(r"\s{2,}", line.strip())[0] for line in text.splitlines() if re.match(r"\s{2}-", line)]
    return set(FLAG.findall(" ".join(heads)))


def main() -> int:
    binary, page = sys.argv[1], pathlib.Path(sys.argv[2]).read_text(encoding="utf-8")
    documented = set(FLAG.findall(" ".join(ROW.findall(page))))
    faults, known = [], set(ANYWHERE)
    for command in COMMANDS:
        flags = flags_of(binary, command)
        if len(flags) < 2:
            faults.append(f"millrace {command} --help shows no flags")
        known |= flags
        faults += [f"{flag} of millrace {command} is not in {sys.argv[2]}" for flag in sorted(flags - documented - ANYWHERE)]
    faults += [f"{flag} is in {sys.argv[2]}, but no command has it" for flag in sorted(set(FLAG.findall(page)) - known)]
    print("\n".join(faults) or f"{len(known)} flags, all documented")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
