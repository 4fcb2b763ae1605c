// SPDX-License-Identifier: Apache-2.0
// The plain matmul: out[m, n] = sum over k of x[m, k] * w[n, k], any format, any shape, any alignment.
//
//   layout  one thread an output; 32 channels x 8 rows a block; weights as matmul_pack.h lays them out
//   sums    int8 with a scale per channel: exact in int32; else float32 in rising k, a group's scale applied to its sum
//   limit   latency; it is the twin the fast kernels are tested against and the fallback for what they do not take
#include <cuda_runtime.h>

#include <cstdint>

#include "kernels/cuda/common/launch.h"
#include "kernels/cuda/common/ptx.h"
#include "kernels/cuda/matmul_kernels.h"
#include "kernels/cuda/matmul_plain_sum.h"

namespace millrace::cuda {
namespace {

constexpr int kBlockChannels = 32;
constexpr int kBlockRows = 8;

__global__ void __launch_bounds__(kBlockChannels* kBlockRows) PlainMatmul(const MatmulTask task) {
  ptx::GridDependencyWait();
  ptx::GridDependencyLaunch();
  const int64_t channel = static_cast<int64_t>(blockIdx.x) * kBlockChannels + threadIdx.x;
  const int row = static_cast<int>(blockIdx.y * kBlockRows + threadIdx.y);
  if (row < task.num_rows && channel < task.w.n) {
    const char* x = static_cast<const char*>(task.x) + row * task.x_stride_bytes;
    StoreOutput(task.epilogue, row, channel, PlainSum(task, x, channel));
  }
}

}  // namespace

cudaError_t LaunchPlainMatmul(const MatmulTask& task, cudaStream_t stream) {
  const auto channel_blocks = static_cast<unsigned>((task.w.n + kBlockChannels - 1) / kBlockChannels);
  const auto row_blocks = static_cast<unsigned>((task.num_rows + kBlockRows - 1) / kBlockRows);
  return Launch(PlainMatmul,
                {.grid = dim3(channel_blocks, row_blocks),
                 .block = dim3(kBlockChannels, kBlockRows),
                 .stream = stream,
                 .is_dependent = task.is_dependent},
                task);
}

}  // namespace millrace::cuda
