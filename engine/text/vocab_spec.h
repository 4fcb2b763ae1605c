// SPDX-License-Identifier: Apache-2.0
// The vocabulary of a GGUF file as plain data: what the file's reader fills in and Tokenizer::FromVocab takes.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace millrace {

// Values of GGUF's tokenizer.ggml.token_type.
enum class VocabTokenType : int32_t {
  kUndefined = 0,
  kNormal = 1,
  kUnknown = 2,
  kControl = 3,
  kUserDefined = 4,
  kUnused = 5,
  kByte = 6,
};

struct VocabSpec {
  // tokenizer.ggml.model: "llama" (SentencePiece BPE: the pair with the best score merges first) or "gpt2"
  // (byte-level BPE by merge list).
  std::string model;
  // tokenizer.ggml.pre, "gpt2" only: "default", "gpt-2", "llama-bpe", "qwen2", "gpt-4o", "tekken", "smollm", ...
  std::string pre;
  std::vector<std::string> tokens;          // by id; "gpt2": in the byte-level alphabet
  std::vector<float> scores;                // "llama": one per token
  std::vector<VocabTokenType> token_types;  // one per token, or empty: all kNormal
  std::vector<std::string> merges;          // "gpt2": "left right", best first
  std::optional<int32_t> bos_id;
  std::optional<int32_t> eos_id;
  std::optional<int32_t> unk_id;
  bool add_bos = false;          // tokenizer.ggml.add_bos_token (the reader knows each model's default)
  bool add_eos = false;          // tokenizer.ggml.add_eos_token
  bool add_space_prefix = true;  // tokenizer.ggml.add_space_prefix, "llama" only
};

}  // namespace millrace
