# SPDX-License-Identifier: Apache-2.0
"""Trains the byte-level BPE tokenizer on generated dialogues and writes tokenizer.json.

The pre-tokenizer is made for copying: words and digits are pieces of their own, never glued to the space or quote before them, so that
a name has the same tokens in a request, in a JSON string and in an answer. Only the most frequent function words keep their space, to
make prose short. Runs of JSON punctuation are one piece.
"""
import argparse

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

from dialogues import dialogue
from entities import World
from render import render

FUNCTION_WORDS = "a an and are as at be by can do does for from have how i in into is it me my no not of on or please that the then there this to was what where which will with you your".split()
PATTERN = "|".join(
    [
        " (?:" + "|".join(FUNCTION_WORDS) + r")(?![\p{L}\p{M}])",
        r"\p{Ll}+",
        r"\p{Lu}+\p{Ll}*",
        r"\p{N}",
        r"[\p{L}\p{M}]+",
        r" ?[^\s\p{L}\p{M}\p{N}]+(?: [^\s\p{L}\p{M}\p{N}]+)*",
        r"\s+",
    ]
)
SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
MARKS = ["<tool_call>", "</tool_call>", "<tool_response>", "</tool_response>", "<think>", "</think>"]


def corpus(count):
    for seed in range(count):
        tools, messages = dialogue(World(f"tokenizer-{seed}"))
        text = render(tools, messages)
        for mark in SPECIAL + MARKS:
            text = text.replace(mark, " ")
        yield text


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("out")
    parser.add_argument("--vocab", type=int, default=2048)
    parser.add_argument("--dialogues", type=int, default=12000)
    args = parser.parse_args()
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(Regex(PATTERN), behavior="isolated", invert=False), pre_tokenizers.ByteLevel(add_prefix_space=False, trim_offsets=False, use_regex=False)]
    )
    tokenizer.decoder = decoders.ByteLevel(add_prefix_space=False, trim_offsets=False, use_regex=False)
    trainer = trainers.BpeTrainer(vocab_size=args.vocab - len(SPECIAL + MARKS), initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()), show_progress=False)
    tokenizer.train_from_iterator(corpus(args.dialogues), trainer)
    tokenizer.add_special_tokens([AddedToken(t, special=True, normalized=False) for t in SPECIAL])
    tokenizer.add_tokens([AddedToken(t, special=False, normalized=False) for t in MARKS])
    tokenizer.save(args.out)
    print(args.out, tokenizer.get_vocab_size())


if __name__ == "__main__":
    main()
