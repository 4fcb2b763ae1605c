// SPDX-License-Identifier: Apache-2.0
// values = round(x * 127 / max|x|), one block a row; limited by memory.
#include "kernels/check.h"
#include "kernels/cuda/common/launch.h"
#include "kernels/cuda/common/ptx.h"
#include "kernels/cuda/quantize_rows.h"
#include "kernels/cuda/row_vectors.h"

namespace millrace::cuda {
namespace {

struct QuantizeRowsParams {
  const uint16_t* x;
  int64_t x_stride;
  int64_t cols;
  QuantizedRows out;
};

template <typename Format>
__global__ void __launch_bounds__(kMaxRowThreads) QuantizeRowsKernel(const QuantizeRowsParams params) {
  __shared__ uint32_t scratch[kWarpSize];
  const int64_t row = blockIdx.x;
  const uint16_t* x = params.x + row * params.x_stride;
  ptx::GridDependencyWait();
  ptx::GridDependencyLaunch();
  QuantizeRow([&](int64_t at) { return Load8<Format>(x, at, params.cols); }, params.cols,
              params.out.values + row * params.out.stride, params.out.scales + row, scratch);
}

}  // namespace

cudaError_t LaunchQuantizeRows(const QuantizeRowsLaunch& launch, cudaStream_t stream) {
  const bool is_bf16 = launch.x.dtype == DType::kBF16;
  MILLRACE_CHECK(is_bf16 || launch.x.dtype == DType::kF16, "activations are BF16 or F16");
  if (launch.x.rows == 0) return cudaSuccess;
  const QuantizeRowsParams params = {static_cast<const uint16_t*>(launch.x.data), launch.x.stride, launch.x.cols,
                                     launch.out};
  return Launch(is_bf16 ? QuantizeRowsKernel<Bf16> : QuantizeRowsKernel<F16>,
                {.grid = dim3(static_cast<unsigned>(launch.x.rows)),
                 .block = dim3(static_cast<unsigned>(RowThreads(launch.x.cols))),
                 .stream = stream,
                 .is_dependent = launch.is_dependent},
                params);
}

}  // namespace millrace::cuda
