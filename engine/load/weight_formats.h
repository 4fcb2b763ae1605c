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

// The activations of a device that takes 16 bits: float16 where --dtype says so, or is auto and the checkpoint's
// weights are float16 and stay so. Else bfloat16: quantised checkpoints call themselves float16 whatever they were made
// from, and so do GGUF's, whose numbers may not fit into its range.
DType DeviceActivations(const ModelInfo& info, const LoadOptions& options);

// `options` for ops with such activations. The dense weights, which they pack in that type, are rounded to it from what
// the file has, and not to the checkpoint's type before.
LoadOptions OptionsFor(LoadOptions options, DType activation_dtype);

// InvalidArgument names an option that the checkpoint or the build cannot honour.
absl::StatusOr<WeightFormats> ChooseWeightFormats(const ModelInfo& info, const LoadOptions& options);

}  // namespace millrace
