#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Tool calls drawn at temperature 1 from the bundled model, through HTTP: how many are calls of an offered tool, with
arguments that the schema allows? Judged by the jsonschema package, not by code of this server. An answer without a call
that has the marker of one in its text counts as an invalid one.

    build/venv/bin/python benches/server/sampled_calls.py [--binary PATH] [--answers 1000]

For each way of writing a call and each tool_choice, so many answers to the questions of models/millrace-tiny, each with
the tools that were offered with it. The model was taught Hermes' way alone; the server takes the way from the template,
so the two others are its own template with their markers named in it. Untaught, it does not begin a call of Mistral's by
itself, and one of Llama's only because the template begins the answer for it.
"""
import argparse
import collections
import json
import pathlib
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request

import jsonschema

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
from response_cache import ROOT, await_ready, free_port  # pylint: disable=wrong-import-position

MODEL = ROOT / "models/millrace-tiny"
FORMATS = {"hermes": "<tool_call>", "llama": '{"name"', "mistral": "[TOOL_CALLS]"}  # what a call begins with
CHOICES = ("auto", "required", "named")
NUM_TOGETHER = 5  # answers to one question


def chat_template(call_format):
    """The model's own template, so that the server finds this way of writing calls in it."""
    own = json.loads((MODEL / "tokenizer_config.json").read_text())["chat_template"]
    if call_format == "mistral":
        return "{# [TOOL_CALLS] #}" + own
    if call_format == "llama":
        begun = own.replace("'<|im_start|>assistant\\n' }}\n{%- endif %}\n", "'<|im_start|>assistant\\n<tool_call>\\n' }}\n{%- endif %}\n")
        assert begun != own
        return '{# <|start_header_id|> "parameters" #}' + begun.replace("<tool_call>", "<tool_' + 'call>")
    return own


def questions():
    return [json.loads(line) for line in (MODEL / "eval_prompts.jsonl").read_text().splitlines()]


def ask(base, number, question, choice, num_answers):
    tools = question["tools"]
    wanted = {"type": "function", "function": {"name": tools[number % len(tools)]["function"]["name"]}}
    body = {"messages": question["messages"], "tools": tools, "tool_choice": wanted if choice == "named" else choice,
            "parallel_tool_calls": choice == "auto", "temperature": 1, "seed": number, "n": num_answers, "max_tokens": 300}
    request = urllib.request.Request(base + "/v1/chat/completions", json.dumps(body).encode(), {"content-type": "application/json"})
    with urllib.request.urlopen(request, timeout=300) as reply:
        return json.load(reply)["choices"], wanted["function"]["name"] if choice == "named" else None


def judge(answer, marker, tools, wanted, count):
    """Adds to `count` what became of one answer; what was wrong with a call goes to standard output."""
    schemas = {tool["function"]["name"]: tool["function"].get("parameters", {}) for tool in tools}
    message = answer["message"]
    calls = message.get("tool_calls") or []
    for call in calls:
        function = call["function"]
        try:
            assert wanted in (None, function["name"]), "another function than the named one"
            jsonschema.validate(json.loads(function["arguments"]), schemas[function["name"]])
            count["valid"] += 1
        except (AssertionError, KeyError, ValueError, jsonschema.ValidationError) as error:
            count["invalid"] += 1
            print("  invalid:", json.dumps(function), type(error).__name__, str(error)[:120])
    if answer["finish_reason"] == "length":
        count["cut off"] += 1
    elif not calls:
        count["invalid" if marker in (message["content"] or "") else "without call"] += 1
    count["answers"] += 1


def measure(base, call_format, choice, num_answers):
    count = collections.Counter()
    asked = questions()
    for number in range((num_answers + NUM_TOGETHER - 1) // NUM_TOGETHER):
        question = asked[number % len(asked)]
        answers, wanted = ask(base, number, question, choice, NUM_TOGETHER)
        for answer in answers:
            judge(answer, FORMATS[call_format], question["tools"], wanted, count)
    return count


def run_format(binary, call_format, num_answers):
    port = free_port()
    with tempfile.TemporaryDirectory() as folder:
        template = pathlib.Path(folder) / "template.jinja"
        template.write_text(chat_template(call_format))
        with open(pathlib.Path(folder) / "log", "wb") as log:
            server = subprocess.Popen([binary, "serve", str(MODEL), "--host", "127.0.0.1", "--port", str(port),
                                       "--chat-template", str(template)], stdout=log, stderr=log)
            try:
                await_ready(port)
                for choice in CHOICES:
                    begin = time.monotonic()
                    count = measure(f"http://127.0.0.1:{port}", call_format, choice, num_answers)
                    print(f"{call_format:8} {choice:9}" + "".join(f"{count[name]:13}" for name in COLUMNS)
                          + f"{time.monotonic() - begin:9.0f}", flush=True)
            finally:
                server.send_signal(signal.SIGTERM)
                server.wait()


COLUMNS = ("answers", "valid", "invalid", "cut off", "without call")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--binary", default=str(ROOT / "build/release/server/millrace"))
    parser.add_argument("--answers", type=int, default=1000)
    arguments = parser.parse_args()
    print(f"{'format':8} {'choice':9}" + "".join(f"{name:>13}" for name in COLUMNS) + f"{'seconds':>9}")
    for call_format in FORMATS:
        run_format(arguments.binary, call_format, arguments.answers)


if __name__ == "__main__":
    main()
