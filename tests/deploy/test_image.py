# SPDX-License-Identifier: Apache-2.0
"""The image, as far as it can be checked without a container engine: what the Dockerfile copies, installs and starts."""
import pathlib
import re
import shlex
import subprocess

import pytest

from conftest import BINARY, ROOT

DOCKERFILES = sorted((ROOT / "deploy/docker").glob("Dockerfile.*"))


def instructions(path):
    text = re.sub(r"\\\n", " ", path.read_text())
    for line in text.splitlines():
        if line.strip() and not line.startswith("#"):
            word, rest = line.split(None, 1)
            yield word, rest


@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda p: p.name)
def test_copied_paths_exist(path):
    copied = [shlex.split(rest) for word, rest in instructions(path) if word == "COPY"]
    assert copied
    for words in copied:
        if words[0].startswith("--from"):
            assert words[1].removeprefix("/src/").startswith(("millrace", "models/", "/millrace", "libmillrace", "/libmillrace"))
            continue
        for source in words[:-1]:
            assert (ROOT / source).exists(), source


@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda p: p.name)
def test_the_image_is_no_root_and_starts_as_written(path):
    found = dict(instructions(path))
    assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", found["USER"])
    assert found["ENTRYPOINT"] == '["/usr/local/bin/millrace"]'
    words = [w.strip('"') for w in found["CMD"].strip("[]").split(", ")]
    words = [w.replace("/usr/share/millrace", str(ROOT)) for w in words]
    done = subprocess.run([BINARY, *words, "--check-config"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def run_packages():
    text = (ROOT / "scripts/install-deps").read_text()
    return set(re.search(r"run_packages=\((.*?)\)", text, re.S).group(1).split())


def test_the_image_has_the_interpreter_of_the_python_tool():
    assert "python3-minimal" in run_packages()


def test_the_run_packages_hold_what_the_binary_links():
    if not pathlib.Path("/usr/bin/dpkg-query").exists():
        pytest.skip("not Debian")
    needed = set(re.findall(r"NEEDED.*\[(.*?)\]", subprocess.run(["readelf", "-d", BINARY], capture_output=True, text=True, check=True).stdout))
    resolved = dict(re.findall(r"(\S+) => (\S+)", subprocess.run(["ldd", BINARY], capture_output=True, text=True, check=True).stdout))
    always = {"libc6", "libgcc-s1", "zlib1g"}  # essential, or of every Debian image
    paths = [str(pathlib.Path(resolved[library]).resolve()) for library in needed if library in resolved]
    assert paths
    # A merged /usr: packages may own either name.
    asked = [name for path in paths for name in (path, path.removeprefix("/usr"))]
    found = subprocess.run(["dpkg-query", "-S", *asked], capture_output=True, text=True, check=False).stdout
    owners = {path: package for package, path in re.findall(r"^([^:]+).*: (\S+)$", found, re.M)}
    for path in paths:
        owner = owners.get(path) or owners.get(path.removeprefix("/usr"))
        assert owner in run_packages() | always, f"{path} is of {owner}"
