// SPDX-License-Identifier: Apache-2.0
// The warp's collectives against their definitions, in several orders of threads, and the arithmetic of 16-bit floats.
#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <catch2/catch.hpp>
#include <cmath>
#include <cstdint>
#include <vector>

#include "kernels/cuda/common/launch.h"

namespace millrace::cuda {
namespace {

constexpr int kNumResults = 14;

__global__ void AllCollectives(int* out) {
  const int lane = threadIdx.x % 32, value = lane * 3 + threadIdx.x / 32;
  int* mine = out + kNumResults * threadIdx.x;
  mine[0] = __shfl_sync(0xffffffffu, value, 5);
  mine[1] = __shfl_sync(0xffffffffu, value, lane + 1, 8);
  mine[2] = __shfl_up_sync(0xffffffffu, value, 2);
  mine[3] = __shfl_down_sync(0xffffffffu, value, 3, 16);
  mine[4] = __shfl_xor_sync(0xffffffffu, value, 17);
  mine[5] = static_cast<int>(__ballot_sync(0xffffffffu, lane % 3 == 0));
  mine[6] = __any_sync(0xffffffffu, lane == 9) + 2 * __any_sync(0xffffffffu, 0);
  mine[7] = __all_sync(0xffffffffu, 1) + 2 * __all_sync(0xffffffffu, lane != 9);
  mine[8] = __reduce_add_sync(0xffffffffu, value);
  mine[9] = __reduce_max_sync(0xffffffffu, -value);
  mine[10] = static_cast<int>(__match_any_sync(0xffffffffu, lane / 4));
  mine[11] = __syncthreads_count(threadIdx.x % 5 == 0);
  mine[12] = __syncthreads_or(threadIdx.x == 63);
  mine[13] = lane < 16 ? __shfl_xor_sync(0xffffu, value, 1) : __shfl_xor_sync(0xffff0000u, value, 2);
}

TEST_CASE("simt: shuffles, votes and reductions are what CUDA says they are") {
  int* out;
  REQUIRE(cudaMalloc(&out, 64 * kNumResults * sizeof(int)) == cudaSuccess);
  for (int seed = 0; seed < 5; ++seed) {
    simt::SetSeed(seed);
    REQUIRE(Launch(AllCollectives, {.grid = dim3(1), .block = dim3(64)}, out) == cudaSuccess);
    for (int thread = 0; thread < 64; ++thread) {
      const int lane = thread % 32, warp = thread / 32;
      const auto value = [&](int of) { return of * 3 + warp; };
      const int want[kNumResults] = {value(5),
                                     value(lane / 8 * 8 + (lane + 1) % 8),
                                     value(lane < 2 ? lane : lane - 2),
                                     value(lane % 16 < 13 ? lane + 3 : lane),
                                     value(lane ^ 17),
                                     0x49249249,
                                     1,
                                     1,
                                     31 * 16 * 3 + 32 * warp,
                                     -warp,
                                     static_cast<int>(0xfu << lane / 4 * 4),
                                     13,
                                     1,
                                     value(lane < 16 ? lane ^ 1 : lane ^ 2)};
      for (int i = 0; i < kNumResults; ++i) {
        INFO("seed " << seed << " thread " << thread << " result " << i);
        CHECK(out[kNumResults * thread + i] == want[i]);
      }
    }
  }
  simt::SetSeed(0);
  cudaFree(out);
}

__global__ void CountArrivals(unsigned int* counter, int* last, int* order) {
  if (threadIdx.x != 0) return;
  const unsigned int ticket = atomicInc(counter, gridDim.x - 1);
  order[ticket] = static_cast<int>(blockIdx.x);
  if (ticket == gridDim.x - 1) *last = static_cast<int>(blockIdx.x);
}

TEST_CASE("simt: the last block to arrive is any of them, by the seed, and the counter is as before") {
  constexpr int kNumBlocks = 16;
  unsigned int* counter;
  int *last, *order;
  REQUIRE(cudaMalloc(&counter, sizeof(*counter)) == cudaSuccess);
  REQUIRE(cudaMalloc(&last, sizeof(*last)) == cudaSuccess);
  REQUIRE(cudaMalloc(&order, kNumBlocks * sizeof(*order)) == cudaSuccess);
  *counter = 0;
  uint32_t seen = 0;
  for (int seed = 0; seed < 8; ++seed) {
    simt::SetSeed(seed);
    REQUIRE(Launch(CountArrivals, {.grid = dim3(kNumBlocks), .block = dim3(32)}, counter, last, order) == cudaSuccess);
    CHECK(*counter == 0);
    CHECK(order[kNumBlocks - 1] == *last);
    seen |= 1u << *last;
  }
  simt::SetSeed(0);
  CHECK(__builtin_popcount(seen) > 2);
  cudaFree(counter);
  cudaFree(last);
  cudaFree(order);
}

TEST_CASE("simt: every half and bf16 widens and rounds back to itself, as the compiler's own half does") {
  for (uint32_t bits = 0; bits < 0x10000; ++bits) {
    const __half half = __ushort_as_half(static_cast<unsigned short>(bits));
    const __nv_bfloat16 bf16 = __ushort_as_bfloat16(static_cast<unsigned short>(bits));
    if (!std::isnan(__half2float(half))) {
      REQUIRE(__half2float(half) == static_cast<float>(__builtin_bit_cast(_Float16, half.bits)));
      REQUIRE(__half_as_ushort(__float2half_rn(__half2float(half))) == bits);
    }
    if (!std::isnan(__bfloat162float(bf16))) {
      REQUIRE(__bfloat16_as_ushort(__float2bfloat16_rn(__bfloat162float(bf16))) == bits);
    }
  }
}

TEST_CASE("simt: arithmetic of 16-bit floats rounds once, to the nearest even") {
  uint32_t random = 1;
  for (int i = 0; i < 100000; ++i) {
    random = random * 1664525u + 1013904223u;
    const auto bits_a = static_cast<unsigned short>(random >> 16);
    random = random * 1664525u + 1013904223u;
    const auto bits_b = static_cast<unsigned short>(random >> 16);
    const _Float16 a = __builtin_bit_cast(_Float16, bits_a), b = __builtin_bit_cast(_Float16, bits_b);
    const _Float16 sum = a + b, product = a * b;
    if (std::isnan(static_cast<float>(sum)) || std::isnan(static_cast<float>(product))) continue;
    REQUIRE(__hadd(__ushort_as_half(bits_a), __ushort_as_half(bits_b)).bits == __builtin_bit_cast(unsigned short, sum));
    REQUIRE(__hmul(__ushort_as_half(bits_a), __ushort_as_half(bits_b)).bits ==
            __builtin_bit_cast(unsigned short, product));
  }
  // Rounded to float first, 1 + 2^-8 + 2^-40 would be a tie and go down.
  const __nv_bfloat16 one = 1.0f, tie = 0x1p-8f, little = 0x1p-20f;
  CHECK(__bfloat162float(__hfma(little, little, __float2bfloat16(1.0f))) == 1.0f);
  CHECK(simt::RoundTo16<simt::Bf16Format>(1.0 + 0x1p-8 + 0x1p-40) == 0x3f81);
  CHECK(__bfloat162float(__hadd(one, tie)) == 1.0f);
}

}  // namespace
}  // namespace millrace::cuda
