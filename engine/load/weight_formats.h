// SPDX-License-Identifier: Apache-2.0
#pragma once
// Which number format each kind of weight will have after loading. Plain functions, any thread.
#include "absl/status/statusor.h"
#include "engine/load/model_info.h"
#include "engine/load/model_weights.h"
#include "kernels/tensor.h"

namespace millrace {

struct WeightKind {
  WeightFormat format = WeightFormat::kDense;
  DType dtype = DType::kBF16;  // kDense
  int group_size = 0;          // wanted; see GroupFor
  // The group a matrix with K inputs gets: int4 falls back from 128 to 64 or 32 where the wanted does not divide K.
  int GroupFor(int64_t k) const;
};

struct WeightFormats {
  DType embedding = DType::kBF16;  // and of the routers, which are never quantised
  WeightKind linear;
  WeightKind lm_head;  // int8 per channel under any quantisation: it is the largest single read of a decode step
  bool may_keep_stored = true;  // matrices that the checkpoint holds quantised stay as they are
};

// InvalidArgument names an option that the checkpoint or the build cannot honour.
absl::StatusOr<WeightFormats> ChooseWeightFormats(const ModelInfo& info, const LoadOptions& options);

}  // namespace millrace
