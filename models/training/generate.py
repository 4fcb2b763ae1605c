# SPDX-License-Identifier: Apache-2.0
"""Writes shards of tokenised training dialogues: shard_0000.npz and so on, with ids, loss marks and offsets."""
import argparse
import pathlib

import numpy as np
from tokenizers import Tokenizer

from dialogues import dialogue
from entities import World
from render import render, split_assistant

MAX_TOKENS = 1024


def encode(tokenizer, tools, messages):
    """(ids, marks): a mark is 1 where the token is the assistant's."""
    ids, marks = [], []
    for piece, said in split_assistant(render(tools, messages)):
        tokens = tokenizer.encode(piece, add_special_tokens=False).ids
        ids += tokens
        marks += [int(said)] * len(tokens)
    return ids, marks


def shard(tokenizer, seed, count):
    ids, marks, offsets = [], [], [0]
    for i in range(count):
        w = World(f"train-{seed}-{i}")
        tools, messages = dialogue(w, longest=8 if w.chance(0.04) else 4)
        some_ids, some_marks = encode(tokenizer, tools, messages)
        if len(some_ids) > MAX_TOKENS:
            continue
        ids += some_ids
        marks += some_marks
        offsets.append(len(ids))
    return np.array(ids, np.uint16), np.array(marks, np.uint8), np.array(offsets, np.int64)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("tokenizer")
    parser.add_argument("out")
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--shards", type=int, default=16)
    parser.add_argument("--dialogues", type=int, default=20000)
    args = parser.parse_args()
    tokenizer = Tokenizer.from_file(args.tokenizer)
    out = pathlib.Path(args.out)
    out.mkdir(parents=True, exist_ok=True)
    for number in range(args.first, args.first + args.shards):
        ids, marks, offsets = shard(tokenizer, number, args.dialogues)
        path = out / f"shard_{number:04d}.npz"
        partial = out / f"partial_{number:04d}.npz"
        np.savez(partial, ids=ids, marks=marks, offsets=offsets)
        partial.rename(path)
        print(path, len(offsets) - 1, "dialogues", len(ids), "tokens", int(marks.sum()), "of the assistant", flush=True)


if __name__ == "__main__":
    main()
