# SPDX-License-Identifier: Apache-2.0
"""The Qwen3 architecture in plain PyTorch: RMSNorm, grouped-query attention with QK norm, RoPE, SwiGLU, tied embeddings.

Parameter names are those of a Hugging Face checkpoint, so that export is a plain state dict.
"""
import dataclasses
import json
import pathlib

import torch
import torch.nn as nn
import torch.nn.functional as F


@dataclasses.dataclass
class Config:
    vocab_size: int = 2048
    hidden_size: int = 256
    intermediate_size: int = 512
    num_hidden_layers: int = 5
    num_attention_heads: int = 4
    num_key_value_heads: int = 2
    head_dim: int = 64
    rope_theta: float = 10000.0
    rms_norm_eps: float = 1e-6
    max_position_embeddings: int = 2048

    @staticmethod
    def load(path):
        raw = json.loads((pathlib.Path(path) / "config.json").read_text())
        return Config(**{f.name: raw[f.name] for f in dataclasses.fields(Config)})


class RMSNorm(nn.Module):
    def __init__(self, width, eps):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.eps = eps

    def forward(self, x):
        scale = torch.rsqrt(x.float().pow(2).mean(-1, keepdim=True) + self.eps)
        return (x.float() * scale * self.weight.float()).to(x.dtype)


def rope_tables(positions, head_dim, theta):
    """cos and sin, [T, head_dim / 2], for the rotate-half form of RoPE."""
    inv = 1.0 / (theta ** (torch.arange(0, head_dim, 2).float() / head_dim))
    angle = positions.float()[:, None] * inv[None]
    return torch.cos(angle), torch.sin(angle)


def rotate(x, cos, sin):
    a, b = x.chunk(2, dim=-1)
    cos, sin = cos.to(x.dtype), sin.to(x.dtype)
    return torch.cat((a * cos - b * sin, b * cos + a * sin), dim=-1)


class Attention(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.c = c
        self.q_proj = nn.Linear(c.hidden_size, c.num_attention_heads * c.head_dim, bias=False)
        self.k_proj = nn.Linear(c.hidden_size, c.num_key_value_heads * c.head_dim, bias=False)
        self.v_proj = nn.Linear(c.hidden_size, c.num_key_value_heads * c.head_dim, bias=False)
        self.o_proj = nn.Linear(c.num_attention_heads * c.head_dim, c.hidden_size, bias=False)
        self.q_norm = RMSNorm(c.head_dim, c.rms_norm_eps)
        self.k_norm = RMSNorm(c.head_dim, c.rms_norm_eps)

    def forward(self, x, cos, sin, mask, cache=None):
        c = self.c
        rows, length, _ = x.shape
        q = self.q_norm(self.q_proj(x).view(rows, length, -1, c.head_dim)).transpose(1, 2)
        k = self.k_norm(self.k_proj(x).view(rows, length, -1, c.head_dim)).transpose(1, 2)
        v = self.v_proj(x).view(rows, length, -1, c.head_dim).transpose(1, 2)
        q, k = rotate(q, cos, sin), rotate(k, cos, sin)
        if cache is not None:
            if cache:
                k, v = torch.cat((cache[0], k), dim=2), torch.cat((cache[1], v), dim=2)
            cache[:] = [k, v]
        groups = c.num_attention_heads // c.num_key_value_heads
        # The query heads of one group stand below each other, so that K and V are never copied per head.
        q = q.reshape(rows, c.num_key_value_heads, groups * length, c.head_dim) * c.head_dim**-0.5
        scores = torch.matmul(q, k.transpose(2, 3)).view(rows, c.num_key_value_heads, groups, length, -1)
        if mask is not None:
            scores = scores + mask.to(scores.dtype)
        weights = torch.softmax(scores, dim=-1).to(v.dtype).flatten(2, 3)
        out = torch.matmul(weights, v).view(rows, c.num_attention_heads, length, c.head_dim)
        return self.o_proj(out.transpose(1, 2).reshape(rows, length, -1))


class MLP(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.gate_proj = nn.Linear(c.hidden_size, c.intermediate_size, bias=False)
        self.up_proj = nn.Linear(c.hidden_size, c.intermediate_size, bias=False)
        self.down_proj = nn.Linear(c.intermediate_size, c.hidden_size, bias=False)

    def forward(self, x):
        return self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))


class Layer(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.self_attn = Attention(c)
        self.mlp = MLP(c)
        self.input_layernorm = RMSNorm(c.hidden_size, c.rms_norm_eps)
        self.post_attention_layernorm = RMSNorm(c.hidden_size, c.rms_norm_eps)

    def forward(self, x, cos, sin, mask, cache=None):
        x = x + self.self_attn(self.input_layernorm(x), cos, sin, mask, cache)
        return x + self.mlp(self.post_attention_layernorm(x))


class Body(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.embed_tokens = nn.Embedding(c.vocab_size, c.hidden_size)
        self.layers = nn.ModuleList(Layer(c) for _ in range(c.num_hidden_layers))
        self.norm = RMSNorm(c.hidden_size, c.rms_norm_eps)


class Qwen3(nn.Module):
    """`forward(ids)` gives the final hidden states [rows, length, hidden]; `logits` maps them to the vocabulary."""

    def __init__(self, c):
        super().__init__()
        self.c = c
        self.model = Body(c)
        generator = torch.Generator().manual_seed(1)
        for name, p in self.named_parameters():
            if p.ndim < 2:
                continue
            std = 0.02 if "embed" in name else p.shape[1] ** -0.5
            if "o_proj" in name or "down_proj" in name:
                std *= 0.2
            with torch.no_grad():
                p.copy_(torch.randn(p.shape, generator=generator) * std)

    def forward(self, ids, start=0, caches=None, padding=None):
        """`padding` holds, for each row, how many of its first tokens are none."""
        positions = torch.arange(start, start + ids.shape[1])
        cos, sin = rope_tables(positions, self.c.head_dim, self.c.rope_theta)
        mask = None
        if ids.shape[1] > 1:
            mask = torch.full((ids.shape[1], start + ids.shape[1]), float("-inf")).triu(start + 1)
        if padding is not None:  # finite, so that a row of nothing but padding stays a number
            hidden = torch.arange(start + ids.shape[1]) < padding[:, None]
            mask = hidden[:, None, None, None] * -1e9 + (0.0 if mask is None else mask)
        x = self.model.embed_tokens(ids)
        for i, layer in enumerate(self.model.layers):
            x = layer(x, cos, sin, mask, None if caches is None else caches[i])
        return self.model.norm(x)

    def logits(self, hidden):
        return F.linear(hidden, self.model.embed_tokens.weight)
