// SPDX-License-Identifier: Apache-2.0
#pragma once
// What a model is, as read from its files: the shape of its forward pass and the facts its users ask for.
// Plain data, immutable after loading, any thread.
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace millrace {

enum class Architecture : uint8_t { kLlama, kMistral, kQwen2, kQwen3, kQwen3Moe, kMixtral };

enum class RopeScaling : uint8_t { kNone, kLinear, kLlama3, kYarn };

struct RopeParams {
  double theta = 10000.0;
  RopeScaling scaling = RopeScaling::kNone;
  double factor = 1.0;
  double low_freq_factor = 1.0;       // llama3
  double high_freq_factor = 4.0;      // llama3
  double original_max_positions = 0;  // llama3, yarn
  double beta_fast = 32.0;            // yarn
  double beta_slow = 1.0;             // yarn
  double attention_factor = 0;        // yarn; 0: 0.1 ln(factor) + 1
  bool interleaved = false;           // GGUF's llama layout
  // [D/2] each frequency is divided by its own number, after the scaling above; empty: none (GGUF's rope_freqs).
  std::vector<float> frequency_divisors;
};

// How a checkpoint's linear weights are stored already (GPTQ, AWQ), from quantization_config.
struct CheckpointQuantization {
  enum class Method : uint8_t { kNone, kGptq, kAwq, kMillrace } method = Method::kNone;
  int bits = 0;
  int group_size = 0;
  bool is_symmetric = true;
  bool uses_activation_order = false;  // GPTQ desc_act
  bool has_true_zeros = false;         // GPTQ: zero points stored as they are (gptq_v2), not less one
};

// The experts that take the place of the feed-forward network in a mixture-of-experts model.
struct ExpertParams {
  int32_t num_experts = 0;            // E; 0: every layer is dense
  int32_t num_choices = 0;            // k: the experts a row goes through
  int32_t ffn_dim = 0;                // F of an expert
  bool is_normalized = true;          // the weights of a row's choices sum to 1
  std::vector<int32_t> dense_layers;  // those without experts
};

// Which part of a model one of several ranks holds (docs/parallel.md). The numbers of heads, key-value heads, ffn
// dimensions (an expert's too) and vocabulary entries in ModelInfo are then the part's.
struct ModelPart {
  int32_t rank = 0;
  int32_t num_ranks = 1;       // 1: the whole model
  int32_t whole_kv_heads = 0;  // of all ranks together
};

struct ModelInfo {
  std::string name;    // directory or file stem, or org/name
  std::string source;  // path it was loaded from
  Architecture architecture = Architecture::kLlama;
  std::string architecture_name;  // "LlamaForCausalLM"
  int32_t num_layers = 0;
  int32_t hidden_dim = 0;     // C
  int32_t ffn_dim = 0;        // F
  int32_t num_heads = 0;      // H
  int32_t num_kv_heads = 0;   // G
  int32_t head_dim = 0;       // D
  int32_t vocab_tokens = 0;   // V
  int32_t max_positions = 0;  // max_position_embeddings
  float norm_eps = 1e-6f;
  bool has_tied_embeddings = false;
  bool has_qkv_bias = false;  // Qwen2
  bool has_o_bias = false;
  bool has_mlp_bias = false;
  bool has_qk_norm = false;   // Qwen3
  int32_t window_tokens = 0;  // sliding window, 0: none
  ExpertParams experts;
  RopeParams rope;
  CheckpointQuantization quantization;
  std::string dtype_name;    // torch_dtype of the checkpoint
  std::string weights_name;  // how its weights are stored, for people: "GGUF Q4_0", "GPTQ int4", "bfloat16"
  std::vector<int32_t> eos_token_ids;
  std::optional<int32_t> bos_token_id;
  std::optional<int32_t> pad_token_id;
  // generation_config.json: defaults for requests that do not say.
  std::optional<float> default_temperature, default_top_p, default_repetition_penalty, default_min_p;
  std::optional<int32_t> default_top_k;
  int64_t num_parameters = 0;
  ModelPart part;
  uint64_t weights_fingerprint = 0;  // identity of the weights for caches: a hash (hf_files.h)
};

}  // namespace millrace
