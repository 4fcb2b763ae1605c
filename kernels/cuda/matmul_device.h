// SPDX-License-Identifier: Apache-2.0
#pragma once
// Device code the matmul kernels share: the epilogue of one output, and the sum over slices of K.
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include <cstdint>
#include <cstring>

#include "kernels/cuda/common/ptx.h"
#include "kernels/cuda/matmul_kernels.h"

namespace millrace::cuda {

__device__ inline float LoadAsFloat(const void* data, DType dtype, int64_t index) {
  switch (dtype) {
    case DType::kBF16:
      return __bfloat162float(static_cast<const __nv_bfloat16*>(data)[index]);
    case DType::kF16:
      return __half2float(static_cast<const __half*>(data)[index]);
    default:
      return static_cast<const float*>(data)[index];
  }
}

__device__ inline void StoreFloat(void* data, DType dtype, int64_t index, float value) {
  switch (dtype) {
    case DType::kBF16:
      static_cast<__nv_bfloat16*>(data)[index] = __float2bfloat16(value);
      return;
    case DType::kF16:
      static_cast<__half*>(data)[index] = __float2half(value);
      return;
    default:
      static_cast<float*>(data)[index] = value;
  }
}

// Scales, bias and residual in float32, then one rounding to the nearest.
__device__ inline void StoreOutput(const MatmulEpilogue& epilogue, int row, int64_t channel, float sum) {
  if (epilogue.channel_scales != nullptr) sum = sum * epilogue.row_scales[row] * epilogue.channel_scales[channel];
  if (epilogue.bias != nullptr) sum += epilogue.bias[channel];
  const int64_t index = row * epilogue.out_stride + channel;
  if (epilogue.residual != nullptr) sum += LoadAsFloat(epilogue.residual, epilogue.out_dtype, index);
  StoreFloat(epilogue.out, epilogue.out_dtype, index, sum);
}

template <typename Pair>
__device__ Pair ToPair(uint32_t bits) {
  Pair pair;
  memcpy(&pair, &bits, sizeof(bits));
  return pair;
}
template <typename Pair>
__device__ uint32_t FromPair(Pair pair) {
  uint32_t bits;
  memcpy(&bits, &pair, sizeof(bits));
  return bits;
}

// The same for two neighbouring channels, the first one even; both at once where `is_paired` allows.
__device__ inline float2 LoadFloatPair(const void* data, DType dtype, int64_t index) {
  if (dtype == DType::kF32) return *reinterpret_cast<const float2*>(static_cast<const float*>(data) + index);
  const uint32_t bits = *reinterpret_cast<const uint32_t*>(static_cast<const uint16_t*>(data) + index);
  return dtype == DType::kBF16 ? __bfloat1622float2(ToPair<__nv_bfloat162>(bits))
                               : __half22float2(ToPair<__half2>(bits));
}
__device__ inline void StoreFloatPair(void* data, DType dtype, int64_t index, float2 pair) {
  if (dtype == DType::kF32) {
    *reinterpret_cast<float2*>(static_cast<float*>(data) + index) = pair;
    return;
  }
  *reinterpret_cast<uint32_t*>(static_cast<uint16_t*>(data) + index) =
      dtype == DType::kBF16 ? FromPair(__floats2bfloat162_rn(pair.x, pair.y))
                            : FromPair(__floats2half2_rn(pair.x, pair.y));
}
__device__ inline void StoreOutputPair(const MatmulEpilogue& epilogue, int row, int channel, int num_channels,
                                       float2 sums) {
  if (!epilogue.is_paired || channel + 1 >= num_channels) {
#pragma unroll 1
    for (int i = channel; i < min(channel + 2, num_channels); ++i) {
      StoreOutput(epilogue, row, i, i == channel ? sums.x : sums.y);
    }
    return;
  }
  if (epilogue.channel_scales != nullptr) {
    const float2 scales = *reinterpret_cast<const float2*>(epilogue.channel_scales + channel);
    const float row_scale = epilogue.row_scales[row];
    sums = {sums.x * row_scale * scales.x, sums.y * row_scale * scales.y};
  }
  if (epilogue.bias != nullptr) sums.x += epilogue.bias[channel], sums.y += epilogue.bias[channel + 1];
  const int64_t index = row * epilogue.out_stride + channel;
  if (epilogue.residual != nullptr) {
    const float2 residual = LoadFloatPair(epilogue.residual, epilogue.out_dtype, index);
    sums.x += residual.x, sums.y += residual.y;
  }
  StoreFloatPair(epilogue.out, epilogue.out_dtype, index, sums);
}

inline constexpr int kAndOr = 0xea;  // lop3: (a & b) | c

// How the 16-bit types meet the tensor cores, and how small unsigned integers become them without a conversion: the
// bits of kBase | q are those of base + q, so q - zero is one exact subtraction.
struct Bf16Math {
  using Sum = float;
  using Element = __nv_bfloat16;
  static constexpr int kItemBytes = 2;
  static constexpr uint32_t kBase = 0x43004300u;  // 128, q < 128
  __device__ static void Mma(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) { ptx::MmaBf16(d, a, b); }
  __device__ static uint32_t Subtract(uint32_t a, uint32_t b) {
    return FromPair(__hsub2(ToPair<__nv_bfloat162>(a), ToPair<__nv_bfloat162>(b)));
  }
  __device__ static uint32_t Pack(float low, float high) { return FromPair(__floats2bfloat162_rn(low, high)); }
  __device__ static float2 Unpack(uint32_t pair) { return __bfloat1622float2(ToPair<__nv_bfloat162>(pair)); }
};

struct F16Math {
  using Sum = float;
  using Element = __half;
  static constexpr int kItemBytes = 2;
  static constexpr uint32_t kBase = 0x64006400u;  // 1024, q < 1024
  __device__ static void Mma(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) { ptx::MmaF16(d, a, b); }
  __device__ static uint32_t Subtract(uint32_t a, uint32_t b) {
    return FromPair(__hsub2(ToPair<__half2>(a), ToPair<__half2>(b)));
  }
  __device__ static uint32_t Pack(float low, float high) { return FromPair(__floats2half2_rn(low, high)); }
  __device__ static float2 Unpack(uint32_t pair) { return __half22float2(ToPair<__half2>(pair)); }
};

struct S8Math {
  using Sum = int32_t;
  static constexpr int kItemBytes = 1;
  __device__ static void Mma(int32_t (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) { ptx::MmaS8(d, a, b); }
};

// 16 bytes along k of the rows g and g + 8 (of lane 4g + t, at byte 16t) as the A operands of two products. Any order
// of k does, as long as B (16 bytes of one row likewise: x, y for the first product, z, w for the second) has the same.
__device__ inline void RowsToOperands(const uint4& low, const uint4& high, uint32_t (&a)[2][4]) {
  a[0][0] = low.x, a[0][1] = high.x, a[0][2] = low.y, a[0][3] = high.y;
  a[1][0] = low.z, a[1][1] = high.z, a[1][2] = low.w, a[1][3] = high.w;
}

}  // namespace millrace::cuda
