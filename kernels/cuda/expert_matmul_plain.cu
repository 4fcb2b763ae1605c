// SPDX-License-Identifier: Apache-2.0
// The plain matmul over experts: out[r, n] = sum over k of x[r, k] * w_e[n, k] for row r of expert e, any format, any
// shape, any alignment. One thread an output, 32 channels x 8 rows a block. sm_80 and up; limited by latency: it is the
// twin the fast kernels are tested against and the fallback for what they do not take.
#include "kernels/cuda/common/launch.h"
#include "kernels/cuda/common/ptx.h"
#include "kernels/cuda/expert_matmul_kernels.h"
#include "kernels/cuda/matmul_plain_sum.h"

namespace millrace::cuda {
namespace {

constexpr int kBlockChannels = 32;
constexpr int kBlockRows = 8;

__global__ void __launch_bounds__(kBlockChannels* kBlockRows) PlainExpertMatmul(const ExpertMatmulTask task) {
  ptx::GridDependencyWait();
  ptx::GridDependencyLaunch();
  const int64_t channel = static_cast<int64_t>(blockIdx.x) * kBlockChannels + threadIdx.x;
  const int row = static_cast<int>(blockIdx.y * kBlockRows + threadIdx.y);
  if (row < task.all.num_rows && channel < task.all.w.n) {
    MatmulTask own = task.all;
    SetExpert(task.experts[FindExpert(task.starts, task.num_experts, row)], own);
    const char* x = static_cast<const char*>(own.x) + row * own.x_stride_bytes;
    StoreOutput(own.epilogue, row, channel, PlainSum(own, x, channel));
  }
}

}  // namespace

cudaError_t LaunchPlainExpertMatmul(const ExpertMatmulTask& task, cudaStream_t stream) {
  const auto channel_blocks = static_cast<unsigned>((task.all.w.n + kBlockChannels - 1) / kBlockChannels);
  const auto row_blocks = static_cast<unsigned>((task.all.num_rows + kBlockRows - 1) / kBlockRows);
  return Launch(PlainExpertMatmul,
                {.grid = dim3(channel_blocks, row_blocks),
                 .block = dim3(kBlockChannels, kBlockRows),
                 .stream = stream,
                 .is_dependent = task.all.is_dependent},
                task);
}

}  // namespace millrace::cuda
