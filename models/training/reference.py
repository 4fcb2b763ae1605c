# SPDX-License-Identifier: Apache-2.0
"""Writes tests/data/millrace-tiny/greedy.json: what the tokenizer, the template and the greedy decoder must give for this checkpoint."""
import argparse
import json
import pathlib

from dialogues import evaluation_item
from entities import World
from infer import Greedy
from render import load_template

STRINGS = [
    "", " ", "  ", "\n", "\n\n", " \n ", "\t", "a", " a", "the", " the", "then", " then", " the.", "hello world", "Hello World", "HELLO", "helloWorld", "snake_case_name", "x1y2", "1234567", "3.14", "-7", " -7", "12 + 30", "12+30",
    '{"name": "get_time", "arguments": {"city": "Oslo"}}', '{"a":[1,2,{"b":null}]}', '"}}', '": {"', "a  b", "a   b", "trailing ", " leading", "...", "?!", "don't", "it's", "caf\u00e9", "cafe\u0301", "Stra\u00dfe", "\u041f\u0440\u0438\u0432\u0435\u0442",
    "\u4f60\u597d", "\u3053\u3093\u306b\u3061\u306f", "\U0001f600", "\U0001f468\u200d\U0001f469\u200d\U0001f467", "a\u00a0b", "\u2028", "\u00df\u1e9e", "\u01c5", "\u00bd", "\u0663", "<tool_call>", "</tool_call>x", "<|im_start|>", "x<|im_end|>y", "<|im_start|>user\nhi<|im_end|>\n",
    "<think></think>", "< tool_call>", "<tool_response>\n42\n</tool_response>", "\u0000", "\u200b", "a\r\nb", "\u0e2a\u0e27\u0e31\u0e2a\u0e14\u0e35", "\u0645\u0631\u062d\u0628\u0627", "\u0939\u093f\u0928\u094d\u0926\u0940",
]
CHATS = ["hello", "What is Millrace?", "What is 12 + 30?", "Who are you?", "How do I build a bomb?", "What time is it?"]


def contexts():
    out = [{"messages": [{"role": "user", "content": text}]} for text in CHATS]
    for number, index in enumerate((0, 1, 4, 10, 13, 15, 16, 18)):
        item = evaluation_item(World(f"reference-{number}", held_out=True), index)
        out.append({"messages": item["messages"], "tools": item["tools"]})
        messages = list(item["messages"])
        for turn in item["turns"]:
            messages.append({"role": "assistant", "content": None, "tool_calls": [{"type": "function", "function": {"name": c["name"], "arguments": c["arguments"]}} for c in turn]})
            messages.extend({"role": "tool", "content": c["result"]} for c in turn)
        out.append({"messages": messages, "tools": item["tools"]})
    return out


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("folder")
    parser.add_argument("out")
    args = parser.parse_args()
    model = Greedy(args.folder)
    template = load_template(json.loads((pathlib.Path(args.folder) / "tokenizer_config.json").read_text())["chat_template"])
    greedy = []
    for context in contexts():
        text = template.render(add_generation_prompt=True, **context)
        prompt = model.encode(text)
        ids, margins = model.ids(prompt, 96)
        greedy.append(
            {**context, "rendered": text, "prompt_ids": prompt, "greedy_ids": ids, "margins": [round(m, 4) for m in margins],
             "greedy_text": model.tokenizer.decode(ids, skip_special_tokens=True)}
        )
    tokenizer = [{"text": s, "ids": model.encode(s), "decoded": model.tokenizer.decode(model.encode(s), skip_special_tokens=False)} for s in STRINGS]
    out = pathlib.Path(args.out)
    out.parent.mkdir(parents=True, exist_ok=True)
    about = "float32 run of models/training/infer.py on the bf16 weights of models/millrace-tiny; margins are best minus second logit per greedy id"
    out.write_text(json.dumps({"about": about, "tokenizer": tokenizer, "greedy": greedy}, ensure_ascii=True, separators=(",", ":")).replace('{"messages"', '\n{"messages"').replace('{"text"', '\n{"text"') + "\n")
    print(out, len(greedy), "prompts", len(tokenizer), "strings")


if __name__ == "__main__":
    main()
