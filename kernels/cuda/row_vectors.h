// SPDX-License-Identifier: Apache-2.0
#pragma once
// What the row-by-row kernels share: eight activations at a time as float32, 16 bytes a load where the row allows it,
// and the int8 quantisation of a row. Device code.
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include <cstdint>

#include "kernels/cuda/common/block_reduce.h"
#include "kernels/cuda/quantized_rows.h"

namespace millrace::cuda {

constexpr int kVector = 8;       // elements a thread handles at once
constexpr int kHeldVectors = 2;  // of a row stay in a thread's registers; the rest of a very long row is read twice
constexpr int kMaxRowThreads = 1024;

// Threads for a row of `cols`: one vector each if that is possible. A function of the width alone, as is every order of
// additions that follows from it.
inline int RowThreads(int64_t cols) {
  const int64_t vectors = (cols + kVector - 1) / kVector;
  const int64_t threads = (vectors + kWarpSize - 1) / kWarpSize * kWarpSize;
  return static_cast<int>(threads < kWarpSize ? kWarpSize : threads > kMaxRowThreads ? kMaxRowThreads : threads);
}

// The two activation types, by their bits.
struct Bf16 {
  __device__ static float ToFloat(uint32_t bits) { return __uint_as_float(bits << 16); }
  __device__ static uint32_t FromFloat(float value) { return __bfloat16_as_ushort(__float2bfloat16_rn(value)); }
};
struct F16 {
  __device__ static float ToFloat(uint32_t bits) {
    return __half2float(__ushort_as_half(static_cast<unsigned short>(bits)));
  }
  __device__ static uint32_t FromFloat(float value) { return __half_as_ushort(__float2half_rn(value)); }
};

struct Floats8 {
  float at[kVector];
};

template <int kBytes>
__device__ inline bool IsAligned(const void* address) {
  return reinterpret_cast<uintptr_t>(address) % kBytes == 0;
}

// Elements at, at + 1, ... of a row of `cols`; zeros past its end. `at` is a multiple of kVector.
template <typename Format>
__device__ inline Floats8 Load8(const uint16_t* row, int64_t at, int64_t cols) {
  Floats8 values = {};
  if (at + kVector <= cols && IsAligned<16>(row)) {
    const uint4 bits = *reinterpret_cast<const uint4*>(row + at);
    const uint32_t words[4] = {bits.x, bits.y, bits.z, bits.w};
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      values.at[2 * i] = Format::ToFloat(words[i] & 0xffffu);
      values.at[2 * i + 1] = Format::ToFloat(words[i] >> 16);
    }
    return values;
  }
#pragma unroll
  for (int i = 0; i < kVector; ++i) {
    if (at + i < cols) values.at[i] = Format::ToFloat(row[at + i]);
  }
  return values;
}

__device__ inline Floats8 Load8(const float* row, int64_t at, int64_t cols) {
  Floats8 values = {};
  if (at + kVector <= cols && IsAligned<16>(row)) {
    const float4 low = *reinterpret_cast<const float4*>(row + at);
    const float4 high = *reinterpret_cast<const float4*>(row + at + 4);
    return {{low.x, low.y, low.z, low.w, high.x, high.y, high.z, high.w}};
  }
#pragma unroll
  for (int i = 0; i < kVector; ++i) {
    if (at + i < cols) values.at[i] = row[at + i];
  }
  return values;
}

template <typename Format>
__device__ inline void Store8(const Floats8& values, uint16_t* row, int64_t at, int64_t cols) {
  if (at + kVector <= cols && IsAligned<16>(row)) {
    uint32_t words[4];
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      words[i] = Format::FromFloat(values.at[2 * i]) | Format::FromFloat(values.at[2 * i + 1]) << 16;
    }
    *reinterpret_cast<uint4*>(row + at) = make_uint4(words[0], words[1], words[2], words[3]);
    return;
  }
#pragma unroll
  for (int i = 0; i < kVector; ++i) {
    if (at + i < cols) row[at + i] = static_cast<uint16_t>(Format::FromFloat(values.at[i]));
  }
}

// Rows of int8 begin at multiples of 16 bytes.
__device__ inline void StoreInt8x8(const Floats8& values, float inverse, int8_t* row, int64_t at, int64_t cols) {
  uint32_t bytes[kVector];
#pragma unroll
  for (int i = 0; i < kVector; ++i) {
    // A faulty row has inverse 0, and 0 * infinity is not a number whose conversion anyone defines.
    bytes[i] = inverse == 0 ? 0u : static_cast<uint32_t>(static_cast<int32_t>(rintf(values.at[i] * inverse))) & 0xffu;
  }
  if (at + kVector <= cols) {
    *reinterpret_cast<uint2*>(row + at) = make_uint2(bytes[0] | bytes[1] << 8 | bytes[2] << 16 | bytes[3] << 24,
                                                     bytes[4] | bytes[5] << 8 | bytes[6] << 16 | bytes[7] << 24);
    return;
  }
#pragma unroll
  for (int i = 0; i < kVector; ++i) {
    if (at + i < cols) row[at + i] = static_cast<int8_t>(bytes[i]);
  }
}

// The largest bit pattern of |x|: patterns of infinity and NaN exceed all finite ones.
__device__ inline uint32_t LargestBits(const Floats8& values, uint32_t so_far) {
#pragma unroll
  for (int i = 0; i < kVector; ++i) so_far = max(so_far, __float_as_uint(values.at[i]) & 0x7fffffffu);
  return so_far;
}

struct QuantScale {
  float inverse = 0;  // value = round(x * inverse)
  float scale = 0;    // x ~ value * scale
};

// The scale of a row of numbers x whose largest |x| has these bits, as quantised after a multiplication by `factor`.
__device__ inline QuantScale QuantScaleFor(uint32_t max_bits, float factor) {
  const float largest = __uint_as_float(max_bits) * factor;
  if (max_bits >= 0x7f800000u || !(largest < __uint_as_float(0x7f800000u))) return {0.0f, __uint_as_float(0x7fc00000u)};
  if (largest < 1e-30f) return {0.0f, 0.0f};
  return {127.0f / largest * factor, largest / 127.0f};
}

// Quantises the row that `load(at)` yields eight by eight; `load` is called twice for what does not stay in registers.
// REQUIRES: all threads of the block call; `scratch` is 32 words of shared memory.
template <typename LoadVector>
__device__ inline void QuantizeRow(const LoadVector& load, int64_t cols, int8_t* values, float* scale,
                                   uint32_t* scratch) {
  const int64_t stride = static_cast<int64_t>(blockDim.x) * kVector;
  const int64_t begin = static_cast<int64_t>(threadIdx.x) * kVector;
  Floats8 held[kHeldVectors];
  uint32_t max_bits = 0;
#pragma unroll
  for (int i = 0; i < kHeldVectors; ++i) {
    if (begin + i * stride < cols) {
      held[i] = load(begin + i * stride);
      max_bits = LargestBits(held[i], max_bits);
    }
  }
  for (int64_t at = begin + kHeldVectors * stride; at < cols; at += stride) max_bits = LargestBits(load(at), max_bits);
  const QuantScale quant = QuantScaleFor(BlockReduce(max_bits, Larger(), scratch), 1.0f);
#pragma unroll
  for (int i = 0; i < kHeldVectors; ++i) {
    const int64_t at = begin + i * stride;
    if (at < cols) StoreInt8x8(held[i], quant.inverse, values, at, cols);
  }
  for (int64_t at = begin + kHeldVectors * stride; at < cols; at += stride) {
    StoreInt8x8(load(at), quant.inverse, values, at, cols);
  }
  if (threadIdx.x == 0) *scale = quant.scale;
}

}  // namespace millrace::cuda
