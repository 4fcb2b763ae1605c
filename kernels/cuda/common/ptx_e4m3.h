// SPDX-License-Identifier: Apache-2.0
#pragma once
// The 8-bit float conversions of ptx.h, which is what to include: instructions from sm_89 on, the same values by
// arithmetic before.
#include <cstdint>

namespace millrace::cuda::ptx {

// Two e4m3 (the low byte first) as half2: exact.
__device__ __forceinline__ uint32_t E4m3x2ToHalf2(uint16_t x) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 890
  uint32_t y;
  asm("cvt.rn.f16x2.e4m3x2 %0, %1;" : "=r"(y) : "h"(x));
  return y;
#else
  // Exponent and mantissa in place, as a half with a bias of 15 instead of 7: times 2^8 is the value, subnormals too.
  const uint32_t spread = (x & 0xffu) | (uint32_t{x} & 0xff00u) << 8;
  const uint32_t bits = (spread & 0x00800080u) << 8 | (spread & 0x007f007fu) << 7;
  uint32_t y;
  asm("mul.f16x2 %0, %1, %2;" : "=r"(y) : "r"(bits), "r"(0x5c005c00u));
  if ((x & 0x7fu) == 0x7fu) y |= 0x7fffu;
  if ((x & 0x7f00u) == 0x7f00u) y |= 0x7fff0000u;
  return y;
#endif
}

__device__ __forceinline__ uint32_t FloatToE4m3(float x) {
  const uint32_t sign = __float_as_uint(x) >> 24 & 0x80u;
  const float magnitude = fabsf(x);
  if (!(magnitude <= 448.0f)) return magnitude > 448.0f ? sign | 0x7eu : 0x7fu;
  if (magnitude < 0.015625f) return sign | static_cast<uint32_t>(__float2int_rn(magnitude * 512.0f));  // subnormal
  uint32_t bits = __float_as_uint(magnitude);
  bits += 0x7ffffu + (bits >> 20 & 1u);  // to the nearest, ties to even
  return sign | ((bits >> 20) - (120u << 3));
}

// Nearest, ties to even; beyond the range the largest finite value; NaN stays NaN. lo is the low byte.
__device__ __forceinline__ uint16_t FloatsToE4m3x2(float lo, float hi) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 890
  uint16_t y;
  asm("cvt.rn.satfinite.e4m3x2.f32 %0, %1, %2;" : "=h"(y) : "f"(hi), "f"(lo));
  return y;
#else
  return static_cast<uint16_t>(FloatToE4m3(hi) << 8 | FloatToE4m3(lo));
#endif
}

}  // namespace millrace::cuda::ptx
