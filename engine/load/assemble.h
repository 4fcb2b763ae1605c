// SPDX-License-Identifier: Apache-2.0
#pragma once
// From named tensors to ModelWeights, one fused matrix at a time. Loading thread.
#include "absl/status/statusor.h"
#include "engine/load/model_weights.h"
#include "engine/load/tensor_source.h"

namespace millrace {

// InvalidArgument lists missing tensors or names the tensor and its fault.
absl::StatusOr<ModelWeights> AssembleWeights(const ModelInfo& info, const LoadOptions& options, TensorSource& source,
                                             Device& device);

}  // namespace millrace
