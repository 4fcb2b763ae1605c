#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Runs eval_prompts.jsonl against an OpenAI-compatible server (standard library only) and prints the shares of right calls and answers.

    evaluate_server.py --url http://127.0.0.1:8000/v1 [--model NAME] [--prompts FILE] [--limit N] [--at-least 0.95]

Each assistant turn is asked for with the right turns before it, at temperature 0. Exits with 1 if a share is below --at-least.
"""
import argparse
import concurrent.futures
import json
import pathlib
import sys
import urllib.error
import urllib.request

PROMPTS = pathlib.Path(__file__).resolve().parent.parent / "millrace-tiny" / "eval_prompts.jsonl"


def post(url, body, key):
    headers = {"Content-Type": "application/json"}
    if key:
        headers["Authorization"] = "Bearer " + key
    request = urllib.request.Request(url, json.dumps(body).encode(), headers)
    try:
        with urllib.request.urlopen(request, timeout=120) as response:
            return json.load(response)
    except urllib.error.HTTPError as error:
        raise RuntimeError(f"HTTP {error.code}: {error.read().decode(errors='replace')[:500]}") from None


def get(url, key):
    request = urllib.request.Request(url, headers={"Authorization": "Bearer " + key} if key else {})
    with urllib.request.urlopen(request, timeout=30) as response:
        return json.load(response)


def same(a, b):
    return json.dumps(a, sort_keys=True) == json.dumps(b, sort_keys=True)


def calls_of(message):
    """The calls of an answer, or None where the arguments are not JSON."""
    calls = []
    for call in message.get("tool_calls") or []:
        try:
            calls.append({"name": call["function"]["name"], "arguments": json.loads(call["function"]["arguments"])})
        except (ValueError, KeyError, TypeError):
            return None
    return calls


def play(args, item):
    """(right calls, calls, is the answer right, notes on what was wrong)"""
    messages, right, notes = list(item["messages"]), 0, []

    def ask():
        body = {"model": args.model, "messages": messages, "tools": item["tools"], "temperature": 0, "max_tokens": 200}
        return post(args.url + "/chat/completions", body, args.key)["choices"][0]["message"]

    for step, turn in enumerate(item["turns"]):
        wanted = [{"name": c["name"], "arguments": c["arguments"]} for c in turn]
        message = ask()
        got = calls_of(message)
        if got is not None and same(got, wanted):
            right += 1
        else:
            notes.append(f"wanted {json.dumps(wanted)}, got {json.dumps(got)} {json.dumps(message.get('content'))}")
        ids = [f"call_{step}_{i}" for i in range(len(turn))]
        calls = [{"id": i, "type": "function", "function": {"name": c["name"], "arguments": json.dumps(c["arguments"])}} for i, c in zip(ids, wanted)]
        messages.append({"role": "assistant", "content": None, "tool_calls": calls})
        messages.extend({"role": "tool", "tool_call_id": i, "content": c["result"]} for i, c in zip(ids, turn))
    message = ask()
    text = message.get("content") or ""
    good = calls_of(message) == [] and all(e in text for e in item["expect"])
    if not good:
        notes.append(f"wanted {item['answer']!r}, got {text!r}")
    return right, len(item["turns"]), good, notes


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--url", default="http://127.0.0.1:8000/v1")
    parser.add_argument("--model", default="")
    parser.add_argument("--key", default="")
    parser.add_argument("--prompts", default=str(PROMPTS))
    parser.add_argument("--limit", type=int, default=0)
    parser.add_argument("--parallel", type=int, default=4)
    parser.add_argument("--at-least", type=float, default=0.0)
    args = parser.parse_args()
    args.url = args.url.rstrip("/")
    args.model = args.model or get(args.url + "/models", args.key)["data"][0]["id"]
    with open(args.prompts) as f:
        items = [json.loads(line) for line in f]
    items = items[: args.limit or len(items)]
    right = calls = answers = 0
    with concurrent.futures.ThreadPoolExecutor(args.parallel) as pool:
        for number, (item, outcome) in enumerate(zip(items, pool.map(lambda item: play(args, item), items)), 1):
            right, calls, answers = right + outcome[0], calls + outcome[1], answers + outcome[2]
            for note in outcome[3]:
                print(f"  {item['id']} {item['kind']}: {note}", file=sys.stderr)
            print(f"\r{number}/{len(items)}", end="", file=sys.stderr)
    print(file=sys.stderr)
    result = {"prompts": len(items), "calls": calls, "right_calls": round(right / calls, 4), "right_answers": round(answers / len(items), 4)}
    print(json.dumps(result))
    return 0 if min(result["right_calls"], result["right_answers"]) >= args.at_least else 1


if __name__ == "__main__":
    sys.exit(main())
