// SPDX-License-Identifier: Apache-2.0
// out[t] = table[token of t] * scale, or zeros where another rank's part of the table has the token; one block a row;
// limited by memory.
#include <type_traits>

#include "kernels/check.h"
#include "kernels/cuda/common/launch.h"
#include "kernels/cuda/common/ptx.h"
#include "kernels/cuda/embed.h"
#include "kernels/cuda/row_vectors.h"

namespace millrace::cuda {
namespace {

struct EmbedParams {
  const void* table;
  int64_t table_rows;
  int64_t table_stride;
  int64_t cols;
  const int32_t* tokens;
  const DeviceSampleResult* drawn;
  uint16_t* out;
  int64_t out_stride;
  float scale;
  int32_t first_token;
  int32_t whole_tokens;
};

struct F32 {};

template <typename Table>
__device__ inline Floats8 LoadEntry(const EmbedParams& params, int64_t token, int64_t at) {
  if constexpr (std::is_same_v<Table, F32>) {
    return Load8(static_cast<const float*>(params.table) + token * params.table_stride, at, params.cols);
  } else {
    return Load8<Table>(static_cast<const uint16_t*>(params.table) + token * params.table_stride, at, params.cols);
  }
}

template <typename Table, typename Format>
__global__ void __launch_bounds__(kMaxRowThreads) EmbedKernel(const EmbedParams params) {
  const int64_t row = blockIdx.x;
  uint16_t* out = params.out + row * params.out_stride;
  ptx::GridDependencyWait();
  ptx::GridDependencyLaunch();
  int64_t token = params.tokens[row];
  if (token < 0 && params.drawn != nullptr) token = params.drawn[-1 - token].token;
  const int64_t table_row = token - params.first_token;
  const bool is_known = token >= 0 && token < params.whole_tokens;
  const bool is_here = table_row >= 0 && table_row < params.table_rows;
  const float scale = is_known ? params.scale : __uint_as_float(0x7fc00000u);  // NaN: the fault stays visible
  const int64_t stride = static_cast<int64_t>(blockDim.x) * kVector;
  for (int64_t at = static_cast<int64_t>(threadIdx.x) * kVector; at < params.cols; at += stride) {
    Floats8 values = {};
    if (is_here) values = LoadEntry<Table>(params, table_row, at);
#pragma unroll
    for (int i = 0; i < kVector; ++i) values.at[i] *= scale;
    Store8<Format>(values, out, at, params.cols);
  }
}

using Kernel = void (*)(EmbedParams);

template <typename Format>
Kernel KernelOf(DType table) {
  switch (table) {
    case DType::kF32:
      return EmbedKernel<F32, Format>;
    case DType::kF16:
      return EmbedKernel<F16, Format>;
    case DType::kBF16:
      return EmbedKernel<Bf16, Format>;
    default:
      return nullptr;
  }
}

}  // namespace

cudaError_t LaunchEmbed(const EmbedLaunch& launch, cudaStream_t stream) {
  const bool is_bf16 = launch.out.dtype == DType::kBF16;
  MILLRACE_CHECK(is_bf16 || launch.out.dtype == DType::kF16, "activations are BF16 or F16");
  const Kernel kernel = is_bf16 ? KernelOf<Bf16>(launch.table.dtype) : KernelOf<F16>(launch.table.dtype);
  MILLRACE_CHECK(kernel != nullptr, "an embedding table is F32, F16 or BF16");
  if (launch.out.rows == 0) return cudaSuccess;
  const EmbedParams params = {launch.table.data,
                              launch.table.rows,
                              launch.table.stride,
                              launch.table.cols,
                              launch.tokens,
                              launch.drawn,
                              static_cast<uint16_t*>(launch.out.data),
                              launch.out.stride,
                              launch.scale,
                              launch.first_token,
                              launch.whole_tokens > 0 ? launch.whole_tokens : static_cast<int32_t>(launch.table.rows)};
  return Launch(kernel,
                {.grid = dim3(static_cast<unsigned>(launch.out.rows)),
                 .block = dim3(static_cast<unsigned>(RowThreads(launch.table.cols))),
                 .stream = stream,
                 .is_dependent = launch.is_dependent},
                params);
}

}  // namespace millrace::cuda
