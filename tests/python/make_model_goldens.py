# SPDX-License-Identifier: Apache-2.0
"""Makes tiny random checkpoints of every supported architecture and their logits by Hugging Face transformers.

Usage: python tests/python/make_model_goldens.py tests/data/goldens [NAME...]   (needs PyPI's torch and transformers)
The results are committed, so the tests need no Python. Weights are stored in BF16; logits come from a float32 run of
exactly those weights.
"""
import copy
import json
import pathlib
import shutil
import sys

import torch
import transformers as tf

COMMON = dict(vocab_size=96, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
              num_key_value_heads=2, max_position_embeddings=128, bos_token_id=1, eos_token_id=2, pad_token_id=0)
LLAMA3 = {"rope_type": "llama3", "factor": 4.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
          "original_max_position_embeddings": 32}
YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32}
LINEAR = {"rope_type": "linear", "factor": 2.0}
MIN_ROUTING_MARGIN = 0.08  # three standard deviations of what bfloat16 activations do to a router's logit


def rope(parameters, theta=10000.0):
    """The spelling of this release of transformers; config.json is rewritten to the widespread one afterwards."""
    return {"rope_parameters": {**parameters, "rope_theta": theta}} if parameters else {
        "rope_parameters": {"rope_type": "default", "rope_theta": theta}}


CASES = {
    "llama2": (tf.LlamaConfig, tf.LlamaForCausalLM, dict(tie_word_embeddings=False, **rope(None))),
    "llama3": (tf.LlamaConfig, tf.LlamaForCausalLM, dict(tie_word_embeddings=True, **rope(LLAMA3, 500000.0))),
    "llama_yarn": (tf.LlamaConfig, tf.LlamaForCausalLM, dict(tie_word_embeddings=False, **rope(YARN))),
    "llama_linear": (tf.LlamaConfig, tf.LlamaForCausalLM,
                     dict(tie_word_embeddings=True, attention_bias=True, mlp_bias=True, **rope(LINEAR))),
    "mistral": (tf.MistralConfig, tf.MistralForCausalLM,
                dict(tie_word_embeddings=False, sliding_window=12, head_dim=16, **rope(None))),
    "qwen2": (tf.Qwen2Config, tf.Qwen2ForCausalLM, dict(tie_word_embeddings=True, **rope(None, 1000000.0))),
    "qwen3": (tf.Qwen3Config, tf.Qwen3ForCausalLM,
              dict(tie_word_embeddings=False, head_dim=16, **rope(None, 1000000.0))),
    "qwen3_moe": (tf.Qwen3MoeConfig, tf.Qwen3MoeForCausalLM,
                  dict(tie_word_embeddings=False, head_dim=16, num_experts=8, num_experts_per_tok=3,
                       moe_intermediate_size=32, norm_topk_prob=True, **rope(None, 1000000.0))),
    "qwen3_moe_mixed": (tf.Qwen3MoeConfig, tf.Qwen3MoeForCausalLM,
                        dict(tie_word_embeddings=True, head_dim=16, num_hidden_layers=4, num_experts=5,
                             num_experts_per_tok=2, moe_intermediate_size=20, norm_topk_prob=False,
                             decoder_sparse_step=2, mlp_only_layers=[3], **rope(None, 1000000.0))),
    "mixtral": (tf.MixtralConfig, tf.MixtralForCausalLM,
                dict(tie_word_embeddings=False, num_local_experts=4, num_experts_per_tok=2, **rope(None, 1000000.0))),
}


def rewrite_config(path: pathlib.Path, name: str) -> None:
    """Half of the cases keep the new spelling of the rotary parameters, half get the old one: both exist in the wild."""
    config = json.loads(path.read_text())
    parameters = config.get("rope_parameters")
    if parameters and name in ("llama3", "llama_yarn", "qwen2"):
        config.pop("rope_parameters")
        config["rope_theta"] = parameters.pop("rope_theta")
        if parameters.get("rope_type") != "default":
            config["rope_scaling"] = parameters
    if name == "qwen3_moe":  # as its makers write it
        config["num_experts"] = config.pop("num_local_experts", config.get("num_experts"))
    path.write_text(json.dumps(config, indent=1, sort_keys=True) + "\n")


def draw(name: str, seed: int):
    """(model, prompt) of random numbers."""
    config_class, model_class, extra = CASES[name]
    torch.manual_seed(seed)
    config = config_class(**{**COMMON, **extra})
    config._attn_implementation = "eager"
    model = model_class(config).eval()
    with torch.no_grad():
        for parameter_name, parameter in model.named_parameters():
            scale = 0.3 if parameter.dim() > 1 else 0.2
            values = torch.randn(parameter.shape) * scale + (1.0 if "norm" in parameter_name else 0.0)
            parameter.copy_(values.to(torch.bfloat16).float())
    return model, [int(x) for x in torch.randint(3, COMMON["vocab_size"], (24,))]


def routing_margin(model, ids: list) -> float:
    """How far the last expert chosen is before the first left out, at the nearest."""
    with torch.no_grad():
        routers = model(torch.tensor([ids]), output_router_logits=True).router_logits
    margins = []
    for logits in routers:
        chosen = logits.topk(model.config.num_experts_per_tok + 1, dim=-1).values
        margins.append(float((chosen[:, -2] - chosen[:, -1]).min()))
    return min(margins)


def draw_decided(name: str):
    """As draw; a model whose experts are chosen clearly: rounding must not make another choice."""
    seed = sum(map(ord, name))
    model, prompt = draw(name, seed)
    while "num_experts_per_tok" in CASES[name][2]:
        if routing_margin(model, prompt) >= MIN_ROUTING_MARGIN:
            with torch.no_grad():
                ids = list(prompt)
                for _ in range(16):
                    ids.append(int(model(torch.tensor([ids])).logits[0, -1].argmax()))
            if routing_margin(model, ids) >= MIN_ROUTING_MARGIN:
                break
        seed += 1
        model, prompt = draw(name, seed)
    return model, prompt


def make(name: str, out: pathlib.Path) -> None:
    model, prompt = draw_decided(name)
    folder = out / name
    shutil.rmtree(folder, ignore_errors=True)
    # A copy: converting the model itself would also round the rotary frequencies.
    copy.deepcopy(model).to(torch.bfloat16).save_pretrained(folder)
    rewrite_config(folder / "config.json", name)
    (folder / "generation_config.json").unlink(missing_ok=True)
    with torch.no_grad():
        logits = model(torch.tensor([prompt])).logits[0]
        hidden = model.model(torch.tensor([prompt])).last_hidden_state[0, -1]
        ids = list(prompt)
        margins = []
        for _ in range(16):
            last = model(torch.tensor([ids])).logits[0, -1]
            top = last.topk(2)
            margins.append(round(float(top.values[0] - top.values[1]), 5))
            ids.append(int(top.indices[0]))
    golden = {
        "transformers": tf.__version__,
        "prompt": prompt,
        "logits": [[round(float(v), 5) for v in row] for row in logits],
        "last_hidden": [round(float(v), 6) for v in hidden],
        "greedy": ids[len(prompt):],
        "greedy_margins": margins,
    }
    (folder / "golden.json").write_text(json.dumps(golden) + "\n")
    print(name, sum(p.numel() for p in model.parameters()), "parameters, smallest margin", min(margins))


def main() -> None:
    out = pathlib.Path(sys.argv[1])
    out.mkdir(parents=True, exist_ok=True)
    for name in sys.argv[2:] or CASES:
        make(name, out)


if __name__ == "__main__":
    main()
