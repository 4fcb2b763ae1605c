// SPDX-License-Identifier: Apache-2.0
#include "engine/load/model_part.h"

#include <algorithm>
#include <iterator>
#include <string>

#include "absl/strings/str_cat.h"
#include "engine/load/model_shape.h"
#include "kernels/check.h"

namespace millrace {
namespace {

constexpr std::string_view kByOutputs[] = {".q_proj", ".k_proj", ".v_proj", ".gate_proj", ".up_proj", ".w1", ".w3"};
constexpr std::string_view kByInputs[] = {".o_proj", ".down_proj", ".w2"};

std::string_view Stem(std::string_view name) {
  for (const std::string_view suffix : {std::string_view(".weight"), std::string_view(".bias")}) {
    if (name.ends_with(suffix)) return name.substr(0, name.size() - suffix.size());
  }
  return name;
}

absl::Status DoesNotDivide(int32_t num_ranks, int64_t number, const char* what) {
  return absl::InvalidArgumentError(
      absl::StrCat("--tensor-parallel-size ", num_ranks, " does not divide the model's ", number, " ", what));
}

}  // namespace

absl::StatusOr<ModelInfo> PartOf(const ModelInfo& whole, int32_t rank, int32_t num_ranks) {
  if (num_ranks < 1 || num_ranks > kMaxRanks) {
    return absl::InvalidArgumentError(absl::StrCat("--tensor-parallel-size ", num_ranks, " is not in 1..", kMaxRanks));
  }
  if (num_ranks == 1) return whole;
  MILLRACE_CHECK(rank >= 0 && rank < num_ranks, "a rank is one of those there are");
  if (whole.num_heads % num_ranks != 0) return DoesNotDivide(num_ranks, whole.num_heads, "attention heads");
  if (whole.num_kv_heads % num_ranks != 0 && num_ranks % whole.num_kv_heads != 0) {
    return DoesNotDivide(num_ranks, whole.num_kv_heads, "key-value heads, nor they it");
  }
  if (DenseFfnDim(whole) % num_ranks != 0) return DoesNotDivide(num_ranks, whole.ffn_dim, "dimensions of the ffn");
  if (whole.experts.ffn_dim % num_ranks != 0) {
    return DoesNotDivide(num_ranks, whole.experts.ffn_dim, "dimensions of an expert's ffn");
  }
  if (whole.vocab_tokens % num_ranks != 0) {
    return DoesNotDivide(num_ranks, whole.vocab_tokens, "entries of the vocabulary");
  }
  ModelInfo part = whole;
  part.part = {.rank = rank, .num_ranks = num_ranks, .whole_kv_heads = whole.num_kv_heads};
  part.num_heads /= num_ranks;
  part.num_kv_heads = std::max(whole.num_kv_heads / num_ranks, 1);
  part.ffn_dim /= num_ranks;
  part.experts.ffn_dim /= num_ranks;
  part.vocab_tokens /= num_ranks;
  return part;
}

SplitBy SplitOf(std::string_view name) {
  const std::string_view stem = Stem(name);
  const auto is_end = [stem](std::string_view end) { return stem.ends_with(end); };
  if (std::any_of(std::begin(kByInputs), std::end(kByInputs), is_end)) return SplitBy::kInputs;
  if (std::any_of(std::begin(kByOutputs), std::end(kByOutputs), is_end)) return SplitBy::kOutputs;
  return stem == "model.embed_tokens" || stem == "lm_head" ? SplitBy::kOutputs : SplitBy::kNothing;
}

Interval IntervalOf(std::string_view name, const ModelInfo& part, int64_t count) {
  const ModelPart& ranks = part.part;
  const std::string_view stem = Stem(name);
  if (stem.ends_with(".k_proj") || stem.ends_with(".v_proj")) {
    // Whole heads: neighbouring ranks hold the same one where there are fewer than ranks.
    const int64_t first_head = int64_t{ranks.rank} * ranks.whole_kv_heads / ranks.num_ranks;
    return {first_head * part.head_dim, count, int64_t{ranks.whole_kv_heads} * part.head_dim};
  }
  return {ranks.rank * count, count, ranks.num_ranks * count};
}

}  // namespace millrace
