# SPDX-License-Identifier: Apache-2.0
"""Serves the bundled model with the real binary and has models/training/evaluate_server.py ask it. Standard library only.

evaluate.py --binary MILLRACE [flags of evaluate_server.py]
"""
import argparse
import pathlib
import subprocess
import sys

from soak import free_port, wait_ready

ROOT = pathlib.Path(__file__).resolve().parents[2]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--binary", required=True)
    args, flags = parser.parse_known_args()
    port = free_port()
    with open(pathlib.Path(args.binary).parent / "evaluate.log", "w", encoding="utf-8") as log:
        server = subprocess.Popen([args.binary, "serve", str(ROOT / "models/millrace-tiny"), "--host", "127.0.0.1", "--port",
                                   str(port)], stdout=log, stderr=subprocess.STDOUT)
        try:
            wait_ready(port, server)
            return subprocess.run(
                [sys.executable, str(ROOT / "models/training/evaluate_server.py"), "--url", f"http://127.0.0.1:{port}/v1",
                 *flags], check=False).returncode
        finally:
            server.terminate()
            server.wait(60)


if __name__ == "__main__":
    sys.exit(main())
