// SPDX-License-Identifier: Apache-2.0
#pragma once
// The tensors of a Hugging Face directory: floats, GPTQ and AWQ 4-bit matrices, and our own int8 and int4. Loading
// thread.
#include <memory>

#include "absl/status/statusor.h"
#include "engine/load/tensor_source.h"

namespace millrace {

// Errors as of OpenHfFiles.
absl::StatusOr<std::unique_ptr<TensorSource>> OpenHfTensors(const ModelInfo& info);

}  // namespace millrace
