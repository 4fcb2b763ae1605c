// SPDX-License-Identifier: Apache-2.0
#pragma once
// Random weights of a model's shape, for benches: a function of (seed, tensor, row, column), scaled by 1/sqrt(K) so
// that activations stay finite. Loading thread.
#include "absl/status/statusor.h"
#include "engine/load/model_weights.h"

namespace millrace {

absl::StatusOr<ModelWeights> MakeDummyWeights(const ModelInfo& info, const LoadOptions& options, Device& device);

}  // namespace millrace
