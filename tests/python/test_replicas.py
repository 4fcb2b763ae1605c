# SPDX-License-Identifier: Apache-2.0
"""Two replicas behind Debian's haproxy with one Redis: answers are shared, a dead one is not missed, a drained one loses
nothing. Standard library only."""
import concurrent.futures
import http.client
import json
import shutil
import signal
import subprocess
import time

import pytest

from conftest import free_port

HAPROXY = """
defaults
  mode http
  timeout connect 2s
  timeout client 60s
  timeout server 60s
  retries 5
  option redispatch 1
  retry-on all-retryable-errors 503
  option http-buffer-request
frontend door
  bind 127.0.0.1:{port}
  default_backend replicas
backend replicas
  balance roundrobin
  option httpchk GET /readyz
  http-check expect status 200
  default-server check inter 100ms fall 1 rise 1
"""


def await_port(port, process):
    for _ in range(400):
        assert process.poll() is None
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
        try:
            connection.connect()
            return
        except OSError:
            time.sleep(0.05)
        finally:
            connection.close()
    raise AssertionError("nobody listens")


@pytest.fixture
def run(tmp_path):
    """Starts programs that are killed at the end."""
    running = []

    def launch(*command):
        with open(tmp_path / f"{len(running)}.log", "w", encoding="utf-8") as log:
            running.append(subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT))
        return running[-1]

    yield launch
    for process in running:
        process.kill()
        process.wait()


@pytest.fixture
def cluster(run, start, tmp_path):
    """Port of the balancer, and the two replicas."""
    for program in ("redis-server", "haproxy"):
        if shutil.which(program) is None:
            pytest.skip(f"{program} is not installed")
    redis_port, port = free_port(), free_port()
    redis = run("redis-server", "--port", str(redis_port), "--bind", "127.0.0.1", "--save", "", "--dir", str(tmp_path))
    await_port(redis_port, redis)
    replicas = [start("--response-cache", f"redis://127.0.0.1:{redis_port}/1") for _ in range(2)]
    servers = "".join(f"  server s{i} 127.0.0.1:{one.port}\n" for i, one in enumerate(replicas))
    (tmp_path / "haproxy.cfg").write_text(HAPROXY.format(port=port) + servers)
    await_port(port, run("haproxy", "-f", str(tmp_path / "haproxy.cfg")))
    for _ in range(200):
        if ask(port, {"prompt": "x", "max_tokens": 1})[0] == 200:
            break
        time.sleep(0.05)
    return port, replicas


def ask(port, body):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    try:
        connection.request("POST", "/v1/completions", json.dumps(body), {"Content-Type": "application/json"})
        reply = connection.getresponse()
        return reply.status, reply.headers.get("x-millrace-cache"), reply.read().decode()
    finally:
        connection.close()


def ask_as_clients_do(port, body):
    """The official clients ask again when a gateway had no answer."""
    for _ in range(3):
        reply = ask(port, body)
        if reply[0] < 500:
            break
    return reply


def test_replicas_share_answers(cluster):
    port, replicas = cluster
    body = {"prompt": "Once upon a time", "temperature": 0, "max_tokens": 12}
    status, outcome, first = ask(port, body)
    assert (status, outcome) == (200, "miss")
    text = json.loads(first)["choices"]
    # Answers are written behind the back of requests: the first later one may still be too early.
    for _ in range(100):
        outcomes = {ask(one.port, body)[1] for one in replicas}
        if outcomes == {"hit"}:
            break
        time.sleep(0.05)
    assert outcomes == {"hit"}
    for one in replicas:
        status, _, again = ask(one.port, body)
        assert json.loads(again)["choices"] == text
    ids = {json.loads(ask(port, body)[2])["id"] for _ in range(4)}
    assert len(ids) == 4


def test_a_killed_replica_is_not_missed(cluster):
    port, replicas = cluster
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        for number in range(2):
            asked = [pool.submit(ask_as_clients_do, port, {"prompt": f"say {number} {i}", "temperature": 0, "max_tokens": 8}) for i in range(40)]
            if number == 0:
                asked[5].result()
                replicas[0].process.kill()
                replicas[0].process.wait()
            # What the dead one was computing is asked again of the other: nobody has seen a byte of it.
            assert [one.result()[0] for one in asked] == [200] * len(asked)


def test_a_drained_replica_loses_no_stream(cluster):
    port, replicas = cluster
    body = {"temperature": 0, "max_tokens": 150, "ignore_eos": True, "stream": True}
    streams = []
    for i in range(6):
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        connection.request("POST", "/v1/completions", json.dumps({**body, "prompt": f"count {i}"}), {"Content-Type": "application/json"})
        streams.append((connection, connection.getresponse()))
    replicas[1].process.send_signal(signal.SIGTERM)
    for connection, reply in streams:
        assert reply.status == 200
        assert reply.read().decode().rstrip().endswith("data: [DONE]")
        connection.close()
    assert replicas[1].process.wait(60) == 0
    assert ask(port, {"prompt": "after", "max_tokens": 2})[0] == 200
