# SPDX-License-Identifier: Apache-2.0
"""Fails on an include that goes against the arrows of ARCHITECTURE.md, or on a word a room must not know.

layers_test.py ROOT. Quoted or in angle brackets, an include is a room's header, the standard library's, or a library's.
"""
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
# Folders that see the rooms, and that no room may see.
OUTSIDE = {"tests", "benches"}
# What a room shows to those above; its other headers are its own.
PUBLIC = {
    "engine": {
        "engine/engine.h", "engine/grammar/json_schema.h", "engine/grammar/tool_calls.h", "engine/inspect.h", "engine/text/answer_parser.h", "engine/hub/hub_client.h", "engine/load/model_info.h",
        "engine/load/quantize_checkpoint.h", "engine/text/chat_template.h", "engine/text/conversation.h",
        "engine/text/detokenizer.h", "engine/text/offered_tool.h", "engine/text/stop_strings.h", "engine/text/template_json.h",
        "engine/text/template_value.h", "engine/text/tokenizer.h", "engine/text/utf8.h",
    },
}
# Beside Abseil and the standard library; a room without an entry is free to choose.
LIBRARIES = {
    "scheduler": [],
    "kernels": [r"immintrin\.h", r"sched\.h", r"unistd\.h", r"sys/mman\.h", r"cuda.*", r"simt_ptx(_barrier|_wgmma)?\.h",
                r"cublasLt\.h", r"dlfcn\.h"],
    "engine": [r"simdjson\.h", r"unicode/.*", r"pcre2\.h", r"openssl/evp\.h", r"curl/curl\.h", r"unistd\.h", r"fcntl\.h",
               r"pwd\.h", r"sys/(file|mman|stat)\.h"],
    "cache": [r"hiredis/hiredis\.h", r"openssl/evp\.h"],
}
FORBIDDEN = {
    "scheduler": [r"\bcuda", r"\bjson\b", r"std::thread", r"absl::Now\(", r"std::mutex", r"absl::Mutex"],
    "kernels": [r"nlohmann", r"prometheus", r"\bgrpc"],
    "engine": [r"nlohmann", r"prometheus/", r"\bgrpc", r"boost/"],
    "agent": [r"boost/", r"\bgrpc", r"prometheus/"],
    "cache": [r"nlohmann", r"\bgrpc", r"prometheus/", r"boost/"],
}
ENDINGS = {".h", ".cc", ".cu", ".cuh"}
INCLUDE = re.compile(r'^\s*#\s*include\s+["<]([^">]+)[">]')
STANDARD = re.compile(r"[a-z0-9_]+")


def fault_of_include(room: str, header: str):
    """Why a room must not include a header; None where it may."""
    first = header.split("/")[0]
    if "/" in header and first in ROOMS:
        if first not in ROOMS[room]:
            return f"{room}/ must not include {first}/"
        if first != room and first in PUBLIC and room in {"server", "agent"} and header not in PUBLIC[first]:
            return f"{header} is {first}/'s own; {room}/ may include its public headers"
        return None
    if first in OUTSIDE and "/" in header:
        return f"{room}/ must not include {first}/"
    if room not in LIBRARIES or first == "absl" or STANDARD.fullmatch(header):
        return None
    if any(re.fullmatch(pattern, header) for pattern in LIBRARIES[room]):
        return None
    return f"{room}/ has no business with <{header}>"


def offences(root: pathlib.Path):
    for room in ROOMS:
        for path in sorted((root / room).rglob("*")):
            if path.suffix not in ENDINGS:
                continue
            for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
                where = f"{path.relative_to(root)}:{number}"
                found = INCLUDE.match(line)
                fault = fault_of_include(room, found.group(1)) if found else None
                if fault:
                    yield f"{where}: {fault}"
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
