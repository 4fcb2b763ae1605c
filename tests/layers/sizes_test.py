# SPDX-License-Identifier: Apache-2.0
"""Fails on a header, source or function that is longer than CONTRIBUTING.md allows. sizes_test.py ROOT.

Functions are found by their braces: the body of what has a parameter list and stands in no other function. Lines count
from the opening brace to the closing one.
"""
import pathlib
import re
import sys

FOLDERS = ["kernels", "scheduler", "engine", "agent", "server", "tests", "benches"]
FILE_LINES = {".h": 200, ".cuh": 200, ".cc": 500, ".cu": 500}
FUNCTION_LINES = 60
# What is longer today, with the lines it has. A number may fall, and an entry go; neither may grow.
LONG_FILES = {
    "kernels/cpu/attention_simd.h": 397,
    "kernels/cpu/simd.h": 251,
}
LONG_FUNCTIONS = {
    "tests/kernels/attention_bits_test.cc": 62,
    "tests/server/command_line_test.cc": 64,
}
# What says nothing about braces: comments, raw strings, strings, characters (1'000 is a number), macros.
NOISE = re.compile(
    r"""^[ \t]*\#(?:[^\n\\]|\\.)*|//[^\n]*|/\*.*?\*/|R"([^()\\\s]*)\(.*?\)\1"|"(?:\\.|[^"\\\n])*"|(?<![0-9a-fA-F])'(?:\\.|[^'\\\n])+'""", 
    re.DOTALL | re.MULTILINE)
SCOPE = re.compile(r"\s*((public|protected|private)\s*:\s*)*(template\s*<.*>\s*)?(inline\s+)?(namespace|class|struct|union|enum)\b",
                   re.DOTALL)
TOKEN = re.compile(r"[{};]|[^{};]+")


def without_noise(text: str) -> str:
    """The text with comments and literals blanked, line breaks kept."""
    return NOISE.sub(lambda match: "\n" * match.group(0).count("\n") or " ", text)


def functions(text: str):
    """(line of the opening brace, number of lines) of every function."""
    line, head = 1, ""
    depth_in_function, begin = 0, 0
    is_after_body = False  # or after a member's {initialiser}, which looks the same but for what follows
    for match in TOKEN.finditer(without_noise(text)):
        token = match.group(0)
        if token == "{":
            if depth_in_function > 0:
                depth_in_function += 1
            elif (")" in head or is_after_body and head.strip()[:1] in ("", ",")) and not SCOPE.match(head):
                depth_in_function, begin = 1, line
            is_after_body = False
        elif token == "}" and depth_in_function > 0:
            depth_in_function -= 1
            if depth_in_function == 0:
                yield begin, line - begin + 1
                is_after_body = True
        elif token in ";}":
            is_after_body = False
        head = token if token not in "{};" else ""
        line += token.count("\n")


def offences(root: pathlib.Path, long_files=None, long_functions=None):
    long_files = LONG_FILES if long_files is None else long_files
    long_functions = LONG_FUNCTIONS if long_functions is None else long_functions
    for folder in FOLDERS:
        for path in sorted((root / folder).rglob("*")):
            if path.suffix not in FILE_LINES:
                continue
            name, text = str(path.relative_to(root)), path.read_text(encoding="utf-8")
            limit, lines = max(FILE_LINES[path.suffix], long_files.get(name, 0)), len(text.splitlines())
            if lines > limit:
                yield f"{name}: {lines} lines, at most {limit}"
            limit = max(FUNCTION_LINES, long_functions.get(name, 0))
            for begin, function_lines in functions(text):
                if function_lines > limit:
                    yield f"{name}:{begin}: a function of {function_lines} lines, at most {limit}"


def main() -> int:
    found = list(offences(pathlib.Path(sys.argv[1])))
    print("\n".join(found) or "every file and function is short enough")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
