# SPDX-License-Identifier: Apache-2.0
"""Trains the model on shards of generate.py: Muon for the matrices, AdamW for the rest, loss on the assistant's tokens only.

Stops and resumes at any time: the checkpoint holds weights, their moving average, optimizer state and the place in the data.
"""
import argparse
import dataclasses
import pathlib
import time

import numpy as np
import torch
import torch._inductor.config
import torch.nn.functional as F

from model import Config, Qwen3

torch._inductor.config.cpp.dynamic_threads = True


def has_bfloat16():
    """Whether this CPU multiplies bf16 by itself; where it does not, float32 is much faster."""
    with open("/proc/cpuinfo") as f:
        flags = next((line.split() for line in f if line.startswith(("flags", "Features"))), [])
    return not {"avx512_bf16", "amx_bf16", "bf16"}.isdisjoint(flags)


BFLOAT16 = has_bfloat16()


def orthogonalise(g, steps=5):
    """Newton-Schulz iteration towards the nearest orthogonal matrix, for a stack of matrices [n, rows, cols] (Jordan et al., Muon)."""
    a, b, c = 3.4445, -4.7750, 2.0315
    x = g.bfloat16() if BFLOAT16 else g
    x = x / (x.norm(dim=(1, 2), keepdim=True) + 1e-7)
    flip = x.shape[1] > x.shape[2]
    if flip:
        x = x.transpose(1, 2)
    for _ in range(steps):
        s = x @ x.transpose(1, 2)
        x = a * x + (b * s + c * (s @ s)) @ x
    return (x.transpose(1, 2) if flip else x).float()


class Muon:
    def __init__(self, parameters, momentum=0.95, decay=0.01):
        self.groups = {}
        for p in parameters:
            self.groups.setdefault(tuple(p.shape), []).append(p)
        self.momentum, self.decay = momentum, decay
        self.state = {shape: torch.zeros(len(ps), *shape) for shape, ps in self.groups.items()}

    @torch.no_grad()
    def step(self, rate):
        for shape, ps in self.groups.items():
            g = torch.stack([p.grad for p in ps])
            m = self.state[shape].mul_(self.momentum).add_(g)
            update = orthogonalise(g + self.momentum * m) * max(1.0, shape[0] / shape[1]) ** 0.5
            for p, u in zip(ps, update):
                p.mul_(1 - rate * self.decay).sub_(u, alpha=rate)


# Few widths, each with one number of rows: every shape costs the compiler and the matrix library a preparation.
WIDTHS = (64, 128, 192, 256, 320, 384, 448, 512, 640, 768, 1024)


class Data:
    """Batches of about `tokens` tokens, dialogues of similar length together, shard by shard."""

    def __init__(self, folder, tokens, seed):
        self.folder, self.tokens, self.seed = pathlib.Path(folder), tokens, seed

    def shard(self, number):
        path = self.folder / f"shard_{number:04d}.npz"
        while not path.exists():
            print("waiting for", path, flush=True)
            time.sleep(10)
        d = np.load(path)
        return d["ids"].astype(np.int64), d["marks"], d["offsets"]

    def batches(self, number, longest):
        ids, marks, offsets = self.shard(number)
        lengths = np.diff(offsets)
        rng = np.random.default_rng(self.seed + number)
        plan, low = [], 0
        for width in WIDTHS:
            fitting = rng.permutation(np.nonzero((lengths > low) & (lengths <= min(width, longest)))[0])
            rows = self.tokens // width
            plan += [(width, fitting[at : at + rows]) for at in range(0, len(fitting) - rows + 1, rows)]
            low = width
        for at in rng.permutation(len(plan)):
            width, chosen = plan[at]
            x = np.zeros((len(chosen), width), np.int64)
            m = np.zeros((len(chosen), width), bool)
            for r, i in enumerate(chosen):
                n = lengths[i]
                x[r, :n] = ids[offsets[i] : offsets[i + 1]]
                m[r, :n] = marks[offsets[i] : offsets[i + 1]]
            yield torch.from_numpy(x), torch.from_numpy(m)


def choose_threads(choice):
    """Both cores when nobody else computes, else one. `choice` 0 decides by the load."""
    if choice:
        return choice
    with open("/proc/loadavg") as f:
        running = int(f.read().split()[3].split("/")[0])
    return 2 if running <= torch.get_num_threads() else 1


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("data")
    parser.add_argument("out")
    parser.add_argument("--steps", type=int, default=5000)
    parser.add_argument("--accumulate", type=int, default=2)
    parser.add_argument("--tokens", type=int, default=4096)
    parser.add_argument("--muon-rate", type=float, default=0.02)
    parser.add_argument("--adam-rate", type=float, default=0.003)
    parser.add_argument("--decay-share", type=float, default=0.35)
    parser.add_argument("--minutes", type=float, default=0, help="end after so many minutes, with the rate falling to zero by then")
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--compile", type=int, default=1)
    parser.add_argument("--save-minutes", type=float, default=3)
    parser.add_argument("--layers", type=int, default=4)
    args = parser.parse_args()
    torch.manual_seed(0)
    torch.set_num_threads(choose_threads(args.threads))
    config = Config(num_hidden_layers=args.layers)
    model = Qwen3(config)
    matrices = [p for n, p in model.named_parameters() if p.ndim == 2 and "embed" not in n]
    others = [p for n, p in model.named_parameters() if p.ndim < 2 or "embed" in n]
    muon = Muon(matrices)
    adam = torch.optim.AdamW(others, lr=args.adam_rate, betas=(0.9, 0.98), weight_decay=0.0)
    average = {n: p.detach().clone() for n, p in model.named_parameters()}
    out = pathlib.Path(args.out)
    out.mkdir(parents=True, exist_ok=True)
    state_path = out / "state.pt"
    step, shard, skip, seen = 0, 0, 0, 0
    if state_path.exists():
        state = torch.load(state_path)
        model.load_state_dict(state["model"])
        average, muon.state = state["average"], state["muon"]
        adam.load_state_dict(state["adam"])
        step, shard, skip, seen = state["step"], state["shard"], state["skip"], state["seen"]
        print("resumed at step", step, flush=True)

    def save():
        state = {
            "model": model.state_dict(), "average": average, "muon": muon.state, "adam": adam.state_dict(), "step": step, "shard": shard,
            "skip": skip, "seen": seen, "config": dataclasses.asdict(config),
        }
        torch.save(state, out / "partial.pt")
        (out / "partial.pt").rename(state_path)

    body = torch.compile(model, dynamic=True) if args.compile else model

    def loss_of(x, marks):
        where = torch.nonzero(marks[:, 1:].flatten()).flatten()
        rows, length = x.shape
        where = where + where // (length - 1)  # from positions without the first column to the token before the target
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=BFLOAT16):
            hidden = body(x).flatten(0, 1)[where]
            logits = model.logits(hidden)
        return F.cross_entropy(logits.float(), x.flatten()[where + 1], reduction="sum"), len(where)

    data = Data(args.data, args.tokens, 0)
    began, last_save, shown_loss, shown_count, shown_tokens, shown_at = time.time(), time.time(), 0.0, 0, 0, time.time()
    left = 1.0
    while step < args.steps and left > 0.0:
        pending = []
        for number, batch in enumerate(data.batches(shard, 320 if shard == 0 else 2048)):
            if number < skip:
                continue
            pending.append(batch)
            skip = number + 1
            if len(pending) < args.accumulate:
                continue
            total = sum(int(m[:, 1:].sum()) for _, m in pending)
            for x, m in pending:
                loss, count = loss_of(x, m)
                (loss / total).backward()
                shown_loss += loss.item()
                shown_count += count
                shown_tokens += x.numel()
                seen += x.numel()
            pending = []
            norm = torch.nn.utils.clip_grad_norm_(others, 1.0)
            left = (args.steps - step) / args.steps
            if args.minutes:
                left = max(0.0, min(left, 1 - (time.time() - began) / (60 * args.minutes)))
            rate = min(1.0, (step + 1) / 100, left / args.decay_share)
            for group in adam.param_groups:
                group["lr"] = args.adam_rate * rate
            adam.step()
            muon.step(args.muon_rate * rate)
            model.zero_grad(set_to_none=True)
            step += 1
            keep = min(0.995, step / (step + 20))
            with torch.no_grad():
                for n, p in model.named_parameters():
                    average[n].lerp_(p, 1 - keep)
            if step % 25 == 0 or step in (2, 5, 10, 15):
                now = time.time()
                print(
                    f"step {step} loss {shown_loss / shown_count:.4f} norm {norm:.2f} rate {rate:.3f} tokens {seen / 1e6:.2f}M "
                    f"{shown_tokens / (now - shown_at):.0f} tok/s threads {torch.get_num_threads()} shard {shard} minutes {(now - began) / 60:.1f}",
                    flush=True,
                )
                shown_loss, shown_count, shown_tokens, shown_at = 0.0, 0, 0, now
                torch.set_num_threads(choose_threads(args.threads))
            if time.time() - last_save > 60 * args.save_minutes:
                save()
                last_save = time.time()
            if step >= args.steps or left == 0.0:
                break
        else:
            shard, skip = shard + 1, 0
    save()
    print("done", step, f"{seen / 1e6:.1f}M tokens", flush=True)


if __name__ == "__main__":
    main()
