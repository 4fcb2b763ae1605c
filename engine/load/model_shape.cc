// SPDX-License-Identifier: Apache-2.0
#include "engine/load/model_shape.h"

#include "absl/strings/str_cat.h"

namespace millrace {

absl::Status CheckShape(const ModelInfo& info) {
  if (info.num_heads % info.num_kv_heads != 0) {
    return absl::InvalidArgumentError(
        absl::StrCat(info.num_heads, " attention heads are no multiple of ", info.num_kv_heads, " key-value heads"));
  }
  if (info.head_dim % 2 != 0) return absl::InvalidArgumentError(absl::StrCat("a head dimension of ", info.head_dim));
  for (const int32_t id : info.eos_token_ids) {
    if (id < 0) return absl::InvalidArgumentError(absl::StrCat("an end-of-sequence id of ", id));
  }
  return absl::OkStatus();
}

int64_t CountParameters(const ModelInfo& info) {
  const int64_t c = info.hidden_dim, f = info.ffn_dim, d = info.head_dim;
  const int64_t q = info.num_heads * d, kv = info.num_kv_heads * d;
  int64_t layer = c * (q + 2 * kv) + q * c + 3 * c * f + 2 * c;
  if (info.has_qk_norm) layer += 2 * d;
  if (info.has_qkv_bias) layer += q + 2 * kv;
  if (info.has_o_bias) layer += c;
  if (info.has_mlp_bias) layer += 2 * f + c;
  return info.num_layers * layer + int64_t{info.vocab_tokens} * c * (info.has_tied_embeddings ? 1 : 2) + c;
}

}  // namespace millrace
