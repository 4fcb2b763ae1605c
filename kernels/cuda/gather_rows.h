// SPDX-License-Identifier: Apache-2.0
#pragma once
// out[r] = x[rows[r]], bit by bit. Launched on a stream; allocates nothing, waits for nothing.
#include <cuda_runtime_api.h>

#include <cstdint>

#include "kernels/tensor.h"

namespace millrace::cuda {

struct GatherRowsLaunch {
  Matrix x;                       // [T, C], any dtype
  const int32_t* rows = nullptr;  // [R], each in [0, T); for one outside nothing is written
  Matrix out;                     // [R, C], x's dtype; must not overlap x
  bool is_dependent = false;
};

cudaError_t LaunchGatherRows(const GatherRowsLaunch& launch, cudaStream_t stream);

}  // namespace millrace::cuda
