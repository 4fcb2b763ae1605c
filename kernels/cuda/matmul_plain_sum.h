// SPDX-License-Identifier: Apache-2.0
#pragma once
// One output of a matmul summed by one thread, any format, any shape, any alignment. int8 with a scale per channel:
// exact in int32; else float32 in rising k, a group's scale applied to its sum. Device code.
#include <cuda_runtime.h>

#include <cstdint>

#include "kernels/cuda/matmul_device.h"
#include "kernels/cuda/matmul_kernels.h"

namespace millrace::cuda {

// Where channel and group stand among grouped scales and zeros.
__device__ inline int64_t GroupIndex(const WeightOnDevice& w, int64_t channel, int64_t group) {
  const int64_t num_groups = w.k / w.group_size;
  return (channel / 16 * num_groups + group) * 16 + channel % 8 * 2 + channel % 16 / 8;
}

// The integer of a grouped weight, its zero point not subtracted.
__device__ inline int GroupedValue(const WeightOnDevice& w, int64_t channel, int64_t k) {
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

__device__ inline float DenseSum(const MatmulTask& task, const void* x, int64_t channel) {
  float sum = 0;
  for (int64_t k = 0; k < task.w.k; ++k) {
    sum = fmaf(LoadAsFloat(x, task.x_dtype, k), LoadAsFloat(task.w.values, task.w.dtype, channel * task.w.stride + k),
               sum);
  }
  return sum;
}

__device__ inline float Int8Sum(const WeightOnDevice& w, const void* x, int64_t channel) {
  int32_t sum = 0;
  for (int64_t k = 0; k < w.k; ++k) {
    sum += static_cast<const int8_t*>(x)[k] * static_cast<const int8_t*>(w.values)[channel * w.stride + k];
  }
  return static_cast<float>(sum);
}

__device__ inline float GroupedSum(const MatmulTask& task, const void* x, int64_t channel) {
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

// The sum of one output, whatever the format; x: the row.
__device__ inline float PlainSum(const MatmulTask& task, const void* x, int64_t channel) {
  if (task.w.format == WeightFormat::kDense) return DenseSum(task, x, channel);
  return task.w.group_size == 0 ? Int8Sum(task.w, x, channel) : GroupedSum(task, x, channel);
}

}  // namespace millrace::cuda
