# SPDX-License-Identifier: Apache-2.0
"""The real binary as a process: keys, TLS, probes, drain, logs, and its own client commands. Standard library only."""
import http.client
import json
import os
import pathlib
import pty
import signal
import ssl
import subprocess
import threading
import time
import urllib.error
import urllib.request

import pytest

from conftest import MODEL, ROOT

BINARY = os.environ.get("MILLRACE_BINARY", str(ROOT / "build/release/server/millrace"))
LONG = {"prompt": "hello", "max_tokens": 1500, "ignore_eos": True, "stream": True, "temperature": 0}


def call(url, body=None, headers=None, context=None):
    request = urllib.request.Request(url, json.dumps(body).encode() if body is not None else None, headers or {})
    try:
        with urllib.request.urlopen(request, timeout=60, context=context) as reply:
            return reply.status, dict(reply.headers), reply.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, dict(error.headers), error.read().decode()


def open_stream(port, body, headers=None):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    connection.request("POST", "/v1/completions", json.dumps(body),
                       {"Content-Type": "application/json", **(headers or {})})
    reply = connection.getresponse()
    assert reply.status == 200
    assert reply.readline()  # the first token has come
    return connection, reply


def millrace(*arguments, text=None, code=0):
    done = subprocess.run([BINARY, *arguments], input=text, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout if code == 0 else done.stderr


def test_request_id_returns_and_is_logged_without_the_text(server):
    headers = {"x-request-id": "my-own.id"}
    status, answer_headers, _ = call(server.base + "/v1/completions", {"prompt": "sesame street", "max_tokens": 3}, headers)
    assert status == 200 and answer_headers["x-request-id"] == "my-own.id"
    for _ in range(100):
        lines = [json.loads(line) for line in server.log().splitlines() if "my-own.id" in line]
        if lines:
            break
        time.sleep(0.05)
    assert lines[0]["message"] == "request" and lines[0]["generated_tokens"] == 3
    assert {"queue_ms", "prefill_ms", "decode_ms", "cached_tokens", "finish_reason", "tenant"} <= set(lines[0])
    assert "sesame" not in server.log()


def test_a_prefix_is_found_again(server):
    body = {"prompt": "The mill by the river turns all day long. " * 20, "max_tokens": 2, "temperature": 0}
    first = json.loads(call(server.base + "/v1/completions", body)[2])
    again = json.loads(call(server.base + "/v1/completions", body)[2])
    assert again["usage"]["prompt_tokens_details"]["cached_tokens"] > 0
    assert again["choices"] == first["choices"]


def test_metrics_count_what_was_served(server):
    def metric(name):
        page = call(server.base + "/metrics")[2]
        return sum(float(line.rsplit(" ", 1)[1]) for line in page.splitlines() if line.startswith(name + "{"))
    before = metric("vllm:generation_tokens_total")
    call(server.base + "/v1/completions", {"prompt": "a", "max_tokens": 7, "ignore_eos": True})
    assert metric("vllm:generation_tokens_total") - before == 7
    assert metric("vllm:request_prefill_time_seconds_sum") > 0


def test_a_hang_up_frees_the_pages(server):
    connection, _ = open_stream(server.port, LONG)
    connection.sock.close() if connection.sock else None
    connection.close()
    for _ in range(200):
        page = call(server.base + "/metrics")[2]
        used = [line for line in page.splitlines() if line.startswith("vllm:kv_cache_usage_perc{")]
        if float(used[0].rsplit(" ", 1)[1]) == 0:
            break
        time.sleep(0.02)
    assert float(used[0].rsplit(" ", 1)[1]) == 0


def test_sigterm_drains(start):
    server = start("--shutdown-timeout", "60")
    streams = [open_stream(server.port, LONG) for _ in range(12)]  # seconds of work
    server.process.send_signal(signal.SIGTERM)
    status = None
    try:
        for _ in range(200):
            status = call(server.base + "/readyz")[0]
            if status == 503:
                break
            time.sleep(0.01)
    except OSError:  # a fast machine may be through already
        assert server.process.wait(60) == 0
    # While the streams run, new work is refused and the process lives.
    if server.process.poll() is None:
        assert status == 503
        try:
            status, headers, _ = call(server.base + "/v1/completions", {"prompt": "a"})
            assert status == 503 and "retry-after" in {name.lower() for name in headers}
        except OSError:
            pass
    for connection, reply in streams:
        assert b"[DONE]" in reply.read()
        connection.close()
    assert server.process.wait(60) == 0


def test_a_second_signal_stops_at_once(start):
    server = start("--shutdown-timeout", "600", "--max-num-seqs", "2")
    streams = [open_stream(server.port, {**LONG, "n": 2}) for _ in range(4)]
    server.process.send_signal(signal.SIGTERM)
    time.sleep(0.2)
    server.process.send_signal(signal.SIGTERM)
    begin = time.monotonic()
    assert server.process.wait(30) in (0, 128 + signal.SIGTERM)
    assert time.monotonic() - begin < 5
    for connection, _ in streams:
        connection.close()


def test_keys_and_tenants(start, tmp_path):
    keys = tmp_path / "keys.yaml"
    keys.write_text("keys:\n  - {key: alpha, tenant: acme, weight: 2}\n")
    server = start("--api-key-file", str(keys), "--api-key", "beta")
    assert call(server.base + "/v1/models")[0] == 401
    assert call(server.base + "/metrics")[0] == 401
    assert call(server.base + "/livez")[0] == 200
    for key in ("alpha", "beta"):
        headers = {"Authorization": f"Bearer {key}"}
        assert call(server.base + "/v1/completions", {"prompt": "a", "max_tokens": 1}, headers)[0] == 200
    assert call(server.base + "/metrics", headers={"Authorization": "Bearer alpha"})[0] == 403
    assert 'tenant="acme"' in call(server.base + "/metrics", headers={"Authorization": "Bearer beta"})[2]
    assert "alpha" not in server.log()


def test_keys_are_read_again(start, tmp_path):
    keys = tmp_path / "keys.yaml"
    keys.write_text("- {key: alpha, tenant: acme}\n")
    server = start("--api-key-file", str(keys))

    def status_of(key):
        return call(server.base + "/v1/models", headers={"Authorization": f"Bearer {key}"})[0]

    def reload(text, line):
        keys.write_text(text)
        server.process.send_signal(signal.SIGHUP)
        for _ in range(1000):
            if line in server.log():
                return
            time.sleep(0.02)
        raise AssertionError(server.log())

    connection, response = open_stream(server.port, {"prompt": "a", "max_tokens": 200, "ignore_eos": True,
                                                     "stream": True}, {"Authorization": "Bearer alpha"})
    reload("- {key: gamma, tenant: acme\n", "the old ones stay")
    assert (status_of("alpha"), status_of("gamma")) == (200, 401)
    assert f"{keys}:" in server.log()
    reload("- {key: gamma, tenant: acme}\n", "the keys were read again")
    assert (status_of("alpha"), status_of("gamma")) == (401, 200)
    assert b"[DONE]" in response.read()  # what ran with the key that is gone goes on
    connection.close()
    assert "gamma" not in server.log()


def test_tls(start, tmp_path):
    certificate, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    made = subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes",
                           "-keyout", key, "-out", certificate, "-days", "2", "-subj", "/CN=localhost", "-addext",
                           "subjectAltName=IP:127.0.0.1"], capture_output=True, check=False)
    if made.returncode != 0:
        pytest.skip("openssl cannot make a certificate")
    log = tmp_path / "tls.log"
    port = __import__("conftest").free_port()
    with open(log, "w", encoding="utf-8") as sink:
        process = subprocess.Popen([BINARY, "serve", str(MODEL), "--host", "127.0.0.1", "--port", str(port),
                                    "--ssl-certfile", certificate, "--ssl-keyfile", key], stdout=sink, stderr=sink)
    try:
        context = ssl.create_default_context(cafile=certificate)
        for _ in range(600):
            try:
                if call(f"https://127.0.0.1:{port}/readyz", context=context)[0] == 200:
                    break
            except OSError:
                pass
            time.sleep(0.05)
        body = {"prompt": "a", "max_tokens": 20, "stream": True, "ignore_eos": True}
        status, _, text = call(f"https://127.0.0.1:{port}/v1/completions", body, context=context)
        assert status == 200 and text.rstrip().endswith("data: [DONE]")
    finally:
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0, log.read_text()


def test_a_full_queue_answers_429(start):
    server = start("--max-num-queued-reqs", "1", "--max-num-seqs", "1")
    statuses = []

    def one(number):
        body = {**LONG, "prompt": f"hello {number}", "stream": False, "max_tokens": 300}  # equal ones would share an answer
        statuses.append(call(server.base + "/v1/completions", body)[0])

    threads = [threading.Thread(target=one, args=(number,)) for number in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert set(statuses) == {200, 429}


def test_chat_and_complete_against_a_server(server):
    answer = millrace("chat", "--url", server.base, "--temperature", "0", text="What is Millrace?\n")
    assert "Millrace" in answer
    assert millrace("complete", "--url", server.base, "--prompt", "hello", "--max-tokens", "5").strip()
    assert "429" not in millrace("chat", "--url", "http://127.0.0.1:9", "--prompt", "x", code=1)


def test_chat_and_benches_in_process(tmp_path):
    assert "Millrace" in millrace("chat", str(MODEL), "--temperature", "0", "--prompt", "What is Millrace?")
    out = tmp_path / "throughput.json"
    text = millrace("bench", "throughput", str(MODEL), "--num-prompts", "4", "--input-len", "16", "--output-len", "8",
                    "--output-json", str(out))
    assert "output tokens/s" in text and json.loads(out.read_text())["requests"] == 4
    assert "per token" in millrace("bench", "latency", str(MODEL), "--input-len", "8", "--output-len", "4",
                                   "--num-iters", "2")


def test_benches_show_progress_on_a_terminal():
    ours, theirs = pty.openpty()
    with subprocess.Popen([BINARY, "bench", "latency", str(MODEL), "--input-len", "8", "--output-len", "4",
                           "--num-iters", "1"], stdout=subprocess.DEVNULL, stderr=theirs) as process:
        os.close(theirs)
        shown = b""
        while True:
            try:
                piece = os.read(ours, 4096)
            except OSError:  # the other end is closed
                break
            if not piece:
                break
            shown += piece
    os.close(ours)
    assert process.returncode == 0 and b"run 1 of 1" in shown


def test_bench_serve_prints_and_plots(server, tmp_path):
    out, plot = tmp_path / "load.json", tmp_path / "load.svg"
    text = millrace("bench", "serve", "--url", server.base, "--num-prompts", "20", "--request-rate", "50",
                    "--input-len", "32", "--output-len", "16", "--output-json", str(out), "--svg", str(plot))
    result = json.loads(out.read_text())
    assert result["answered"] == 20 and result["output_tokens"] == 320 and result["input_tokens"] == 640
    assert "first token" in text and plot.read_text().startswith("<svg")
    trace = tmp_path / "trace.csv"
    trace.write_text("TIMESTAMP,ContextTokens,GeneratedTokens\n2023-11-16 18:17:03.97,48,10\n"
                     "2023-11-16 18:17:04.03,31,8\n")
    assert "2 of 2 requests" in millrace("bench", "serve", "--url", server.base, "--trace", str(trace),
                                         "--endpoint", "chat")


def test_inspect_config_and_faults(tmp_path):
    assert "KV cache" in millrace("inspect", str(MODEL))
    config = tmp_path / "serve.yaml"
    config.write_text(f"model: {MODEL}\nmax-num-seqs: 4\n")
    assert "valid" in millrace("serve", "--config", str(config), "--check-config")
    config.write_text(f"model: {MODEL}\napi-key-file: {tmp_path}/no-keys\n")
    assert "no-keys" in millrace("serve", "--config", str(config), "--check-config", code=2)
    config.write_text("model: x\nmax-num-seq: 4\n")
    assert f"{config}:2: unknown key 'max-num-seq'" in millrace("serve", "--config", str(config), code=2)
    assert "nowhere" in millrace("serve", "nowhere-at-all", "--port", "0", code=1)
    assert millrace("--version").startswith("millrace ")
    assert pathlib.Path(BINARY).exists()
