# SPDX-License-Identifier: Apache-2.0
"""Measures an exported model on requests of the evaluation world: names and numbers that no training dialogue holds.

For each request, each assistant turn is generated greedily after the right turns before it. Counted are
- right calls: the tool's name and all arguments equal the expected ones, in valid JSON, of every call of the turn;
- right answers: the answer contains what the tool returned (or the error it reported).
Plain requests (no tool needed, with and without tools offered) and JSON shapes are counted apart.
"""
import argparse
import collections
import json
import pathlib
import re
import sys

from dialogues import evaluation_item, json_shape, plain_pair, call_message, offer, make_tool
from entities import World
from infer import Greedy
from render import render

CALL = re.compile(r"<tool_call>\n(.*?)\n</tool_call>", re.S)


def items(count, salt="evaluation"):
    return [evaluation_item(World(f"{salt}-{i}", held_out=True), i) for i in range(count)]


def parse_calls(text):
    """The calls in an answer, or None where one is not a valid call."""
    calls = []
    for body in CALL.findall(text):
        try:
            call = json.loads(body)
            calls.append({"name": call["name"], "arguments": call["arguments"]})
        except (ValueError, KeyError, TypeError):
            return None
    return calls


def same(a, b):
    return json.dumps(a, sort_keys=True) == json.dumps(b, sort_keys=True)


def steps(item):
    """[(prompt, wanted calls)] for each turn with calls, then (prompt, None) for the answer."""
    messages, out = list(item["messages"]), []
    for turn in item["turns"]:
        out.append((render(item["tools"], messages, True), [{"name": c["name"], "arguments": c["arguments"]} for c in turn]))
        messages.append(call_message([(c["name"], c["arguments"], c["result"]) for c in turn]))
        messages.extend({"role": "tool", "content": c["result"]} for c in turn)
    return out + [(render(item["tools"], messages, True), None)]


def is_right(item, wanted, text):
    if wanted is None:
        return all(e in text for e in item["expect"]) and "<tool_call>" not in text
    got = parse_calls(text)
    return got is not None and same(got, wanted)


def share(right, total):
    return round(right / total, 4) if total else None


def evaluate_tools(model, count, show):
    calls, answers, whole = collections.Counter(), collections.Counter(), 0
    asked = [(item, steps(item)) for item in items(count)]
    texts = iter(model.texts([prompt for _, made in asked for prompt, _ in made]))
    for item, made in asked:
        all_right = True
        for _, wanted in made:
            text = next(texts)
            right = is_right(item, wanted, text)
            all_right &= right
            (answers if wanted is None else calls)[item["kind"], right] += 1
            if not right and show:
                what, expected = ("ANSWER", item["answer"]) if wanted is None else ("CALL  ", json.dumps(wanted))
                print(what, item["kind"], "|", item["messages"][-1]["content"], "| wanted", expected, "| got", text.replace("\n", " "))
        whole += all_right
    kinds = sorted({kind for kind, _ in answers})
    return {
        "prompts": count,
        "calls": sum(calls.values()),
        "right_calls": share(sum(n for (_, right), n in calls.items() if right), sum(calls.values())),
        "right_answers": share(sum(n for (_, right), n in answers.items() if right), sum(answers.values())),
        "whole_dialogue_right": share(whole, count),
        "by_kind": {
            kind: {"prompts": answers[kind, True] + answers[kind, False], "right_calls": share(calls[kind, True], calls[kind, True] + calls[kind, False]),
                   "right_answers": share(answers[kind, True], answers[kind, True] + answers[kind, False])}
            for kind in kinds
        },
    }


def plain_item(i):
    """(kind, prompt, request, wanted answer)"""
    w = World(f"plain-{i}", held_out=True)
    kind = ("plain", "plain_with_tools", "json")[i % 3]
    offered, system = [], None
    if kind == "json":
        system, request, wanted = json_shape(w)
    else:
        offered = offer(w, [make_tool(w)], w.pick([0, 1, 2])) if kind == "plain_with_tools" else []
        request, wanted = plain_pair(w, offered)
    messages = [{"role": "system", "content": system}] if system else []
    messages.append({"role": "user", "content": request})
    return kind, render([t.schema for t in offered], messages, True), request, wanted


def evaluate_plain(model, count, show):
    right = {"plain": [0, 0], "plain_with_tools": [0, 0], "json": [0, 0]}
    asked = [plain_item(i) for i in range(count)]
    for (kind, _, request, wanted), text in zip(asked, model.texts([prompt for _, prompt, _, _ in asked])):
        try:
            good = same(json.loads(text), json.loads(wanted)) if kind == "json" else text == wanted
        except ValueError:
            good = False
        right[kind][0] += good
        right[kind][1] += 1
        if not good and show:
            print("PLAIN ", kind, "|", request.replace("\n", " "), "| wanted", wanted, "| got", text.replace("\n", " "))
    return {kind: {"prompts": n, "right": share(good, n)} for kind, (good, n) in right.items()}


def write_prompts(path, count):
    with open(path, "w") as f:
        for item in items(count, "prompts"):
            f.write(json.dumps(item, ensure_ascii=False) + "\n")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("folder")
    parser.add_argument("--count", type=int, default=400)
    parser.add_argument("--plain", type=int, default=300)
    parser.add_argument("--show", action="store_true", help="print what went wrong")
    parser.add_argument("--write", action="store_true", help="write eval.json into the folder")
    parser.add_argument("--write-prompts", type=int, default=0, help="write this many prompts to eval_prompts.jsonl and stop")
    args = parser.parse_args()
    folder = pathlib.Path(args.folder)
    if args.write_prompts:
        return write_prompts(folder / "eval_prompts.jsonl", args.write_prompts)
    model = Greedy(folder)
    result = {"decoding": "greedy, float32 from the bf16 weights", "tools": evaluate_tools(model, args.count, args.show), "chat": evaluate_plain(model, args.plain, args.show)}
    text = json.dumps(result, indent=2)
    print(text)
    if args.write:
        (folder / "eval.json").write_text(text + "\n")


if __name__ == "__main__":
    sys.exit(main())
