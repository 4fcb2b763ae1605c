#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The work of our kernels done by torch on the same GPU, so that a claim is a ratio from one run. Needs torch with CUDA.

    python3 benches/cuda/peers.py [--only copy,matmul,int8,int4,attention,decode,batching]

Shapes are of Llama-3.1-8B. Every line is JSON: what, shape, microseconds (median of the runs and their spread), GB/s of
the bytes that must move, TFLOP/s. Weights rotate over copies that together exceed the L2 cache.
"""
import argparse
import json
import statistics
import time

import torch
import torch.nn.functional as F

RUNS, WARM_UPS = 30, 5
ROTATED_BYTES = 256 << 20
MATRICES = {"qkv": (4096, 6144), "gate_up": (4096, 28672), "down": (14336, 4096)}
ROWS = (1, 16, 64, 256, 2048)


def measure(work, num_variants=1):
    """(median, spread) of work(i)'s microseconds; i goes round the variants."""
    for i in range(WARM_UPS):
        work(i % num_variants)
    times = []
    for i in range(RUNS):
        begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        begin.record()
        work(i % num_variants)
        end.record()
        end.synchronize()
        times.append(begin.elapsed_time(end) * 1000)
    times.sort()
    return statistics.median(times), times[-RUNS // 10] - times[RUNS // 10]


def report(what, shape, timing, num_bytes=0, num_operations=0):
    median, spread = timing
    print(json.dumps({"what": what, "shape": shape, "us": round(median, 2), "spread_us": round(spread, 2),
                      "GB/s": round(num_bytes / median / 1e3, 1),
                      "TFLOP/s": round(num_operations / median / 1e6, 2)}), flush=True)


def copies(num_bytes):
    return max(1, min(8, ROTATED_BYTES // num_bytes + 1))


def bench_copy():
    source = torch.empty(1 << 30, dtype=torch.uint8, device="cuda")
    target = torch.empty_like(source)
    report("copy", "1 GiB", measure(lambda i: target.copy_(source)), 2 << 30)


def bench_matmul():
    for name, (k, n) in MATRICES.items():
        count = copies(2 * k * n)
        weights = [torch.randn(n, k, device="cuda", dtype=torch.bfloat16) for _ in range(count)]
        for m in ROWS:
            x = torch.randn(m, k, device="cuda", dtype=torch.bfloat16)
            report("torch bf16 linear", f"{name} {m}x{k}x{n}", measure(lambda i: F.linear(x, weights[i]), count),
                   2 * k * n, 2 * m * k * n)


def bench_int8():
    for name, (k, n) in MATRICES.items():
        count = copies(k * n)
        weights = [torch.randint(-127, 127, (n, k), device="cuda", dtype=torch.int8) for _ in range(count)]
        for m in (m for m in ROWS if m > 16):  # it takes no fewer rows
            x = torch.randint(-127, 127, (m, k), device="cuda", dtype=torch.int8)
            report("torch._int_mm", f"{name} {m}x{k}x{n}", measure(lambda i: torch._int_mm(x, weights[i].t()), count),
                   k * n, 2 * m * k * n)


def bench_int4():
    group = 128
    for name, (k, n) in MATRICES.items():
        count = copies(k * n // 2)
        packed = [torch.ops.aten._convert_weight_to_int4pack(
            torch.randint(0, 255, (n, k // 2), device="cuda", dtype=torch.uint8), 8) for _ in range(count)]
        scales = torch.rand(k // group, n, 2, device="cuda", dtype=torch.bfloat16)
        for m in (m for m in ROWS if m <= 256):
            x = torch.randn(m, k, device="cuda", dtype=torch.bfloat16)
            report("tinygemm int4 g128", f"{name} {m}x{k}x{n}", measure(
                lambda i: torch.ops.aten._weight_int4pack_mm(x, packed[i], group, scales), count),
                   k * n // 2, 2 * m * k * n)


def bench_attention():
    heads, groups, dim = 32, 8, 128
    for rows, batch, context in ((1, 1, 4096), (1, 32, 1024), (1, 32, 4096), (2048, 1, 2048), (8192, 1, 8192)):
        q = torch.randn(batch, heads, rows, dim, device="cuda", dtype=torch.bfloat16)
        k, v = (torch.randn(batch, groups, context, dim, device="cuda", dtype=torch.bfloat16) for _ in range(2))
        is_causal = rows > 1
        operations = 4 * batch * heads * rows * context * dim // (2 if is_causal else 1)
        report("torch SDPA", f"rows {rows} batch {batch} context {context}", measure(
            lambda i: F.scaled_dot_product_attention(q, k, v, is_causal=is_causal, enable_gqa=True)),
               4 * batch * groups * context * dim, operations)


class Layer(torch.nn.Module):
    """A decoder layer for one new token, its keys and values in a fixed buffer."""

    def __init__(self, context):
        super().__init__()
        self.qkv = torch.nn.Linear(4096, 6144, bias=False)
        self.out = torch.nn.Linear(4096, 4096, bias=False)
        self.gate_up = torch.nn.Linear(4096, 28672, bias=False)
        self.down = torch.nn.Linear(14336, 4096, bias=False)
        self.register_buffer("kv", torch.randn(2, 1, 8, context, 128))

    def forward(self, x, position):
        q, k, v = self.qkv(F.rms_norm(x, (4096,))).split((4096, 1024, 1024), -1)
        self.kv[0].index_copy_(2, position, k.view(1, 8, 1, 128))
        self.kv[1].index_copy_(2, position, v.view(1, 8, 1, 128))
        mixed = F.scaled_dot_product_attention(q.view(1, 32, 1, 128), self.kv[0], self.kv[1], enable_gqa=True)
        x = x + self.out(mixed.view(1, 4096))
        gate, up = self.gate_up(F.rms_norm(x, (4096,))).chunk(2, -1)
        return x + self.down(F.silu(gate) * up)


def bench_decode():
    layers = 8  # of 32: the time of a token is four times that, without the head
    torch.set_grad_enabled(False)
    model = torch.nn.Sequential()
    stack = [Layer(1024).to(device="cuda", dtype=torch.bfloat16) for _ in range(layers)]
    for layer in stack:
        model.append(layer)

    def step(x, position):
        for layer in stack:
            x = layer(x, position)
        return x

    compiled = torch.compile(step, mode="reduce-overhead", fullgraph=True)
    x, position = torch.randn(1, 4096, device="cuda", dtype=torch.bfloat16), torch.tensor([1000], device="cuda")
    num_bytes = 2 * sum(parameter.numel() for parameter in model.parameters())
    report("torch.compile decode, bf16", f"{layers} layers, context 1024", measure(lambda i: compiled(x, position)),
           num_bytes, num_bytes)


def bench_batching():
    """transformers' continuous batching: 32 prompts of 1024 tokens, 64 new ones each, of 8 layers."""
    import transformers
    layers, batch, context, num_new = 8, 32, 1024, 64
    config = transformers.LlamaConfig(hidden_size=4096, intermediate_size=14336, num_hidden_layers=layers,
                                      num_attention_heads=32, num_key_value_heads=8, vocab_size=128256,
                                      max_position_embeddings=8192, attn_implementation="paged|sdpa")
    with torch.device("cuda"):
        torch.set_default_dtype(torch.bfloat16)
        model = transformers.LlamaForCausalLM(config).eval()
        torch.set_default_dtype(torch.float32)
    prompts = [[(s * 7919 + i * 131) % config.vocab_size for i in range(context)] for s in range(batch)]
    for length in (2, num_new):  # the first warms up
        settings = transformers.GenerationConfig(max_new_tokens=length, min_new_tokens=length, do_sample=False,
                                                 eos_token_id=-1, pad_token_id=0)
        begin = time.monotonic()
        model.generate_batch(inputs=prompts, generation_config=settings)
        torch.cuda.synchronize()
        seconds = time.monotonic() - begin
    print(json.dumps({"what": "transformers continuous batching, bf16",
                      "shape": f"{layers} layers, {batch} prompts of {context}, {num_new} new",
                      "seconds": round(seconds, 3), "tokens_per_second": round(batch * num_new / seconds, 1)}), flush=True)


BENCHES = {"copy": bench_copy, "matmul": bench_matmul, "int8": bench_int8, "int4": bench_int4,
           "attention": bench_attention, "decode": bench_decode, "batching": bench_batching}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default=",".join(BENCHES))
    print(json.dumps({"torch": torch.__version__, "gpu": torch.cuda.get_device_name()}), flush=True)
    for name in parser.parse_args().only.split(","):
        try:
            BENCHES[name]()
        except Exception as error:  # an op this torch does not have; the next peer may still tell something
            first = (str(error).splitlines() or [type(error).__name__])[0]
            print(json.dumps({"what": name, "error": first}), flush=True)


if __name__ == "__main__":
    main()
