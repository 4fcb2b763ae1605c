#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""A hit of the response cache against a miss, through HTTP on the bundled model. Standard library only.

    python3 benches/server/response_cache.py [--binary PATH] [--runs 30] [--max-tokens 64] [--redis]

Each miss is a prompt of its own; each hit is the same request again. One connection that is kept, whole answers and
streams to their last byte. The client is a bare socket, since Python's http.client takes longer for a request than the
server does for a hit. Prints medians and spread, and their ratio. With --redis a redis-server is started and used as the
store.
"""
import argparse
import http.client
import json
import pathlib
import re
import signal
import socket
import statistics
import subprocess
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def await_ready(port):
    while True:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        try:
            connection.request("GET", "/readyz")
            if connection.getresponse().status == 200:
                return
        except OSError:
            pass
        finally:
            connection.close()
        time.sleep(0.02)


def is_whole(reply):
    head, end, body = reply.partition(b"\r\n\r\n")
    if not end:
        return False
    length = re.search(rb"(?i)content-length: (\d+)", head)
    return len(body) == int(length[1]) if length else body.endswith(b"\r\n0\r\n\r\n")


def ask(connection, body, expected):
    content = json.dumps(body).encode()
    request = b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%s" % (len(content), content)
    begin = time.perf_counter()
    connection.sendall(request)
    reply = b""
    while not is_whole(reply):
        reply += connection.recv(1 << 16)
    seconds = time.perf_counter() - begin
    assert reply.startswith(b"HTTP/1.1 200") and b"x-millrace-cache: " + expected + b"\r\n" in reply, reply[:500]
    return seconds


def show(name, times):
    times = sorted(times)
    print(f"  {name:<5} median {statistics.median(times) * 1e3:9.3f} ms   min {times[0] * 1e3:9.3f}   max {times[-1] * 1e3:9.3f}")
    return statistics.median(times)


def measure(port, arguments, mode):
    connection = socket.create_connection(("127.0.0.1", port), timeout=60)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    bodies = [{"prompt": f"{mode} number {i}:", "temperature": 0, "max_tokens": arguments.max_tokens, "ignore_eos": True,
               "stream": mode == "stream"} for i in range(arguments.runs + 3)]
    misses = [ask(connection, body, b"miss") for body in bodies][3:]
    time.sleep(0.2)  # a store in Redis is written behind the answer
    hits = [ask(connection, body, b"hit") for body in bodies][3:]
    print(f"{mode}, {arguments.max_tokens} tokens, {arguments.runs} runs")
    print(f"  a hit is {show('miss', misses) / show('hit', hits):.0f} times as fast")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--binary", default=str(ROOT / "build/release/server/millrace"))
    parser.add_argument("--runs", type=int, default=30)
    parser.add_argument("--max-tokens", type=int, default=64)
    parser.add_argument("--redis", action="store_true")
    arguments = parser.parse_args()
    port, redis_port, store, redis = free_port(), free_port(), "memory", None
    with tempfile.TemporaryFile() as log:
        if arguments.redis:
            redis = subprocess.Popen(["redis-server", "--port", str(redis_port), "--bind", "127.0.0.1", "--save", ""], stdout=log)
            store = f"redis://127.0.0.1:{redis_port}"
        server = subprocess.Popen([arguments.binary, "serve", str(ROOT / "models/millrace-tiny"), "--host", "127.0.0.1", "--port",
                                   str(port), "--response-cache", store], stdout=log, stderr=log)
        try:
            await_ready(port)
            print(f"store: {'redis' if arguments.redis else 'memory'}")
            for mode in ("whole", "stream"):
                measure(port, arguments, mode)
        finally:
            server.send_signal(signal.SIGTERM)
            server.wait()
            if redis:
                redis.kill()
                redis.wait()


if __name__ == "__main__":
    main()
