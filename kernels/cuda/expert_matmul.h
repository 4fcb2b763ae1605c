// SPDX-License-Identifier: Apache-2.0
#pragma once
// Every expert's matrix times its rows in one launch: out[r] = x[r] * W_e^T for the rows r of expert e. Which rows are
// whose stands on the device (kernels/expert_routes.h), so nothing waits for it, and a recorded launch serves any
// routing of as many rows. Allocates nothing, does not wait. Sums run as in matmul.h and in one order: a row's bits
// depend on neither the other rows nor their number.
#include <cuda_runtime_api.h>

#include <cstdint>

#include "kernels/cuda/matmul_pack.h"
#include "kernels/cuda/quantized_rows.h"
#include "kernels/expert_routes.h"
#include "kernels/tensor.h"

namespace millrace::cuda {

// What differs between the experts' matrices; pointers as in WeightOnDevice. An array of these lies on the device.
struct ExpertParts {
  const void* values = nullptr;
  const void* scales = nullptr;
  const void* zeros = nullptr;  // null: there are none
  float scale_unit = 1.0f;
};

struct ExpertMatmulLaunch {
  Matrix x;                   // [T * k, K] BF16 or F16, sorted by expert; data may be null when x_quantized is used
  QuantizedRows x_quantized;  // int8 with a scale per channel: x, quantised
  // What the experts' matrices [N, K] have in common, dense ones x's type; its parts are not looked at.
  WeightOnDevice w;
  const ExpertParts* experts;  // [E], on the device
  ExpertRoutes routes;
  Matrix out;  // [T * k, N], x's dtype
  int num_multiprocessors = 0;
  bool is_dependent = false;
};

// cudaErrorInvalidValue: a launch that makes no sense, or dtypes no kernel takes.
cudaError_t LaunchExpertMatmul(const ExpertMatmulLaunch& launch, cudaStream_t stream);

}  // namespace millrace::cuda
