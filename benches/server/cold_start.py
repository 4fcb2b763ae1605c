#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Cold start: from the start of the process to a ready server, and to the first streamed token. Standard library only.

    python3 benches/server/cold_start.py                        # build/release and models/millrace-tiny, 10 runs
    python3 benches/server/cold_start.py --model DIR --runs 20 --binary PATH -- --threads 2

Words after `--` go to `millrace serve`. Each run starts a fresh process on a free port, asks /readyz until it answers
200, then asks for a few tokens as a stream. Times are seconds after the spawning: `ready` is the answer of /readyz,
`first_token` the first event of the stream with text in it. The files are in the page cache after the first run, which
is not left out. Prints one JSON line per run, then one per measure with min, median and max. Run it on a quiet machine:
the probe asks every millisecond, and a busy core shows.
"""
import argparse
import http.client
import json
import pathlib
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
PROBE_SECONDS = 0.001
LIMIT_SECONDS = 600


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def is_ready(port):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=LIMIT_SECONDS)
    try:
        connection.request("GET", "/readyz")
        return connection.getresponse().status == 200
    except OSError:
        return False
    finally:
        connection.close()


def wait_first_token(port):
    """Returns when the first event with text has come; reads the rest of the stream no further."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=LIMIT_SECONDS)
    body = {"prompt": "The mill", "max_tokens": 8, "temperature": 0, "ignore_eos": True, "stream": True}
    try:
        connection.request("POST", "/v1/completions", json.dumps(body), {"Content-Type": "application/json"})
        reply = connection.getresponse()
        if reply.status != 200:
            raise RuntimeError(f"the completion was answered {reply.status}: {reply.read()[:500]!r}")
        while line := reply.readline():
            if line.startswith(b"data: {"):
                choices = json.loads(line[6:])["choices"]
                if choices and choices[0].get("text"):
                    return
        raise RuntimeError("the stream ended without text")
    finally:
        connection.close()


def measure(binary, model, flags):
    port = free_port()
    command = [binary, "serve", model, "--host", "127.0.0.1", "--port", str(port), *flags]
    with tempfile.TemporaryFile() as log:
        begin = time.perf_counter()
        process = subprocess.Popen(command, stdout=log, stderr=log)
        try:
            while not is_ready(port):
                if process.poll() is not None or time.perf_counter() - begin > LIMIT_SECONDS:
                    log.seek(0)
                    raise RuntimeError(f"the server did not get ready:\n{log.read().decode(errors='replace')}")
                time.sleep(PROBE_SECONDS)
            ready = time.perf_counter() - begin
            wait_first_token(port)
            return {"ready": ready, "first_token": time.perf_counter() - begin}
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(60)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--binary", default=str(ROOT / "build/release/server/millrace"))
    parser.add_argument("--model", default=str(ROOT / "models/millrace-tiny"))
    parser.add_argument("--runs", type=int, default=10)
    parser.add_argument("flags", nargs="*", help="after --: flags of millrace serve")
    options = parser.parse_args()
    if options.runs < 1:
        parser.error("--runs must be at least 1")
    runs = []
    for number in range(options.runs):
        runs.append(measure(options.binary, options.model, options.flags))
        print(json.dumps({"run": number, **{name: round(seconds, 6) for name, seconds in runs[-1].items()}}), flush=True)
    for name in ("ready", "first_token"):
        seconds = [run[name] for run in runs]
        print(json.dumps({"measure": name, "runs": len(runs), "min_seconds": round(min(seconds), 6),
                          "median_seconds": round(statistics.median(seconds), 6),
                          "max_seconds": round(max(seconds), 6)}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
