// SPDX-License-Identifier: Apache-2.0
#pragma once
// out[row] = residual[row] + the sum over the row's choices of weight * x[place]. Launched on a stream; allocates
// nothing, waits for nothing.
#include <cuda_runtime_api.h>

#include "kernels/expert_routes.h"
#include "kernels/tensor.h"

namespace millrace::cuda {

struct ExpertCombineLaunch {
  Matrix x;  // [T * k, C] BF16 or F16, sorted by expert
  ExpertRoutes routes;
  Matrix out;                      // [T, C], x's dtype
  const void* residual = nullptr;  // null: zeros, or as out, which it may be; all that rows of padding get
  bool is_dependent = false;
};

cudaError_t LaunchExpertCombine(const ExpertCombineLaunch& launch, cudaStream_t stream);

}  // namespace millrace::cuda
