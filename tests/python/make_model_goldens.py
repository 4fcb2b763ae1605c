# SPDX-License-Identifier: Apache-2.0
"""Makes tiny random checkpoints of every supported architecture and their logits by Hugging Face transformers.

Usage: python tests/python/make_model_goldens.py tests/data/goldens   (needs PyPI's torch and transformers)
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
    path.write_text(json.dumps(config, indent=1, sort_keys=True) + "\n")


def make(name: str, out: pathlib.Path) -> None:
    config_class, model_class, extra = CASES[name]
    torch.manual_seed(sum(map(ord, name)))
    config = config_class(**COMMON, **extra)
    config._attn_implementation = "eager"
    model = model_class(config).eval()
    with torch.no_grad():
        for parameter_name, parameter in model.named_parameters():
            scale = 0.3 if parameter.dim() > 1 else 0.2
            values = torch.randn(parameter.shape) * scale + (1.0 if "norm" in parameter_name else 0.0)
            parameter.copy_(values.to(torch.bfloat16).float())
    folder = out / name
    shutil.rmtree(folder, ignore_errors=True)
    # A copy: converting the model itself would also round the rotary frequencies.
    copy.deepcopy(model).to(torch.bfloat16).save_pretrained(folder)
    rewrite_config(folder / "config.json", name)
    (folder / "generation_config.json").unlink(missing_ok=True)
    prompt = [int(x) for x in torch.randint(3, COMMON["vocab_size"], (24,))]
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
    for name in CASES:
        make(name, out)


if __name__ == "__main__":
    main()
