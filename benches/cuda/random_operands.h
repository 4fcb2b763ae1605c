// SPDX-License-Identifier: Apache-2.0
#pragma once
// Random operands on the device: on zeros a GPU draws less power, and runs faster than it does on anybody's weights.
#include <cuda_runtime.h>

#include <cstddef>
#include <cstdint>
#include <type_traits>

#include "benches/cuda/timing.h"
#include "kernels/cuda/common/launch.h"

namespace millrace::cuda_bench {

// Two numbers of bfloat16 between 1 and 2 in size, finite too as float and half; or, where sums are integers, any bits.
template <typename Sum>
__device__ uint32_t RandomOperand(uint32_t index) {
  uint32_t x = index * 2654435761u;
  x ^= x >> 15;
  x *= 2246822519u;
  x ^= x >> 13;
  return std::is_same_v<Sum, float> ? (x & 0x807f807fu) | 0x3f803f80u : x;
}

constexpr int kFillThreads = 256;

template <typename Sum>
__global__ void __launch_bounds__(kFillThreads) FillKernel(uint32_t* words, size_t count) {
  const size_t step = size_t{gridDim.x} * kFillThreads;
  for (size_t i = size_t{blockIdx.x} * kFillThreads + threadIdx.x; i < count; i += step) {
    words[i] = RandomOperand<Sum>(static_cast<uint32_t>(i));
  }
}

// Whole words of it.
template <typename Sum>
void FillRandom(void* memory, size_t num_bytes) {
  Require(cuda::Launch(FillKernel<Sum>, {.grid = dim3(1024), .block = dim3(kFillThreads)},
                       static_cast<uint32_t*>(memory), num_bytes / sizeof(uint32_t)),
          "filling");
}

}  // namespace millrace::cuda_bench
