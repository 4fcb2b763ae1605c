// SPDX-License-Identifier: Apache-2.0
#pragma once
// Random weights of a model's shape, for benches: a function of (seed, tensor, row, column), scaled by 1/sqrt(K) so
// that activations stay finite. Loading thread.
#include <cstdint>
#include <memory>

#include "engine/load/tensor_source.h"

namespace millrace {

std::unique_ptr<TensorSource> MakeDummyTensors(uint64_t seed);

}  // namespace millrace
