# SPDX-License-Identifier: Apache-2.0
"""Commands that make files, and the serving of what they made. Standard library only."""
import json
import os
import signal
import subprocess
import time
import urllib.request

import pytest

from conftest import MODEL, ROOT, free_port

BINARY = os.environ.get("MILLRACE_BINARY", str(ROOT / "build/release/server/millrace"))
BODY = {"prompt": "The mill by the river", "max_tokens": 24, "temperature": 0, "ignore_eos": True, "logprobs": 2}


def millrace(*arguments, code=0):
    done = subprocess.run([BINARY, *map(str, arguments)], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout if code == 0 else done.stderr


def answer_of(log_path, *arguments):
    """The tokens and log-probabilities that `millrace serve` gives with these arguments."""
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    with open(log_path, "w", encoding="utf-8") as log:
        process = subprocess.Popen([BINARY, "serve", *map(str, arguments), "--host", "127.0.0.1", "--port", str(port)],
                                   stdout=log, stderr=log)
    try:
        for _ in range(600):
            assert process.poll() is None, log_path.read_text()
            try:
                urllib.request.urlopen(url + "/readyz", timeout=2)
                break
            except OSError:
                time.sleep(0.05)
        request = urllib.request.Request(url + "/v1/completions", json.dumps(BODY).encode())
        with urllib.request.urlopen(request, timeout=60) as reply:
            return json.load(reply)["choices"][0]
    finally:
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0, log_path.read_text()


@pytest.mark.parametrize("kind", ["int8", "int4", "int4-g32"])
def test_what_quantize_writes_serves_the_same_bits_as_quantising_on_load(kind, tmp_path):
    out = tmp_path / "quantised"
    assert "MiB ->" in millrace("quantize", MODEL, out, "--quantization", kind)
    stored = sum(path.stat().st_size for path in out.glob("*.safetensors"))
    assert stored < 0.8 * (MODEL / "model.safetensors").stat().st_size
    assert (out / "tokenizer.json").exists()
    assert "millrace, " + kind[3] + " bits" in millrace("inspect", out)
    served = answer_of(tmp_path / "stored.log", out)
    assert served == answer_of(tmp_path / "on_load.log", MODEL, "--quantization", kind)
    assert len(served["logprobs"]["tokens"]) == BODY["max_tokens"]


def test_quantize_overwrites_nothing_and_takes_no_quantised_model(tmp_path):
    out, again = tmp_path / "quantised", tmp_path / "again"
    millrace("quantize", MODEL, out, "-q", "int8")
    before = {path.name: path.stat().st_mtime_ns for path in out.iterdir()}
    assert str(out) in millrace("quantize", MODEL, out, "-q", "int4", code=1)
    assert {path.name: path.stat().st_mtime_ns for path in out.iterdir()} == before
    assert "quantised" in millrace("quantize", out, again, code=1)
    assert not again.exists()
    assert "int3" in millrace("quantize", MODEL, again, "-q", "int3", code=2)
    millrace("quantize", tmp_path / "nowhere", again, code=1)
    assert not again.exists()


def test_inspect_and_quantize_know_a_mixture_of_experts(tmp_path):
    model = ROOT / "tests/data/goldens/qwen3_moe"
    assert "3 of 8, ffn 32" in millrace("inspect", model)
    millrace("quantize", model, tmp_path / "int8", "-q", "int8")
    assert "3 of 8, ffn 32" in millrace("inspect", tmp_path / "int8")
