// SPDX-License-Identifier: Apache-2.0
// out[r] = x[rows[r]], one block a row, 16 bytes at a time where both rows allow it; limited by memory.
#include "kernels/check.h"
#include "kernels/cuda/common/launch.h"
#include "kernels/cuda/common/ptx.h"
#include "kernels/cuda/gather_rows.h"
#include "kernels/cuda/row_vectors.h"

namespace millrace::cuda {
namespace {

constexpr int64_t kUnitBytes = 16;

struct GatherRowsParams {
  const uint8_t* x;
  int64_t x_rows;
  int64_t x_stride_bytes;
  const int32_t* rows;
  uint8_t* out;
  int64_t out_stride_bytes;
  int64_t row_bytes;
};

__global__ void __launch_bounds__(kMaxRowThreads) GatherRowsKernel(const GatherRowsParams params) {
  ptx::GridDependencyWait();
  ptx::GridDependencyLaunch();
  const int64_t from_row = params.rows[blockIdx.x];
  if (from_row >= 0 && from_row < params.x_rows) {
    const uint8_t* from = params.x + from_row * params.x_stride_bytes;
    uint8_t* to = params.out + static_cast<int64_t>(blockIdx.x) * params.out_stride_bytes;
    const bool has_units = IsAligned<kUnitBytes>(from) && IsAligned<kUnitBytes>(to);
    const int64_t num_units = has_units ? params.row_bytes / kUnitBytes : 0;
    for (int64_t i = threadIdx.x; i < num_units; i += blockDim.x) {
      reinterpret_cast<uint4*>(to)[i] = reinterpret_cast<const uint4*>(from)[i];
    }
    for (int64_t i = num_units * kUnitBytes + threadIdx.x; i < params.row_bytes; i += blockDim.x) to[i] = from[i];
  }
}

}  // namespace

cudaError_t LaunchGatherRows(const GatherRowsLaunch& launch, cudaStream_t stream) {
  MILLRACE_CHECK(launch.x.dtype == launch.out.dtype, "rows are copied as they are");
  if (launch.out.rows == 0) return cudaSuccess;
  const int64_t element_bytes = static_cast<int64_t>(DTypeBytes(launch.x.dtype));
  const GatherRowsParams params = {static_cast<const uint8_t*>(launch.x.data),
                                   launch.x.rows,
                                   launch.x.stride * element_bytes,
                                   launch.rows,
                                   static_cast<uint8_t*>(launch.out.data),
                                   launch.out.stride * element_bytes,
                                   launch.x.cols * element_bytes};
  return Launch(GatherRowsKernel,
                {.grid = dim3(static_cast<unsigned>(launch.out.rows)),
                 .block = dim3(static_cast<unsigned>(RowThreads(launch.x.cols))),
                 .stream = stream,
                 .is_dependent = launch.is_dependent},
                params);
}

}  // namespace millrace::cuda
