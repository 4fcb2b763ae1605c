// SPDX-License-Identifier: Apache-2.0
// out[row] = residual[row] + sum over c of weights[row, c] * x[places[row, c]] for T rows of C elements: float32 sums
// in the order of the choices, then one rounding. A thread has eight elements of a row; no two threads add to one, so
// that the result is the same every time. sm_80 and up; limited by memory.
#include "kernels/check.h"
#include "kernels/cuda/common/launch.h"
#include "kernels/cuda/common/ptx.h"
#include "kernels/cuda/expert_combine.h"
#include "kernels/cuda/row_vectors.h"

namespace millrace::cuda {
namespace {

constexpr int kSliceThreads = 256;

struct CombineParams {
  const uint16_t* x;
  int64_t x_stride;
  int64_t cols;
  ExpertRoutes routes;
  const uint16_t* residual;  // null: zeros
  uint16_t* out;
  int64_t out_stride;
};

template <typename Format>
__global__ void __launch_bounds__(kSliceThreads) ExpertCombineKernel(const CombineParams params) {
  const int64_t row = blockIdx.x;
  const int64_t at = (static_cast<int64_t>(blockIdx.y) * kSliceThreads + threadIdx.x) * kVector;
  ptx::GridDependencyWait();
  ptx::GridDependencyLaunch();
  const bool is_padding = params.routes.experts[row * params.routes.num_choices] < 0;
  if (at < params.cols) {
    Floats8 sum = {};
    if (params.residual != nullptr) sum = Load8<Format>(params.residual + row * params.out_stride, at, params.cols);
    const int num_choices = is_padding ? 0 : params.routes.num_choices;
    for (int64_t choice = row * num_choices; choice < (row + 1) * num_choices; ++choice) {
      const uint16_t* x = params.x + params.routes.places[choice] * params.x_stride;
      const Floats8 values = Load8<Format>(x, at, params.cols);
      const float weight = params.routes.weights[choice];
#pragma unroll
      for (int i = 0; i < kVector; ++i) sum.at[i] = fmaf(weight, values.at[i], sum.at[i]);
    }
    Store8<Format>(sum, params.out + row * params.out_stride, at, params.cols);
  }
}

}  // namespace

cudaError_t LaunchExpertCombine(const ExpertCombineLaunch& launch, cudaStream_t stream) {
  const bool is_bf16 = launch.out.dtype == DType::kBF16;
  MILLRACE_CHECK(is_bf16 || launch.out.dtype == DType::kF16, "activations are BF16 or F16");
  MILLRACE_CHECK(launch.x.dtype == launch.out.dtype && launch.x.cols == launch.out.cols &&
                     launch.x.rows == launch.out.rows * launch.routes.num_choices,
                 "a row for every choice");
  if (launch.out.rows == 0) return cudaSuccess;
  const CombineParams params = {static_cast<const uint16_t*>(launch.x.data),
                                launch.x.stride,
                                launch.out.cols,
                                launch.routes,
                                static_cast<const uint16_t*>(launch.residual),
                                static_cast<uint16_t*>(launch.out.data),
                                launch.out.stride};
  constexpr int64_t kSlice = int64_t{kSliceThreads} * kVector;
  return Launch(is_bf16 ? ExpertCombineKernel<Bf16> : ExpertCombineKernel<F16>,
                {.grid = dim3(static_cast<unsigned>(launch.out.rows),
                              static_cast<unsigned>((launch.out.cols + kSlice - 1) / kSlice)),
                 .block = dim3(kSliceThreads),
                 .stream = stream,
                 .is_dependent = launch.is_dependent},
                params);
}

}  // namespace millrace::cuda
