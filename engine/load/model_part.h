// SPDX-License-Identifier: Apache-2.0
#pragma once
// How a model is divided among ranks that compute each step together (tensor parallelism as in Megatron-LM, arXiv
// 1909.08053): projections into heads and the ffn by their outputs, projections back by their inputs, embedding and
// head by the vocabulary. Of a mixture every rank has a part of every expert, cut like an ffn, and the whole router.
// Plain functions, any thread.
#include <cstdint>
#include <string_view>

#include "absl/status/statusor.h"
#include "engine/load/model_info.h"

namespace millrace {

inline constexpr int32_t kMaxRanks = 64;

// What rank `rank` of `num_ranks` holds: heads [rank * H/N, ...) with the key-value heads they read (which several
// ranks share where there are fewer than ranks), and an N-th of the ffn, each expert's too, and of the vocabulary.
// `whole` itself for one. InvalidArgument names the number that does not divide. REQUIRES: 0 <= rank < num_ranks,
// unless that is the error.
absl::StatusOr<ModelInfo> PartOf(const ModelInfo& whole, int32_t rank, int32_t num_ranks);

// Entries [first, first + count) of `whole`.
struct Interval {
  int64_t first = 0;
  int64_t count = 0;
  int64_t whole = 0;
};

enum class SplitBy : uint8_t { kNothing, kOutputs, kInputs };

// By which of its dimensions a tensor is divided, from its Hugging Face name with or without suffix.
SplitBy SplitOf(std::string_view name);

// Where the part's `count` outputs or inputs of the tensor lie. REQUIRES: it is divided by something.
Interval IntervalOf(std::string_view name, const ModelInfo& part, int64_t count);

}  // namespace millrace
