# SPDX-License-Identifier: Apache-2.0
"""Many concurrent streams with random disconnects against a real server, meant for sanitizer builds.

Each prompt with its seed is first run alone. Then `--streams` clients run for `--seconds`, some hanging up at a random
byte. It fails unless every choice of every stream that was read to its end equals its solo run, KV pages and running
requests are back to zero, the server exits with 0 on SIGTERM, and no sanitizer had anything to say.
"""
import argparse
import asyncio
import json
import os
import pathlib
import random
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.request

TOPICS = ["What is Millrace?", "hello", "What is 12 + 30?", "Tell me about metrics.", "How do I start the server?",
          "Convert 3 km to m.", "What time is it?", "Give me a fact.", "Who are you?", "Count to five."]


def bodies():
    for number, topic in enumerate(TOPICS):
        for temperature in (0.0, 0.9):
            body = {"model": "soak", "stream": True, "temperature": temperature, "seed": 1000 + number,
                    "max_tokens": 24 + 8 * (number % 4), "ignore_eos": number % 3 == 0, "n": 1 + number % 2}
            yield "/v1/chat/completions", {**body, "messages": [{"role": "user", "content": topic}]}
            if number % 2 == 0:
                yield "/v1/completions", {**body, "prompt": topic, "n": 1 + number % 4 // 2}


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


async def stream(port, path, body, hang_up_after=None):
    """The texts of a streamed answer's choices; None after hanging up at the given number of bytes."""
    payload = json.dumps(body).encode()
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(b"POST " + path.encode() + b" HTTP/1.1\r\nHost: soak\r\nContent-Type: application/json\r\n"
                     b"Connection: close\r\nContent-Length: " + str(len(payload)).encode() + b"\r\n\r\n")
        if hang_up_after == 0:
            return None
        writer.write(payload)
        await writer.drain()
        received = b""
        while True:
            wanted = 65536 if hang_up_after is None else max(1, hang_up_after - len(received))
            part = await asyncio.wait_for(reader.read(wanted), 120)
            if not part:
                break
            received += part
            if hang_up_after is not None and len(received) >= hang_up_after:
                return None
    finally:
        writer.transport.abort() if hang_up_after is not None else writer.close()
    text = received.decode("utf-8", "replace")
    if " 200 " not in text.split("\r\n", 1)[0]:
        raise AssertionError(f"unexpected answer: {text[:300]}")
    if "data: [DONE]" not in text:
        raise AssertionError(f"a stream ended without [DONE]: ...{text[-300:]}")
    # Chunked framing may cut a line; sizes stand alone on lines and are dropped before joining.
    joined = re.sub(r"\r\n[0-9a-fA-F]+\r\n", "", text.split("\r\n\r\n", 1)[1])
    answer = [""] * body["n"]
    for line in re.findall(r"data: (\{.*?\})\s*\n", joined):
        for choice in json.loads(line).get("choices", []):
            answer[choice["index"]] += choice.get("text") or choice.get("delta", {}).get("content") or ""
    return answer


async def soak(port, seconds, num_streams, seed, may_differ):
    jobs = list(bodies())
    solo = [await stream(port, *job) for job in jobs]
    counts = {"finished": 0, "hung up": 0}
    end = time.monotonic() + seconds

    async def client(number):
        rng = random.Random(seed * 1000 + number)
        while time.monotonic() < end:
            job = rng.randrange(len(jobs))
            hang_up = rng.choice([None, None, 0, rng.randrange(1, 400), rng.randrange(400, 6000)])
            answer = await stream(port, *jobs[job], hang_up)
            if answer is None:
                counts["hung up"] += 1
                continue
            counts["finished"] += 1
            if answer != solo[job] and not may_differ:
                raise AssertionError(f"a stream differs from its solo run:\n{answer!r}\n{solo[job]!r}\n{jobs[job]}")

    await asyncio.gather(*(client(number) for number in range(num_streams)))
    return counts


def metric(port, name):
    page = urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=30).read().decode()
    return sum(float(line.rsplit(" ", 1)[1]) for line in page.splitlines() if line.startswith(name + "{"))


def wait_ready(port, server):
    for _ in range(1200):
        if server.poll() is not None:
            raise AssertionError(f"the server exited with {server.returncode}")
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=2)
            return
        except OSError:
            time.sleep(0.1)
    raise AssertionError("the server did not become ready")


def check_idle(port):
    for _ in range(100):
        left = {name: metric(port, name) for name in
                ("vllm:kv_cache_usage_perc", "vllm:num_requests_running", "vllm:num_requests_waiting")}
        if not any(left.values()):
            return
        time.sleep(0.1)
    raise AssertionError(f"not idle after the last stream: {left}")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--binary", required=True)
    parser.add_argument("--model", required=True)
    parser.add_argument("--seconds", type=float, default=120)
    parser.add_argument("--streams", type=int, default=64)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--suppressions", help="a ThreadSanitizer suppressions file")
    parser.add_argument("--may-differ", action="store_true", help="a stream need not equal its solo run (on a GPU)")
    parser.add_argument("--serve-flag", action="append", default=[], help="goes to `millrace serve`; may be repeated")
    args = parser.parse_args()
    port = free_port()
    log = pathlib.Path(args.binary).parent / "soak.log"
    environment = dict(os.environ)
    environment.setdefault("ASAN_OPTIONS", "detect_leaks=1:exitcode=66")
    if args.suppressions:
        environment["TSAN_OPTIONS"] = (f"ignore_noninstrumented_modules=1:exitcode=66:halt_on_error=0:"
                                       f"suppressions={args.suppressions}")
    with open(log, "w", encoding="utf-8") as sink:
        server = subprocess.Popen(
            [args.binary, "serve", args.model, "--host", "127.0.0.1", "--port", str(port), "--served-model-name",
             "soak", "--max-num-seqs", "32", *args.serve_flag], stdout=sink, stderr=subprocess.STDOUT, env=environment)
        try:
            begin = time.monotonic()
            wait_ready(port, server)
            print(f"ready after {time.monotonic() - begin:.1f} s", flush=True)
            counts = asyncio.run(soak(port, args.seconds, args.streams, args.seed, args.may_differ))
            check_idle(port)
            server.send_signal(signal.SIGTERM)
            code = server.wait(120)
        except BaseException:
            print("\n".join(log.read_text(errors="replace").splitlines()[-40:]), flush=True)
            raise
        finally:
            if server.poll() is None:
                server.kill()
    output = log.read_text(errors="replace")
    reports = [line for line in output.splitlines() if "Sanitizer" in line or "runtime error" in line]
    whose = "" if args.may_differ else " equal to their solo run"
    print(f"{counts['finished']} streams{whose}, {counts['hung up']} hung up; server exit {code}; "
          f"{len(reports)} sanitizer lines")
    if reports or code != 0 or counts["finished"] == 0:
        print("\n".join(reports[:20] or output.splitlines()[-40:]), f"see {log}")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
