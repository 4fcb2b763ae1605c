// SPDX-License-Identifier: Apache-2.0
#pragma once
// A rank's slices of a checkpoint's tensors (model_part.h), cut while they are read. What is quantised, here or by the
// checkpoint's maker, keeps the numbers of the whole matrix: the ranks' slices put together are that matrix.
// Loading thread.
#include <memory>

#include "engine/load/tensor_source.h"

namespace millrace {

// Names and shapes asked for are those of `part`. InvalidArgument where a slice would not hold whole groups.
// REQUIRES: `part` is one of several.
std::unique_ptr<TensorSource> MakePartTensors(std::unique_ptr<TensorSource> whole, const ModelInfo& part);

}  // namespace millrace
