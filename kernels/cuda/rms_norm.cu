// SPDX-License-Identifier: Apache-2.0
// out = x / sqrt(mean(x^2) + eps) * weight, one block a row; limited by memory, at a few rows by latency.
// The int8 row needs no second reduction: with y = x * weight and r = 1 / rms, max|r * y| is r * max|y|, so the sum of
// squares and the maximum come from the same pass and r cancels out of the integers.
#include "kernels/check.h"
#include "kernels/cuda/common/launch.h"
#include "kernels/cuda/common/ptx.h"
#include "kernels/cuda/rms_norm.h"
#include "kernels/cuda/row_vectors.h"

namespace millrace::cuda {
namespace {

struct RmsNormParams {
  const uint16_t* x;
  int64_t x_stride;
  int64_t cols;
  const float* weight;
  float eps;
  uint16_t* out;
  int64_t out_stride;
  QuantizedRows quantized;
};

template <bool kQuantize>
__device__ inline void Accumulate(const Floats8& x, const float* weight, int64_t at, int64_t cols, float& squares,
                                  uint32_t& max_bits) {
#pragma unroll
  for (int i = 0; i < kVector; ++i) squares += x.at[i] * x.at[i];
  if constexpr (kQuantize) {
    Floats8 product = Load8(weight, at, cols);
#pragma unroll
    for (int i = 0; i < kVector; ++i) product.at[i] *= x.at[i];
    max_bits = LargestBits(product, max_bits);
  }
}

template <typename Format, bool kQuantize>
__global__ void __launch_bounds__(kMaxRowThreads) RmsNormKernel(const RmsNormParams params) {
  __shared__ float sums[kWarpSize];
  __shared__ uint32_t maxima[kWarpSize];
  const int64_t row = blockIdx.x, cols = params.cols;
  const int64_t begin = static_cast<int64_t>(threadIdx.x) * kVector;
  const int64_t stride = static_cast<int64_t>(blockDim.x) * kVector;
  const uint16_t* x = params.x + row * params.x_stride;
  ptx::GridDependencyWait();
  ptx::GridDependencyLaunch();
  Floats8 held[kHeldVectors];
  float squares = 0;
  uint32_t max_bits = 0;
#pragma unroll
  for (int i = 0; i < kHeldVectors; ++i) {
    const int64_t at = begin + i * stride;
    if (at >= cols) continue;
    held[i] = Load8<Format>(x, at, cols);
    Accumulate<kQuantize>(held[i], params.weight, at, cols, squares, max_bits);
  }
  for (int64_t at = begin + kHeldVectors * stride; at < cols; at += stride) {
    Accumulate<kQuantize>(Load8<Format>(x, at, cols), params.weight, at, cols, squares, max_bits);
  }
  squares = BlockReduce(squares, Add(), sums);
  const float inverse_rms = 1.0f / sqrtf(squares / static_cast<float>(cols) + params.eps);
  QuantScale quant;
  if constexpr (kQuantize) {
    quant = QuantScaleFor(BlockReduce(max_bits, Larger(), maxima), inverse_rms);
    if (threadIdx.x == 0) params.quantized.scales[row] = quant.scale;
  }
  const auto finish = [&](const Floats8& values, int64_t at) {
    const Floats8 weight = Load8(params.weight, at, cols);
    Floats8 normal, product;
#pragma unroll
    for (int i = 0; i < kVector; ++i) {
      normal.at[i] = values.at[i] * inverse_rms * weight.at[i];
      product.at[i] = values.at[i] * weight.at[i];
    }
    if (params.out != nullptr) Store8<Format>(normal, params.out + row * params.out_stride, at, cols);
    if constexpr (kQuantize) {
      StoreInt8x8(product, quant.inverse, params.quantized.values + row * params.quantized.stride, at, cols);
    }
  };
#pragma unroll
  for (int i = 0; i < kHeldVectors; ++i) {
    if (begin + i * stride < cols) finish(held[i], begin + i * stride);
  }
  for (int64_t at = begin + kHeldVectors * stride; at < cols; at += stride) finish(Load8<Format>(x, at, cols), at);
}

}  // namespace

cudaError_t LaunchRmsNorm(const RmsNormLaunch& launch, cudaStream_t stream) {
  const bool is_bf16 = launch.x.dtype == DType::kBF16;
  const bool is_quantized = launch.quantized.values != nullptr;
  MILLRACE_CHECK(is_bf16 || launch.x.dtype == DType::kF16, "activations are BF16 or F16");
  MILLRACE_CHECK(launch.out.data == nullptr || launch.out.dtype == launch.x.dtype, "out has x's dtype");
  MILLRACE_CHECK(launch.out.data != nullptr || is_quantized, "a norm nobody wants");
  if (launch.x.rows == 0) return cudaSuccess;
  const RmsNormParams params = {
      static_cast<const uint16_t*>(launch.x.data), launch.x.stride,   launch.x.cols,   launch.weight, launch.eps,
      static_cast<uint16_t*>(launch.out.data),     launch.out.stride, launch.quantized};
  const auto kernel = is_quantized ? (is_bf16 ? RmsNormKernel<Bf16, true> : RmsNormKernel<F16, true>)
                                   : (is_bf16 ? RmsNormKernel<Bf16, false> : RmsNormKernel<F16, false>);
  return Launch(kernel,
                {.grid = dim3(static_cast<unsigned>(launch.x.rows)),
                 .block = dim3(static_cast<unsigned>(RowThreads(launch.x.cols))),
                 .stream = stream,
                 .is_dependent = launch.is_dependent},
                params);
}

}  // namespace millrace::cuda
