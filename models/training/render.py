# SPDX-License-Identifier: Apache-2.0
"""Dialogues to text by the chat template itself, and to tokens with a mark on what the assistant wrote."""
import json
import pathlib

import jinja2
import jinja2.sandbox

HERE = pathlib.Path(__file__).parent
END = "<|im_end|>"
OPEN = "<|im_start|>assistant\n"


def load_template(text=None):
    env = jinja2.sandbox.ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
    env.filters["tojson"] = lambda value: json.dumps(value, ensure_ascii=False)
    return env.from_string(text or (HERE / "chat_template.jinja").read_text())


TEMPLATE = load_template()


def render(tools, messages, add_generation_prompt=False):
    return TEMPLATE.render(tools=tools or None, messages=messages, add_generation_prompt=add_generation_prompt)


def split_assistant(text):
    """Pieces of a rendered dialogue: (piece, is it the assistant's). The end mark of a turn is the assistant's too."""
    pieces = []
    rest = text
    while OPEN in rest:
        before, rest = rest.split(OPEN, 1)
        said, rest = rest.split(END, 1)
        pieces += [(before + OPEN, False), (said + END, True)]
    return pieces + [(rest, False)] if rest.strip() else pieces
