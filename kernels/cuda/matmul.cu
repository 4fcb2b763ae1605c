// SPDX-License-Identifier: Apache-2.0
// Host side of the matmul: checks a launch, asks the plan, and starts what it chose. The workspace is
//   [counters, zeros between launches][partial sums][quantised activations, or expanded weights]
#include <algorithm>
#include <cstdint>

#include "kernels/cuda/matmul.h"
#include "kernels/cuda/matmul_kernels.h"
#include "kernels/cuda/matmul_plan.h"
#include "kernels/cuda/quantize_rows.h"

namespace millrace::cuda {
namespace {

constexpr size_t kCounterBytes = 16 * 1024;
constexpr size_t kPartialBytes = size_t{48} << 20;
constexpr size_t kExpandBytes = size_t{64} << 20;  // a large matrix is expanded in parts of this size
constexpr int64_t kAlignBytes = 16;

int64_t RoundUp(int64_t a, int64_t b) { return (a + b - 1) / b * b; }

bool IsAligned(const void* data, int64_t stride_bytes) {
  return reinterpret_cast<uintptr_t>(data) % kAlignBytes == 0 && stride_bytes % kAlignBytes == 0;
}

bool IsActivation(DType dtype) { return dtype == DType::kBF16 || dtype == DType::kF16; }

bool IsInt8PerChannel(const WeightOnDevice& w) { return w.format == WeightFormat::kInt8 && w.group_size == 0; }

MatmulEpilogue EpilogueOf(const MatmulLaunch& launch) {
  MatmulEpilogue epilogue = {.bias = launch.bias,
                             .residual = launch.residual,
                             .out = launch.out.data,
                             .out_stride = launch.out.stride,
                             .out_dtype = launch.out.dtype};
  const uintptr_t pair_bytes = 2 * DTypeBytes(launch.out.dtype);
  epilogue.is_paired = launch.out.stride % 2 == 0 && reinterpret_cast<uintptr_t>(launch.out.data) % pair_bytes == 0 &&
                       reinterpret_cast<uintptr_t>(launch.residual) % pair_bytes == 0;
  return epilogue;
}

char* Scratch(const MatmulLaunch& launch) {
  return static_cast<char*>(launch.workspace) + kCounterBytes + kPartialBytes;
}

// x in int8, made here unless it was given.
cudaError_t QuantizedX(const MatmulLaunch& launch, QuantizedRows& rows, cudaStream_t stream) {
  rows = launch.x_quantized;
  if (rows.values != nullptr) return cudaSuccess;
  rows.stride = RoundUp(launch.w.k, kAlignBytes);
  rows.values = reinterpret_cast<int8_t*>(Scratch(launch));
  rows.scales = reinterpret_cast<float*>(rows.values + launch.out.rows * rows.stride);
  return LaunchQuantizeRows({.x = launch.x, .out = rows, .is_dependent = launch.is_dependent}, stream);
}

// All of a task but the plan.
cudaError_t MakeTask(const MatmulLaunch& launch, cudaStream_t stream, MatmulTask& task) {
  task.w = launch.w;
  task.num_rows = static_cast<int>(launch.out.rows);
  task.epilogue = EpilogueOf(launch);
  task.counters = static_cast<int32_t*>(launch.workspace);
  task.partials = static_cast<char*>(launch.workspace) + kCounterBytes;
  task.is_dependent = launch.is_dependent;
  if (IsInt8PerChannel(launch.w)) {
    QuantizedRows rows;
    const cudaError_t error = QuantizedX(launch, rows, stream);
    if (error != cudaSuccess) return error;
    task.x = rows.values;
    task.x_dtype = DType::kI8;
    task.x_stride_bytes = rows.stride;
    task.epilogue.row_scales = rows.scales;
    task.epilogue.channel_scales = static_cast<const float*>(launch.w.scales);
    return cudaSuccess;
  }
  task.x = launch.x.data;
  task.x_dtype = launch.x.dtype;
  task.x_stride_bytes = launch.x.stride * static_cast<int64_t>(DTypeBytes(launch.x.dtype));
  return cudaSuccess;
}

void Apply(const MatmulCandidate& plan, MatmulTask& task) {
  task.rows_per_pass = plan.rows_per_pass;
  task.num_blocks = plan.num_blocks;
  task.num_split_blocks = plan.num_split_blocks;
  task.block_channels = plan.block_channels;
  task.cluster = plan.cluster;
}

// `num_channels` of the task's outputs, from `first` on.
MatmulEpilogue EpilogueFrom(const MatmulEpilogue& whole, int64_t first) {
  MatmulEpilogue part = whole;
  const int64_t offset_bytes = first * static_cast<int64_t>(DTypeBytes(whole.out_dtype));
  part.out = static_cast<char*>(whole.out) + offset_bytes;
  if (whole.residual != nullptr) part.residual = static_cast<const char*>(whole.residual) + offset_bytes;
  if (whole.bias != nullptr) part.bias += first;
  return part;
}

// Expands as many channels as the scratch holds and multiplies with them, part by part.
cudaError_t LaunchExpandedMatmul(const MatmulLaunch& launch, const MatmulTask& task, const MatmulProblem& problem,
                                 cudaStream_t stream) {
  const int64_t part = ExpandedChannels(launch.w, problem.scratch_bytes);
  const int64_t stride = RoundUp(launch.w.k, kAlignBytes / 2);
  for (int64_t first = 0; first < launch.w.n; first += part) {
    const int64_t num_channels = std::min(part, launch.w.n - first);
    const Matrix dense = {
        .data = Scratch(launch), .dtype = launch.x.dtype, .rows = num_channels, .cols = launch.w.k, .stride = stride};
    const cudaError_t error = LaunchExpandWeight({.w = launch.w,
                                                  .first_channel = first,
                                                  .num_channels = num_channels,
                                                  .out = dense,
                                                  .is_dependent = launch.is_dependent && first == 0},
                                                 stream);
    if (error != cudaSuccess) return error;
    MatmulTask dense_task = task;
    dense_task.w = {.dtype = dense.dtype, .n = num_channels, .k = launch.w.k, .stride = stride, .values = dense.data};
    dense_task.epilogue = EpilogueFrom(task.epilogue, first);
    dense_task.is_dependent = false;  // its weights are the kernel before
    MatmulProblem dense_problem = problem;
    dense_problem.w = dense_task.w;
    const MatmulCandidate plan = MatmulCandidates(dense_problem)[static_cast<size_t>(MatmulKernel::kTile)];
    if (plan.skip_reason != nullptr) return cudaErrorInvalidValue;
    Apply(plan, dense_task);
    const cudaError_t tile_error = LaunchTileMatmul(dense_task, stream);
    if (tile_error != cudaSuccess) return tile_error;
  }
  return cudaSuccess;
}

cudaError_t CheckLaunch(const MatmulLaunch& launch) {
  const bool has_x = IsActivation(launch.x.dtype) &&
                     (launch.x.data != nullptr || (IsInt8PerChannel(launch.w) && launch.x_quantized.values != nullptr));
  const bool has_out = IsActivation(launch.out.dtype) || launch.out.dtype == DType::kF32;
  const bool has_workspace = launch.workspace != nullptr && launch.workspace_bytes > kCounterBytes + kPartialBytes;
  if (!has_x || !has_out || !has_workspace || launch.num_multiprocessors < 1) return cudaErrorInvalidValue;
  if (launch.out.rows < 1 || launch.out.cols != launch.w.n) return cudaErrorInvalidValue;
  if (launch.w.k > kMaxMatmulInputs) return cudaErrorInvalidValue;
  return cudaSuccess;
}

}  // namespace

size_t MatmulWorkspaceBytes(int64_t max_rows, int64_t max_n, int64_t max_k) {
  const int64_t quantized_bytes = max_rows * (RoundUp(max_k, kAlignBytes) + static_cast<int64_t>(sizeof(float)));
  const int64_t row_bytes = 2 * RoundUp(max_k, kAlignBytes);
  const int64_t whole_bytes = RoundUp(max_n, kTileChannelsWide) * row_bytes;
  const int64_t expand_bytes =
      std::max(std::min(whole_bytes, static_cast<int64_t>(kExpandBytes)), kTileChannelsWide * row_bytes);
  return kCounterBytes + kPartialBytes + static_cast<size_t>(std::max(quantized_bytes, expand_bytes));
}

MatmulProblem DescribeMatmul(const MatmulLaunch& launch) {
  MatmulProblem problem = {.num_rows = launch.out.rows,
                           .w = launch.w,
                           .x_dtype = launch.x.dtype,
                           .num_multiprocessors = launch.num_multiprocessors,
                           .has_warpgroups = launch.has_warpgroups,
                           .partial_bytes = kPartialBytes,
                           .scratch_bytes = launch.workspace_bytes - kCounterBytes - kPartialBytes,
                           .resident_clusters = launch.resident_clusters};
  if (IsInt8PerChannel(launch.w)) {
    problem.x_dtype = DType::kI8;
    problem.is_aligned = IsAligned(launch.x_quantized.values, launch.x_quantized.stride);  // or made so
  } else {
    problem.is_aligned = IsAligned(launch.x.data, launch.x.stride * static_cast<int64_t>(DTypeBytes(launch.x.dtype)));
  }
  return problem;
}

cudaError_t LaunchMatmul(const MatmulLaunch& launch, cudaStream_t stream) {
  cudaError_t error = CheckLaunch(launch);
  MatmulTask task;
  if (error == cudaSuccess) error = MakeTask(launch, stream, task);
  if (error != cudaSuccess) return error;
  const MatmulProblem problem = DescribeMatmul(launch);
  const MatmulCandidate plan =
      launch.kernel ? MatmulCandidates(problem)[static_cast<size_t>(*launch.kernel)] : PlanMatmul(problem);
  if (plan.skip_reason != nullptr) return cudaErrorInvalidValue;
  Apply(plan, task);
  switch (plan.kernel) {
    case MatmulKernel::kPlain:
      return LaunchPlainMatmul(task, stream);
    case MatmulKernel::kGemv:
      return LaunchGemvMatmul(task, stream);
    case MatmulKernel::kSkinny:
      return LaunchSkinnyMatmul(task, stream);
    case MatmulKernel::kTile:
      return LaunchTileMatmul(task, stream);
    case MatmulKernel::kWarpgroup:
      return LaunchWarpgroupMatmul(task, stream);
    case MatmulKernel::kExpandTile:
      return LaunchExpandedMatmul(launch, task, problem, stream);
  }
  return cudaErrorInvalidValue;
}

}  // namespace millrace::cuda
