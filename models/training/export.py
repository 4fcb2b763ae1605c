# SPDX-License-Identifier: Apache-2.0
"""Writes the Hugging Face directory of a training state: bf16 weights, configurations, tokenizer configuration with the chat template."""
import argparse
import json
import pathlib

import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer

from make_tokenizer import MARKS, SPECIAL

HERE = pathlib.Path(__file__).parent


def model_config(c, ids):
    return {
        "architectures": ["Qwen3ForCausalLM"], "attention_bias": False, "attention_dropout": 0.0, "bos_token_id": None, "eos_token_id": ids["<|im_end|>"],
        "head_dim": c["head_dim"], "hidden_act": "silu", "hidden_size": c["hidden_size"], "initializer_range": 0.02, "intermediate_size": c["intermediate_size"],
        "max_position_embeddings": c["max_position_embeddings"], "max_window_layers": c["num_hidden_layers"], "model_type": "qwen3",
        "num_attention_heads": c["num_attention_heads"], "num_hidden_layers": c["num_hidden_layers"], "num_key_value_heads": c["num_key_value_heads"],
        "pad_token_id": ids["<|endoftext|>"], "rms_norm_eps": c["rms_norm_eps"], "rope_scaling": None, "rope_theta": c["rope_theta"], "sliding_window": None,
        "tie_word_embeddings": True, "torch_dtype": "bfloat16", "use_cache": True, "use_sliding_window": False, "vocab_size": c["vocab_size"],
    }


def tokenizer_config(ids):
    added = {
        str(ids[t]): {"content": t, "lstrip": False, "normalized": False, "rstrip": False, "single_word": False, "special": t in SPECIAL} for t in SPECIAL + MARKS
    }
    return {
        "add_bos_token": False, "add_prefix_space": False, "added_tokens_decoder": added, "additional_special_tokens": ["<|im_start|>", "<|im_end|>"],
        "bos_token": None, "chat_template": (HERE / "chat_template.jinja").read_text(), "clean_up_tokenization_spaces": False, "eos_token": "<|im_end|>",
        "errors": "replace", "model_max_length": 2048, "pad_token": "<|endoftext|>", "split_special_tokens": False, "tokenizer_class": "PreTrainedTokenizerFast", "unk_token": None,
    }


def write_json(path, value):
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("state", help="state.pt of train.py")
    parser.add_argument("out", help="the model directory, with tokenizer.json in it")
    parser.add_argument("--weights", choices=["average", "model"], default="average")
    args = parser.parse_args()
    out = pathlib.Path(args.out)
    state = torch.load(args.state)
    tokenizer = Tokenizer.from_file(str(out / "tokenizer.json"))
    ids = {t: tokenizer.token_to_id(t) for t in SPECIAL + MARKS}
    weights = {name: tensor.to(torch.bfloat16).contiguous() for name, tensor in state[args.weights].items()}
    save_file(weights, out / "model.safetensors", metadata={"format": "pt"})
    write_json(out / "config.json", model_config(state["config"], ids))
    write_json(
        out / "generation_config.json",
        {"do_sample": False, "eos_token_id": [ids["<|im_end|>"], ids["<|endoftext|>"]], "pad_token_id": ids["<|endoftext|>"], "temperature": 0.0},
    )
    write_json(out / "tokenizer_config.json", tokenizer_config(ids))
    print(out, sum(t.numel() for t in weights.values()), "parameters, step", state["step"], f"{state['seen'] / 1e6:.1f}M tokens seen")


if __name__ == "__main__":
    main()
