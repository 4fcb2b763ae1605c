// SPDX-License-Identifier: Apache-2.0
#pragma once
// Reductions over a warp and over a block, in an order that depends on the block's size alone. Device code.
#include <cuda_runtime.h>

#include <cstdint>

namespace millrace::cuda {

constexpr int kWarpSize = 32;
constexpr unsigned kAllLanes = 0xffffffffu;

struct Add {
  template <typename T>
  __device__ T operator()(T a, T b) const {
    return a + b;
  }
};
struct Larger {
  template <typename T>
  __device__ T operator()(T a, T b) const {
    return a > b ? a : b;
  }
};

// The value of all 32 lanes in every lane.
template <typename T, typename Op>
__device__ inline T WarpReduce(T value, Op op) {
#pragma unroll
  for (int step = kWarpSize / 2; step > 0; step /= 2) value = op(value, __shfl_xor_sync(kAllLanes, value, step));
  return value;
}

// The value of all threads in every thread. REQUIRES: whole warps, all threads call; `scratch` is 32 T of shared
// memory.
template <typename T, typename Op>
__device__ inline T BlockReduce(T value, Op op, T* scratch) {
  const int warp = static_cast<int>(threadIdx.x) / kWarpSize, lane = static_cast<int>(threadIdx.x) % kWarpSize;
  const int num_warps = static_cast<int>(blockDim.x) / kWarpSize;
  value = WarpReduce(value, op);
  if (num_warps == 1) return value;
  __syncthreads();  // scratch may still be read from an earlier call
  if (lane == 0) scratch[warp] = value;
  __syncthreads();  // every warp's value is there
  value = scratch[0];
  for (int i = 1; i < num_warps; ++i) value = op(value, scratch[i]);
  return value;
}

// Sum of the values of the threads before this one; `total` is that of all. REQUIRES: as BlockReduce.
template <typename T>
__device__ inline T BlockSumBefore(T value, T* scratch, T& total) {
  const int warp = static_cast<int>(threadIdx.x) / kWarpSize, lane = static_cast<int>(threadIdx.x) % kWarpSize;
  const int num_warps = static_cast<int>(blockDim.x) / kWarpSize;
  T sum = value;
#pragma unroll
  for (int step = 1; step < kWarpSize; step *= 2) {
    const T before = __shfl_up_sync(kAllLanes, sum, step);
    if (lane >= step) sum += before;
  }
  __syncthreads();  // scratch may still be read from an earlier call
  if (lane == kWarpSize - 1) scratch[warp] = sum;
  __syncthreads();  // every warp's sum is there
  T before = sum - value;
  total = 0;
  for (int i = 0; i < num_warps; ++i) {
    if (i == warp) before += total;
    total += scratch[i];
  }
  return before;
}

}  // namespace millrace::cuda
