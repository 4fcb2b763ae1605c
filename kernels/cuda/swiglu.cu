// SPDX-License-Identifier: Apache-2.0
// out = gate * sigmoid(gate) * up; limited by memory. Without int8 the row is cut over blocks; with it one block holds
// the row, because the scale needs its maximum.
#include "kernels/check.h"
#include "kernels/cuda/common/launch.h"
#include "kernels/cuda/common/ptx.h"
#include "kernels/cuda/row_vectors.h"
#include "kernels/cuda/swiglu.h"

namespace millrace::cuda {
namespace {

constexpr int kSliceThreads = 256;
constexpr float kLog2E = 1.4426950408889634f;

struct SwiGluParams {
  const uint16_t* gate_up;
  int64_t gate_up_stride;
  int64_t cols;
  uint16_t* out;
  int64_t out_stride;
  QuantizedRows quantized;
};

template <typename Format>
__device__ inline Floats8 Gated(const uint16_t* gate_up, int64_t at, int64_t cols) {
  Floats8 gate = Load8<Format>(gate_up, at, cols);
  const Floats8 up = Load8<Format>(gate_up + cols, at, cols);
#pragma unroll
  for (int i = 0; i < kVector; ++i) gate.at[i] *= ptx::Reciprocal(1.0f + ptx::Exp2(-kLog2E * gate.at[i])) * up.at[i];
  return gate;
}

template <typename Format>
__global__ void __launch_bounds__(kSliceThreads) SwiGluKernel(const SwiGluParams params) {
  const int64_t row = blockIdx.x;
  const int64_t at = (static_cast<int64_t>(blockIdx.y) * kSliceThreads + threadIdx.x) * kVector;
  ptx::GridDependencyWait();
  ptx::GridDependencyLaunch();
  if (at < params.cols) {
    const Floats8 values = Gated<Format>(params.gate_up + row * params.gate_up_stride, at, params.cols);
    Store8<Format>(values, params.out + row * params.out_stride, at, params.cols);
  }
}

template <typename Format>
__global__ void __launch_bounds__(kMaxRowThreads) SwiGluQuantizeKernel(const SwiGluParams params) {
  __shared__ uint32_t scratch[kWarpSize];
  const int64_t row = blockIdx.x;
  const uint16_t* gate_up = params.gate_up + row * params.gate_up_stride;
  ptx::GridDependencyWait();
  ptx::GridDependencyLaunch();
  const auto load = [&](int64_t at) {
    const Floats8 values = Gated<Format>(gate_up, at, params.cols);
    if (params.out != nullptr) Store8<Format>(values, params.out + row * params.out_stride, at, params.cols);
    return values;
  };
  QuantizeRow(load, params.cols, params.quantized.values + row * params.quantized.stride, params.quantized.scales + row,
              scratch);
}

}  // namespace

cudaError_t LaunchSwiGlu(const SwiGluLaunch& launch, cudaStream_t stream) {
  const bool is_bf16 = launch.gate_up.dtype == DType::kBF16;
  const bool is_quantized = launch.quantized.values != nullptr;
  MILLRACE_CHECK(is_bf16 || launch.gate_up.dtype == DType::kF16, "activations are BF16 or F16");
  MILLRACE_CHECK(launch.out.data == nullptr || launch.out.dtype == launch.gate_up.dtype, "out has gate_up's dtype");
  MILLRACE_CHECK(launch.out.data != nullptr || is_quantized, "a product nobody wants");
  if (launch.gate_up.rows == 0) return cudaSuccess;
  const int64_t cols = launch.gate_up.cols / 2;
  const SwiGluParams params = {
      static_cast<const uint16_t*>(launch.gate_up.data), launch.gate_up.stride, cols,
      static_cast<uint16_t*>(launch.out.data),           launch.out.stride,     launch.quantized};
  const unsigned rows = static_cast<unsigned>(launch.gate_up.rows);
  if (is_quantized) {
    return Launch(is_bf16 ? SwiGluQuantizeKernel<Bf16> : SwiGluQuantizeKernel<F16>,
                  {.grid = dim3(rows),
                   .block = dim3(static_cast<unsigned>(RowThreads(cols))),
                   .stream = stream,
                   .is_dependent = launch.is_dependent},
                  params);
  }
  constexpr int64_t kSlice = int64_t{kSliceThreads} * kVector;
  return Launch(is_bf16 ? SwiGluKernel<Bf16> : SwiGluKernel<F16>,
                {.grid = dim3(rows, static_cast<unsigned>((cols + kSlice - 1) / kSlice)),
                 .block = dim3(kSliceThreads),
                 .stream = stream,
                 .is_dependent = launch.is_dependent},
                params);
}

}  // namespace millrace::cuda
