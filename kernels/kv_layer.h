// SPDX-License-Identifier: Apache-2.0
#pragma once
// Views that RoPE, the append of keys and values, and attention read: rotary tables and the KV memory of one layer.
// Plain data, so that device code may include it; a view owns nothing.
#include <cstdint>

#include "kernels/tensor.h"

namespace millrace {

// Rotary tables: cos and sin per position and pair, already scaled (llama3, yarn, linear, ...).
struct RopeTable {
  const float* cos = nullptr;  // [max_positions, D_rot/2]
  const float* sin = nullptr;  // [max_positions, D_rot/2]
  int rotary_dim = 0;          // D_rot <= D
  bool interleaved = false;    // false: pairs (i, i + D_rot/2) as Hugging Face; true: (2i, 2i+1) as GGUF's llama
};

// KV memory of one layer: page p holds kPageTokens slots of G heads of D for K and for V.
struct KvLayer {
  void* keys = nullptr;           // [P, G, page_tokens, D] in dtype
  void* values = nullptr;         // [P, G, page_tokens, D]
  float* key_scales = nullptr;    // kI8 only: [P, G, page_tokens]
  float* value_scales = nullptr;  // kI8 only: [P, G, page_tokens]
  DType dtype = DType::kBF16;     // kF32, kF16, kBF16, kI8; kF8E4M3 where a backend has it
  int64_t num_pages = 0;
  int page_tokens = 16;
  int num_kv_heads = 0;
  int head_dim = 0;
};

}  // namespace millrace
