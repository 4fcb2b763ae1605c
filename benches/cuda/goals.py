#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The engine's steps as shares of what the GPU could do, from a record of scripts/gpu-check. Standard library only.

    python3 benches/cuda/goals.py [RECORD.json]    # prints the table; default: the newest of benches/results/gpu_*.json
    python3 benches/cuda/goals.py --docs [--check] # writes it into docs/performance.md, or says that it is not there

The time that a step needs at least is the larger of reading its bytes at the measured bandwidth and multiplying at the
measured rate, all of the same run; a share is that time over the measured one. Rates of int4 weights are bfloat16's,
in which they are multiplied.
"""
import json
import math
import pathlib
import re
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "performance.md"
BEGIN, END = "<!-- what benches/cuda/goals.py writes -->", "<!-- until here -->"
NOTHING = "Not yet measured."
# The share that each kind of step is to reach before we speak well of it.
GOALS = {("decode", "bf16", True): 0.70, ("decode", "int8", True): 0.60, ("decode", "int4", True): 0.50,
         ("decode", "bf16", False): 0.65, ("decode", "int8", False): 0.55, ("prefill", "bf16", False): 0.65}
MOST_IDLE = 0.05
# What kernels are to reach at their best shape: lines of a bench by their "what".
KERNEL_GOALS = {"attention prefill, warpgroups": ("TFLOP/s", 550)}


# What is read of a step's line; one that lacks any of it was not printed by step_bench.
STEP_NUMBERS = ("sequences", "tokens", "us", "tokens_per_second", "late_share", "bytes", "flops", "head_flops",
                "attention_flops")
STEP_NAMES = ("what", "model", "weights", "kv")


def lines_of(record, step):
    """The JSON lines that a step's programs printed."""
    found = []
    for line in record["steps"].get(step, {}).get("lines", []):
        if line.startswith("{"):
            try:
                found.append(json.loads(line))
            except (ValueError, RecursionError):  # cut off when its program was ended
                continue
    return found


def number(line, key):
    """0 where it is missing, no number or none that is finite."""
    value = line.get(key)
    return value if isinstance(value, (int, float)) and math.isfinite(value) else 0


def is_step(line):
    return all(isinstance(line.get(key), str) for key in STEP_NAMES) and number(line, "us") > 0 and all(
        number(line, key) == line.get(key) and line[key] >= 0 for key in STEP_NUMBERS)


def roofs(record):
    """Bytes and operations per second, the best that anything of this run reached."""
    lines = lines_of(record, "bench") + lines_of(record, "peers")

    def best(*keys, of=None):
        return max((number(line, key) for line in lines if of is None or line.get("what") in of for key in keys), default=0)

    memory = best("read GB/s", "copy GB/s", "GB/s", of=("memory roofs", "roofs", "copy"))
    torch = best("TFLOP/s", of=("torch bf16 linear",))
    return {"bytes": memory * 1e9, "bf16": max(best("bf16 TFLOP/s"), torch) * 1e12, "int8": best("int8 TOP/s") * 1e12}


def least_seconds(line, rate):
    """What a perfect device would take."""
    weights = rate["int8" if line["weights"] == "int8" else "bf16"]
    head = rate["bf16" if line["weights"] == "bf16" else "int8"]
    return max(line["bytes"] / rate["bytes"],
               line["flops"] / weights + (line["head_flops"] / head) + line["attention_flops"] / rate["bf16"])


def figures(record):
    """(line, share, goal or None) of each step that was measured; nothing where a roof is missing."""
    rate = roofs(record)
    if not all(rate.values()):
        return []
    found = []
    for line in lines_of(record, "engine"):
        kind = line["what"].removeprefix("engine ") if is_step(line) else None
        if kind in ("decode", "prefill"):
            goal = GOALS.get((kind, line["weights"], kind == "decode" and line["sequences"] == 1))
            found.append((line, least_seconds(line, rate) / (line["us"] * 1e-6), goal))
    return found


def kernels(record):
    """A sentence about each kernel with a goal that was measured."""
    for what, (unit, goal) in KERNEL_GOALS.items():
        best = max((number(line, unit) for line in lines_of(record, "bench") if line.get("what") == what), default=0)
        if best > 0:
            yield f"{what}: {best:.0f} {unit} at best; goal {goal}."


def table(record):
    """Markdown."""
    rate = roofs(record)
    rows = [f"{record['gpu']['name']}, {record['date'][:10]}, commit {record['commit'][:12]}: {rate['bytes'] / 1e9:.0f} GB/s, "
            f"{rate['bf16'] / 1e12:.0f} TFLOP/s in bfloat16, {rate['int8'] / 1e12:.0f} TOP/s in int8.", "",
            "| model | weights, KV | step | ms | tokens/s | of the roof | goal | device idle, at most |",
            "|---|---|---|---|---|---|---|---|"]
    for line, share, goal in figures(record):
        is_decode = line["what"] == "engine decode"
        step = f"decode, {line['sequences']} at {line['tokens']}" if is_decode else f"prompt of {line['tokens']}"
        depth = "" if "layers" not in line else f", {line['layers']} layers"
        idle = f"{100 * line['late_share']:.1f} % ({100 * MOST_IDLE:.0f} %)" if is_decode else ""
        rows.append(f"| {line['model']}{depth} | {line['weights']}, {line['kv']} | {step} | {line['us'] / 1e3:.2f} | "
                    f"{line['tokens_per_second']:.0f} | {100 * share:.0f} % | {f'{100 * goal:.0f} %' if goal else ''} | {idle} |")
    if record["steps"].get("engine", {}).get("while_building"):
        rows += ["", "The host was compiling meanwhile."]
    for sentence in kernels(record):
        rows += ["", sentence]
    return "\n".join(rows)


def newest(root):
    """The newest record with figures, or None."""
    for path in sorted((root / "benches" / "results").glob("gpu_*.json"), reverse=True):
        try:
            record = json.loads(path.read_text(encoding="utf-8"))
            if figures(record):
                return record
        except (ValueError, KeyError, TypeError, AttributeError):  # no record
            continue
    return None


def page_with(text, record):
    """The page, its table made anew."""
    body = NOTHING if record is None else table(record)
    return re.sub(f"{BEGIN}.*?{END}", lambda _: f"{BEGIN}\n{body}\n{END}", text, flags=re.DOTALL)


def main() -> int:
    words = sys.argv[1:]
    if "--docs" in words:
        text = PAGE.read_text(encoding="utf-8")
        wanted = page_with(text, newest(ROOT))
        if "--check" in words:
            if text != wanted:
                print(f"{PAGE.relative_to(ROOT)} is not what the records say: benches/cuda/goals.py --docs")
            return int(text != wanted)
        PAGE.write_text(wanted, encoding="utf-8")
        return 0
    record = json.loads(pathlib.Path(words[0]).read_text(encoding="utf-8")) if words else newest(ROOT)
    print(NOTHING if record is None or not figures(record) else table(record))
    return 0


if __name__ == "__main__":
    sys.exit(main())
