// SPDX-License-Identifier: Apache-2.0
#pragma once
// Weights of a Hugging Face directory: one or several safetensors files. Loading thread.
#include <string>

#include "absl/status/statusor.h"
#include "engine/load/model_weights.h"

namespace millrace {

// InvalidArgument lists missing tensors or names one whose shape or dtype does not fit.
absl::StatusOr<ModelWeights> LoadHfWeights(const ModelInfo& info, const LoadOptions& options, Device& device);
// Identity of the weights for caches: FNV-1a over file names, sizes, headers and samples of the data.
absl::StatusOr<uint64_t> FingerprintHfWeights(const std::string& dir);

}  // namespace millrace
