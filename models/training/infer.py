# SPDX-License-Identifier: Apache-2.0
"""Greedy generation from an exported directory, in float32."""
import pathlib

import torch
from safetensors.torch import load_file
from tokenizers import Tokenizer

from model import Config, Qwen3


class Greedy:
    def __init__(self, folder):
        folder = pathlib.Path(folder)
        self.config = Config.load(folder)
        self.model = Qwen3(self.config)
        weights = {name: tensor.float() for name, tensor in load_file(folder / "model.safetensors").items()}
        self.model.load_state_dict(weights)
        self.model.eval()
        self.tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self.end = {self.tokenizer.token_to_id("<|im_end|>"), self.tokenizer.token_to_id("<|endoftext|>")}

    def encode(self, text):
        return self.tokenizer.encode(text, add_special_tokens=False).ids

    @torch.no_grad()
    def ids(self, prompt, limit=160):
        """(new ids with the end token, margin between the two best logits at each of them)"""
        caches = [[] for _ in range(self.config.num_hidden_layers)]
        feed, start, out, margins = list(prompt), 0, [], []
        while len(out) < limit:
            hidden = self.model(torch.tensor([feed]), start, caches)
            start += len(feed)
            best = torch.topk(self.model.logits(hidden[0, -1]), 2)
            feed = [int(best.indices[0])]
            out += feed
            margins.append(float(best.values[0] - best.values[1]))
            if feed[0] in self.end:
                break
        return out, margins

    def text(self, prompt, limit=160):
        out, _ = self.ids(self.encode(prompt), limit)
        if out and out[-1] in self.end:
            out = out[:-1]
        return self.tokenizer.decode(out, skip_special_tokens=False)
