# SPDX-License-Identifier: Apache-2.0
"""Starts the real binary on the bundled model once for all tests of this folder."""
import os
import pathlib
import signal
import socket
import subprocess
import time
import urllib.request

import pytest

ROOT = pathlib.Path(os.environ.get("MILLRACE_SOURCE_DIR", pathlib.Path(__file__).parents[2]))
MODEL = ROOT / "models" / "millrace-tiny"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Server:
    """A running `millrace serve`; base is its HTTP address, grpc its gRPC address."""

    def __init__(self, log_path, *flags):
        self.port, self.grpc_port = free_port(), free_port()
        self.base = f"http://127.0.0.1:{self.port}"
        self.grpc = f"127.0.0.1:{self.grpc_port}"
        binary = os.environ.get("MILLRACE_BINARY", str(ROOT / "build/release/server/millrace"))
        self.log_path = log_path
        with open(log_path, "w", encoding="utf-8") as log:
            self.process = subprocess.Popen(
                [binary, "serve", str(MODEL), "--served-model-name", "millrace-tiny", "--host", "127.0.0.1",
                 "--port", str(self.port), "--grpc-port", str(self.grpc_port), *flags],
                stdout=log, stderr=subprocess.STDOUT)
        self.wait_ready()

    def wait_ready(self):
        for _ in range(600):
            if self.process.poll() is not None:
                raise RuntimeError(f"exited with {self.process.returncode}:\n{self.log()}")
            try:
                urllib.request.urlopen(self.base + "/readyz", timeout=2)
                return
            except OSError:
                time.sleep(0.05)
        raise RuntimeError(f"not ready:\n{self.log()}")

    def log(self) -> str:
        return pathlib.Path(self.log_path).read_text(encoding="utf-8", errors="replace")

    def stop(self) -> int:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        return self.process.wait(60)


@pytest.fixture(scope="session")
def server(tmp_path_factory):
    running = Server(tmp_path_factory.mktemp("serve") / "serve.log")
    yield running
    assert running.stop() == 0, running.log()


@pytest.fixture
def start(tmp_path):
    """Starts servers with flags of one's own; they are stopped at the end of the test."""
    started = []

    def launch(*flags):
        started.append(Server(tmp_path / f"serve{len(started)}.log", *flags))
        return started[-1]

    yield launch
    for one in started:
        one.stop()
