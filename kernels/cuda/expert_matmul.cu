// SPDX-License-Identifier: Apache-2.0
// Host side of the matmul over experts: checks a launch and chooses the kernel and the rows of a pass.
#include <algorithm>
#include <bit>
#include <cstdint>

#include "kernels/cuda/expert_matmul_kernels.h"

namespace millrace::cuda {
namespace {

constexpr int64_t kAlignBytes = 16;
constexpr int kMinPassRows = 8;
// More blocks than fit at once would only wait.
constexpr int kBlocksAProcessor = 2;

bool IsInt8PerChannel(const WeightOnDevice& w) { return w.format == WeightFormat::kInt8 && w.group_size == 0; }

bool IsPossible(const ExpertMatmulLaunch& launch) {
  const ExpertRoutes& routes = launch.routes;
  const bool has_x = IsInt8PerChannel(launch.w) ? launch.x_quantized.values != nullptr : launch.x.data != nullptr;
  const bool has_experts = launch.experts != nullptr && routes.starts != nullptr && routes.num_experts >= 1 &&
                           routes.num_experts <= kMaxExperts && routes.num_choices >= 1;
  const bool has_16_bits = launch.x.dtype == DType::kBF16 || launch.x.dtype == DType::kF16;
  const bool are_alike = launch.out.dtype == launch.x.dtype &&
                         (launch.w.format != WeightFormat::kDense || launch.w.dtype == launch.x.dtype);
  return has_x && has_experts && has_16_bits && are_alike && launch.num_multiprocessors >= 1 && launch.out.rows >= 1 &&
         launch.out.cols == launch.w.n && launch.out.data != nullptr;
}

// Twice what an expert has on average, so that most need one pass; no expert has a row twice.
int RowsPerPass(const ExpertMatmulLaunch& launch) {
  const int64_t num_choices = launch.out.rows, num_rows = num_choices / launch.routes.num_choices;
  const int64_t average = (num_choices + launch.routes.num_experts - 1) / launch.routes.num_experts;
  const int64_t wanted = std::clamp<int64_t>(std::min(num_rows, 2 * average), kMinPassRows, kSkinnyRows);
  return static_cast<int>(std::bit_ceil(static_cast<uint64_t>(wanted)));
}

ExpertMatmulTask TaskOf(const ExpertMatmulLaunch& launch) {
  ExpertMatmulTask task;
  task.experts = launch.experts;
  task.starts = launch.routes.starts;
  task.num_experts = launch.routes.num_experts;
  MatmulTask& all = task.all;
  all.w = launch.w;
  all.num_rows = static_cast<int>(launch.out.rows);
  all.x = launch.x.data;
  all.x_dtype = launch.x.dtype;
  all.x_stride_bytes = launch.x.stride * static_cast<int64_t>(DTypeBytes(launch.x.dtype));
  if (IsInt8PerChannel(launch.w)) {
    all.x = launch.x_quantized.values;
    all.x_dtype = DType::kI8;
    all.x_stride_bytes = launch.x_quantized.stride;
    all.epilogue.row_scales = launch.x_quantized.scales;
  }
  all.epilogue.out = launch.out.data;
  all.epilogue.out_stride = launch.out.stride;
  all.epilogue.out_dtype = launch.out.dtype;
  all.is_dependent = launch.is_dependent;
  all.rows_per_pass = RowsPerPass(launch);
  all.num_blocks = kBlocksAProcessor * launch.num_multiprocessors;
  // Whole passes of all rows, and one more for every expert whose last is short.
  task.max_passes = all.num_rows / all.rows_per_pass + std::min(all.num_rows, task.num_experts);
  return task;
}

bool IsSkinny(const MatmulTask& all) {
  const int64_t item_bytes = static_cast<int64_t>(DTypeBytes(all.x_dtype));
  return reinterpret_cast<uintptr_t>(all.x) % kAlignBytes == 0 && all.x_stride_bytes % kAlignBytes == 0 &&
         all.w.k * item_bytes % kAlignBytes == 0;
}

}  // namespace

cudaError_t LaunchExpertMatmul(const ExpertMatmulLaunch& launch, cudaStream_t stream) {
  if (!IsPossible(launch)) return cudaErrorInvalidValue;
  const ExpertMatmulTask task = TaskOf(launch);
  return IsSkinny(task.all) ? LaunchSkinnyExpertMatmul(task, stream) : LaunchPlainExpertMatmul(task, stream);
}

}  // namespace millrace::cuda
