// SPDX-License-Identifier: Apache-2.0
#pragma once
// Out of nibbles that lie as mma.sync wants them, operands of wgmma: pieces change hands, and scales are applied.
// Internal to matmul_warpgroup*.
#include <cuda_bf16.h>
#include <cuda_runtime.h>

#include <cstdint>

#include "kernels/cuda/common/ptx.h"
#include "kernels/cuda/matmul_device.h"

namespace millrace::cuda {

// w = q * scale in bfloat16, rounded once, for integers up to 16. A scale has 11 bits, a bfloat16 8: what `high` leaves
// over goes into `rest`, whose products with q are exact.
struct PairScale {
  uint32_t high = 0;
  uint32_t rest = 0;
  __device__ void Set(float scale) {
    high = Bf16Math::Pack(scale, scale);
    const float left = scale - Bf16Math::Unpack(high).x;
    rest = Bf16Math::Pack(left, left);
  }
  __device__ uint32_t Apply(uint32_t q) const {
    const auto pair = ToPair<__nv_bfloat162>(q);
    return FromPair(__hfma2(pair, ToPair<__nv_bfloat162>(high), __hmul2(pair, ToPair<__nv_bfloat162>(rest))));
  }
};

// Lane t of four has cells 0 to 3 of piece t (of four along k), a cell two k of two channels in 16 bits: bytes 0, 2
// and bytes 1, 3 of `first`, then of `second`. It gets cell t of all pieces: those of 0 and 1, and of 2 and 3, in the
// same places as one word had two cells. Selectors of byte permutations, by the lane.
struct QuadExchange {
  uint32_t own, other, kept, sent;
  bool is_low;
  __device__ QuadExchange() {
    constexpr uint32_t kEven = 0x6240, kOdd = 0x7351, kEvenBehind = 0x2604, kOddBehind = 0x3715;
    const int t = static_cast<int>(threadIdx.x) % 4;
    own = t % 2 == 0 ? kEven : kOdd;
    other = t % 2 == 0 ? kOdd : kEven;
    is_low = t < 2;
    const uint32_t even = t % 2 == 0 ? kEven : kEvenBehind;
    const uint32_t odd = t % 2 == 0 ? kOdd : kOddBehind;
    kept = is_low ? even : odd;
    sent = is_low ? odd : even;
    for (uint32_t* const selector : {&own, &other, &kept, &sent}) *selector = ptx::Pin(*selector);
  }
  __device__ uint2 SpreadAlongK(uint32_t first, uint32_t second) const {
    const uint32_t mine = ptx::Prmt(first, second, own);
    const uint32_t beside = __shfl_xor_sync(~0u, ptx::Prmt(first, second, other), 1);
    const uint32_t near = ptx::Prmt(mine, beside, kept);
    const uint32_t far = __shfl_xor_sync(~0u, ptx::Prmt(mine, beside, sent), 2);
    return is_low ? make_uint2(near, far) : make_uint2(far, near);
  }
};

}  // namespace millrace::cuda
