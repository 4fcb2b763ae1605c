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
#include "kernels/cuda/matmul_device.h"
#include "kernels/cuda/matmul_kernels.h"

namespace millrace::cuda {
namespace {

constexpr int kBlockChannels = 32;
constexpr int kBlockRows = 8;

// Where channel and group stand among grouped scales and zeros.
__device__ int64_t GroupIndex(const WeightOnDevice& w, int64_t channel, int64_t group) {
  const int64_t num_groups = w.k / w.group_size;
  return (channel / 16 * num_groups + group) * 16 + channel % 8 * 2 + channel % 16 / 8;
}

// The integer of a grouped weight, its zero point not subtracted.
__device__ int GroupedValue(const WeightOnDevice& w, int64_t channel, int64_t k) {
  if (w.format == WeightFormat::kInt8) {
    const int64_t unit = k % kTileInputs / 8;
    const int64_t byte = k / kTileInputs * kTileInputs + (unit % 4 * 2 + unit / 4) * 8 + k % 8;
    return static_cast<int>(static_cast<const uint8_t*>(w.values)[channel * w.stride + byte]) - 128;
  }
  const int64_t tile = channel / 16 * ((w.k + kTileInputs - 1) / kTileInputs) + k / kTileInputs;
  const int64_t lane = channel % 8 * 4 + k % 32 / 8;
  const int64_t word = k % kTileInputs / 32 * 2 + k % 8 / 4;
  const int nibble = static_cast<int>(k % 4 / 2 * 2 + channel % 16 / 8 + k % 2 * 4);
  return static_cast<int>(static_cast<const uint32_t*>(w.values)[(tile * 32 + lane) * 4 + word] >> (4 * nibble) & 15u);
}

__device__ float DenseSum(const MatmulTask& task, const void* x, int64_t channel) {
  float sum = 0;
  for (int64_t k = 0; k < task.w.k; ++k) {
    sum = fmaf(LoadAsFloat(x, task.x_dtype, k), LoadAsFloat(task.w.values, task.w.dtype, channel * task.w.stride + k),
               sum);
  }
  return sum;
}

__device__ float Int8Sum(const WeightOnDevice& w, const void* x, int64_t channel) {
  int32_t sum = 0;
  for (int64_t k = 0; k < w.k; ++k) {
    sum += static_cast<const int8_t*>(x)[k] * static_cast<const int8_t*>(w.values)[channel * w.stride + k];
  }
  return static_cast<float>(sum);
}

__device__ float GroupedSum(const MatmulTask& task, const void* x, int64_t channel) {
  const WeightOnDevice& w = task.w;
  float total = 0;
  for (int64_t group = 0; group < w.k / w.group_size; ++group) {
    const int64_t index = GroupIndex(w, channel, group);
    int zero = w.format == WeightFormat::kInt4 ? 8 : 0;
    if (w.has_zeros) zero = static_cast<const uint8_t*>(w.zeros)[index];
    float sum = 0;
    for (int64_t k = group * w.group_size; k < (group + 1) * w.group_size; ++k) {
      sum = fmaf(LoadAsFloat(x, task.x_dtype, k), static_cast<float>(GroupedValue(w, channel, k) - zero), sum);
    }
    total = fmaf(LoadAsFloat(w.scales, DType::kF16, index), sum, total);
  }
  return total * w.scale_unit;
}

__global__ void __launch_bounds__(kBlockChannels* kBlockRows) PlainMatmul(const MatmulTask task) {
  ptx::GridDependencyWait();
  const int64_t channel = static_cast<int64_t>(blockIdx.x) * kBlockChannels + threadIdx.x;
  const int row = static_cast<int>(blockIdx.y * kBlockRows + threadIdx.y);
  if (row < task.num_rows && channel < task.w.n) {
    const char* x = static_cast<const char*>(task.x) + row * task.x_stride_bytes;
    float sum = 0;
    if (task.w.format == WeightFormat::kDense) {
      sum = DenseSum(task, x, channel);
    } else {
      sum = task.w.group_size == 0 ? Int8Sum(task.w, x, channel) : GroupedSum(task, x, channel);
    }
    StoreOutput(task.epilogue, row, channel, sum);
  }
  ptx::GridDependencyLaunch();
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
