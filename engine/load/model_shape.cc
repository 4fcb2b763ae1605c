// SPDX-License-Identifier: Apache-2.0
#include "engine/load/model_shape.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "kernels/expert_ops.h"

namespace millrace {

absl::Status CheckShape(const ModelInfo& info) {
  if (info.num_heads % info.num_kv_heads != 0) {
    return absl::InvalidArgumentError(
        absl::StrCat(info.num_heads, " attention heads are no multiple of ", info.num_kv_heads, " key-value heads"));
  }
  if (info.head_dim % 2 != 0) return absl::InvalidArgumentError(absl::StrCat("a head dimension of ", info.head_dim));
  const ExpertParams& experts = info.experts;
  if (experts.num_experts > kMaxExperts || experts.num_choices > kMaxExpertChoices) {
    return absl::UnimplementedError(absl::StrCat(experts.num_choices, " of ", experts.num_experts,
                                                 " experts a token; supported: ", kMaxExpertChoices, " of ",
                                                 kMaxExperts));
  }
  if (experts.num_experts > 0 && (experts.num_choices < 1 || experts.num_choices > experts.num_experts)) {
    return absl::InvalidArgumentError(
        absl::StrCat(experts.num_choices, " experts a token of ", experts.num_experts, " experts"));
  }
  for (const int32_t id : info.eos_token_ids) {
    if (id < 0) return absl::InvalidArgumentError(absl::StrCat("an end-of-sequence id of ", id));
  }
  return absl::OkStatus();
}

int64_t CountParameters(const ModelInfo& info) {
  const int64_t c = info.hidden_dim, f = info.ffn_dim, d = info.head_dim;
  const int64_t q = info.num_heads * d, kv = info.num_kv_heads * d;
  int64_t layer = c * (q + 2 * kv) + q * c + 2 * c;
  if (info.has_qk_norm) layer += 2 * d;
  if (info.has_qkv_bias) layer += q + 2 * kv;
  if (info.has_o_bias) layer += c;
  const int64_t dense_ffn = 3 * c * f + (info.has_mlp_bias ? 2 * f + c : 0);
  const int64_t experts = info.experts.num_experts * (3 * c * info.experts.ffn_dim + c);
  int64_t ffns = 0;
  for (int32_t i = 0; i < info.num_layers; ++i) ffns += HasExperts(info, i) ? experts : dense_ffn;
  return info.num_layers * layer + ffns + int64_t{info.vocab_tokens} * c * (info.has_tied_embeddings ? 1 : 2) + c;
}

bool HasExperts(const ModelInfo& info, int32_t layer) {
  const std::vector<int32_t>& dense = info.experts.dense_layers;
  return info.experts.num_experts > 0 && std::find(dense.begin(), dense.end(), layer) == dense.end();
}

int32_t DenseFfnDim(const ModelInfo& info) {
  for (int32_t i = 0; i < info.num_layers; ++i) {
    if (!HasExperts(info, i)) return info.ffn_dim;
  }
  return 0;
}

}  // namespace millrace
