// SPDX-License-Identifier: Apache-2.0
#pragma once
// out = x * W^T (+ bias) (+ residual) for every weight format. LaunchMatmul chooses a kernel (matmul_plan.h) and starts
// it on the stream; it allocates nothing and does not wait. Sums run in an order fixed by the shapes and the machine,
// so the same call gives the same bits.
//
//   dense        x and W in the same 16-bit type on tensor cores; other pairs in float32
//   int8         a scale per channel: x quantised per row, y = (sum of q_x * q_w) * s_x * s_w, the sum exact
//   int8 grouped a scale per group of K: w = q * s in the activations' type times x, float32 sums
//   int4         likewise with w = (q - zero) * s
#include <cuda_runtime.h>

#include <cstddef>
#include <cstdint>
#include <optional>

#include "kernels/cuda/matmul_limits.h"
#include "kernels/cuda/matmul_pack.h"
#include "kernels/cuda/matmul_plan.h"
#include "kernels/cuda/quantized_rows.h"
#include "kernels/tensor.h"

namespace millrace::cuda {

struct MatmulLaunch {
  Matrix x;                     // [T, K] BF16 or F16; data may be null when x_quantized is given and used
  QuantizedRows x_quantized;    // int8 with a scale per channel: x when already quantised; else made in the workspace
  WeightOnDevice w;             // [N, K]
  const float* bias = nullptr;  // [N] or null
  Matrix out;                   // [T, N] in x's dtype, or F32 (logits)
  const void* residual = nullptr;  // null, or [T, N] of out's dtype and stride; may alias out
  void* workspace = nullptr;       // MatmulWorkspaceBytes, 256-byte aligned, zeroed once before its first use
  size_t workspace_bytes = 0;
  int num_multiprocessors = 0;         // of the device
  bool has_warpgroups = false;         // of the device: it is sm_90, and the kernels are built for sm_90a
  bool is_dependent = false;           // programmatic dependent launch on the stream's previous kernel
  std::optional<MatmulKernel> kernel;  // instead of the plan's choice, for benches and tests
  // Of the device: FindResidentClusters; where it was not asked, what is likely.
  std::optional<ResidentClusters> resident_clusters;
};

// Of the current device, which must have warpgroups: asked once, when it is opened. None of a size that it cannot run,
// or does not tell.
ResidentClusters FindResidentClusters();

// One workspace serves all matmuls of a stream, one after the other. Grows with rows only for quantised activations.
size_t MatmulWorkspaceBytes(int64_t max_rows, int64_t max_n, int64_t max_k);

// What the plan of a launch is made from.
MatmulProblem DescribeMatmul(const MatmulLaunch& launch);

// REQUIRES: shapes as above, w as PackWeight laid it out, out not overlapping x. Any T, N, K >= 1 (K at most 2^19);
// rows that are not 16-byte aligned are served by the plain kernel. cudaErrorInvalidValue: a dtype pair no kernel
// takes, or a `kernel` that cannot run.
cudaError_t LaunchMatmul(const MatmulLaunch& launch, cudaStream_t stream);

}  // namespace millrace::cuda
