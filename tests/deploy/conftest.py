# SPDX-License-Identifier: Apache-2.0
"""Renders the Helm chart, and starts real servers the way tests/python does."""
import os
import pathlib
import shutil
import subprocess
import sys

import pytest
import yaml

ROOT = pathlib.Path(os.environ.get("MILLRACE_SOURCE_DIR", pathlib.Path(__file__).parents[2]))
CHART = ROOT / "deploy/helm/millrace"
BINARY = os.environ.get("MILLRACE_BINARY", str(ROOT / "build/release/server/millrace"))
sys.path.insert(0, str(ROOT / "tests"))


@pytest.fixture(scope="session")
def render(tmp_path_factory):
    """render(values, ...) -> [manifest]; values are dicts laid over values.yaml. Fails with the template's error."""
    folder = tmp_path_factory.mktemp("render")
    if shutil.which("go") is None:
        pytest.skip("no Go compiler to render the chart with; scripts/install-deps test installs it")
    renderer = folder / "render_chart"
    environment = {**os.environ, "GO111MODULE": "off", "GOPATH": "/usr/share/gocode", "GOCACHE": str(folder / "cache")}
    subprocess.run(["go", "build", "-o", renderer, ROOT / "tests/deploy/render_chart.go"], env=environment, check=True)

    def run(*values, namespace="llm"):
        paths = []
        for i, layer in enumerate(values):
            paths.append(folder / f"values{i}.yaml")
            paths[-1].write_text(yaml.safe_dump(layer))
        done = subprocess.run([renderer, CHART, "demo", namespace, *paths], capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise ValueError(done.stderr)
        return [m for m in yaml.safe_load_all(done.stdout) if m]

    return run
