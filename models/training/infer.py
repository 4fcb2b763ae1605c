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

    @torch.no_grad()
    def batch(self, prompts, limit):
        """New ids for each of several prompts at once, without the end token. Shorter prompts are filled up on the left."""
        longest = max(map(len, prompts))
        caches = [[] for _ in range(self.config.num_hidden_layers)]
        padding = torch.tensor([longest - len(p) for p in prompts])
        feed = torch.tensor([[0] * (longest - len(p)) + p for p in prompts])
        out, start, open_rows = [[] for _ in prompts], 0, set(range(len(prompts)))
        while open_rows and start < longest + limit:
            hidden = self.model(feed, start, caches, padding)
            start += feed.shape[1]
            feed = self.model.logits(hidden[:, -1]).argmax(-1, keepdim=True)
            for row in list(open_rows):
                token = int(feed[row])
                if token in self.end:
                    open_rows.remove(row)
                else:
                    out[row].append(token)
        return out

    def texts(self, prompts, limit=160, rows=32):
        """The answer to each prompt, prompts of similar length together."""
        encoded = [self.encode(p) for p in prompts]
        order = sorted(range(len(prompts)), key=lambda i: len(encoded[i]))
        answers = [""] * len(prompts)
        for at in range(0, len(order), rows):
            chosen = order[at : at + rows]
            for i, ids in zip(chosen, self.batch([encoded[i] for i in chosen], limit)):
                answers[i] = self.tokenizer.decode(ids, skip_special_tokens=False)
        return answers
