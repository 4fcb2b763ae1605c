# SPDX-License-Identifier: Apache-2.0
"""Which files a kernel is made of, and their hash: shared by the compile gate, gpu_check.py and attested_test.py."""
import functools
import hashlib
import pathlib
import re

INCLUDE = re.compile(r'^\s*#\s*include\s+"([^"]+)"', re.MULTILINE)


def kernel_files(root):
    """Every kernel source, sorted."""
    return sorted((root / "kernels" / "cuda").rglob("*.cu"))


@functools.cache
def includes(path):
    return INCLUDE.findall(path.read_text(encoding="utf-8"))


def closure(root, source):
    """The file and all it includes from this tree, sorted; includes are looked up from the root, as the builds do."""
    found, waiting = set(), [source]
    while waiting:
        path = waiting.pop()
        if path in found:
            continue
        found.add(path)
        waiting += [root / name for name in includes(path) if (root / name).exists()]
    return sorted(found)


def digest(root, source, salt=""):
    """Of a file and what it includes; `salt` is what else its meaning hangs on."""
    sums = hashlib.sha256(salt.encode())
    for path in closure(root, source):
        sums.update(str(path.relative_to(root)).encode() + b"\0" + path.read_bytes() + b"\0")
    return sums.hexdigest()


def relative(root, path):
    return pathlib.Path(path).relative_to(root).as_posix()
