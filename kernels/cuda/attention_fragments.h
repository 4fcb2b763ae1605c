// SPDX-License-Identifier: Apache-2.0
#pragma once
// Tensor core operands from tiles of keys and values in shared memory, for decode and prefill alike. Device code.
//
// A tile is rows of one KV vector each, row starts an odd number of 16-byte pieces apart, so that the eight rows one
// ldmatrix phase reads lie in eight different groups of banks. With g = lane / 4 and t = lane % 4:
//
//   block         16 tokens x 16 elements, four registers
//   keys          r0, r1: tokens g, g + 8 at elements Pair(0); r2, r3: the same tokens at Pair(1)
//   values        r0, r1: elements Row(0), Row(1) of tokens 2t, 2t + 1; r2, r3: of tokens 2t + 8, 2t + 9
//
//   KV type       Pair(i): two elements from      Row(i)
//   16-bit        2t + 8i                         g + 8i
//   8-bit         4t + 2i                         2g + i
//
// The 8-bit order is what ldmatrix gives when it takes two bytes for one element; a sum over elements does not care
// as long as q uses Pair too. As A operand (decode, tokens or elements on the m16 side) a block is {r0, r1, r2, r3};
// as B operands (prefill) it is two n8 tiles {r0, r2} and {r1, r3}.
// 8-bit KV is computed in half precision, in which both types are exact; scales go to scores and weights instead.
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include <cstdint>

#include "kernels/cuda/common/block_reduce.h"
#include "kernels/cuda/common/ptx.h"
#include "kernels/kv_layer.h"

namespace millrace::cuda {

// launch<dtype>() of the types that KV comes in. Host code.
template <typename Launch>
cudaError_t WithKvType(DType dtype, const Launch& launch) {
  switch (dtype) {
    case DType::kBF16:
      return launch.template operator()<DType::kBF16>();
    case DType::kF16:
      return launch.template operator()<DType::kF16>();
    case DType::kI8:
      return launch.template operator()<DType::kI8>();
    case DType::kF8E4M3:
      return launch.template operator()<DType::kF8E4M3>();
    default:
      return cudaErrorInvalidValue;
  }
}

template <DType kKv, int kHeadDim>
struct KvTile {
  static_assert(kHeadDim % 16 == 0, "a block is 16 elements");
  static_assert(kKv == DType::kBF16 || kKv == DType::kF16 || kKv == DType::kI8 || kKv == DType::kF8E4M3);
  static constexpr bool kIsByte = kKv == DType::kI8 || kKv == DType::kF8E4M3;
  static constexpr bool kHasScales = kKv == DType::kI8;
  static constexpr int kBlocks = kHeadDim / 16;
  static constexpr int kVectorBytes = kHeadDim * (kIsByte ? 1 : 2);
  static constexpr int kPieces = kVectorBytes / 16;
  static constexpr int kRowBytes = (kPieces | 1) * 16;
  // Weights times int8 scales are small numbers; in half precision they keep their bits when brought near 1.
  static constexpr float kWeightGain = kHasScales ? 64.0f : 1.0f;

  __device__ static __forceinline__ int Pair(int lane, int i) {
    return kIsByte ? 4 * (lane % 4) + 2 * i : 2 * (lane % 4) + 8 * i;
  }
  __device__ static __forceinline__ int Row(int lane, int i) { return kIsByte ? 2 * (lane / 4) + i : lane / 4 + 8 * i; }

  // Two numbers in the type that is multiplied, rounded to nearest even, the first in the low half.
  __device__ static __forceinline__ uint32_t Pack(float first, float second) {
    if constexpr (kKv == DType::kBF16) {
      const __nv_bfloat162 pair = __float22bfloat162_rn(make_float2(first, second));
      return *reinterpret_cast<const uint32_t*>(&pair);
    } else {
      const __half2 pair = __float22half2_rn(make_float2(first, second));
      return *reinterpret_cast<const uint32_t*>(&pair);
    }
  }
  __device__ static __forceinline__ void Mma(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
    if constexpr (kKv == DType::kBF16) {
      ptx::MmaBf16(d, a, b);
    } else {
      ptx::MmaF16(d, a, b);
    }
  }
  // Two neighbouring elements of q in the type that is multiplied.
  __device__ static __forceinline__ uint32_t Convert(uint32_t bits, DType dtype) {
    if (dtype == (kKv == DType::kBF16 ? DType::kBF16 : DType::kF16)) return bits;
    if (dtype == DType::kBF16) return Pack(__uint_as_float(bits << 16), __uint_as_float(bits & 0xffff0000u));
    const float2 pair = __half22float2(*reinterpret_cast<const __half2*>(&bits));
    return Pack(pair.x, pair.y);
  }
  // q's elements at Pair(i) of a block whose first element is *q.
  __device__ static __forceinline__ uint32_t QueryPair(const uint16_t* q, DType dtype, int i) {
    return Convert(*reinterpret_cast<const uint32_t*>(q + Pair(static_cast<int>(threadIdx.x % 32), i)), dtype);
  }

  // Bytes i and j of four stored numbers as a pair of halves.
  template <int i, int j>
  __device__ static __forceinline__ uint32_t Widen(uint32_t bytes) {
    if constexpr (kKv == DType::kI8) {
      // 0x6400 + (x + 128) is the half 1024 + 128 + x.
      const uint32_t biased = ptx::Prmt(bytes ^ 0x80808080u, 0x64646464u, 0x4040u | (j << 8) | i);
      const uint32_t bias = 0x64806480u;
      const __half2 exact =
          __hsub2(*reinterpret_cast<const __half2*>(&biased), *reinterpret_cast<const __half2*>(&bias));
      return *reinterpret_cast<const uint32_t*>(&exact);
    } else {
      return ptx::E4m3x2ToHalf2(static_cast<uint16_t>(ptx::Prmt(bytes, 0u, (j << 4) | i) & 0xffffu));
    }
  }

  // Tokens first_token ... of the tile, elements of block `block`.
  __device__ static __forceinline__ void LoadKeys(uint32_t (&r)[4], const uint8_t* tile, int first_token, int block) {
    const int lane = static_cast<int>(threadIdx.x % 32);
    const uint8_t* row = tile + (first_token + lane % 16) * kRowBytes;
    if constexpr (kIsByte) {
      uint32_t bytes[2];
      ptx::LdMatrixX2(bytes, row + 16 * block);
      r[0] = Widen<0, 1>(bytes[0]), r[2] = Widen<2, 3>(bytes[0]);
      r[1] = Widen<0, 1>(bytes[1]), r[3] = Widen<2, 3>(bytes[1]);
    } else {
      ptx::LdMatrixX4(r, row + 32 * block + 16 * (lane / 16));
    }
  }
  __device__ static __forceinline__ void LoadValues(uint32_t (&r)[4], const uint8_t* tile, int first_token, int block) {
    const int lane = static_cast<int>(threadIdx.x % 32);
    if constexpr (kIsByte) {
      uint32_t bytes[2];
      ptx::LdMatrixX2Trans(bytes, tile + (first_token + lane % 16) * kRowBytes + 16 * block);
      r[0] = Widen<0, 2>(bytes[0]), r[1] = Widen<1, 3>(bytes[0]);
      r[2] = Widen<0, 2>(bytes[1]), r[3] = Widen<1, 3>(bytes[1]);
    } else {
      const uint8_t* row = tile + (first_token + lane % 8 + 8 * (lane / 16)) * kRowBytes;
      ptx::LdMatrixX4Trans(r, row + 32 * block + 16 * (lane / 8 % 2));
    }
  }
};

// Two neighbouring elements of q's dtype; `index` is even.
__device__ __forceinline__ void StorePair(void* base, DType dtype, int64_t index, float first, float second) {
  auto* out = reinterpret_cast<uint32_t*>(static_cast<uint16_t*>(base) + index);
  *out = dtype == DType::kBF16 ? KvTile<DType::kBF16, 16>::Pack(first, second)
                               : KvTile<DType::kF16, 16>::Pack(first, second);
}

// The last index of the running sum `first` [count + 1] that is not above `value`: whose part `value` lies in. By a
// whole warp, 32 probes at a time.
__device__ __forceinline__ int FindPart(const int32_t* first, int count, int32_t value) {
  int low = 0, span = count;
  while (span > 1) {
    const int step = (span + 31) / 32;
    const int probe = static_cast<int>(threadIdx.x % 32) * step;
    const unsigned not_above = __ballot_sync(kAllLanes, probe < span && first[low + probe] <= value);
    const int advance = (__popc(static_cast<int>(not_above)) - 1) * step;
    low += advance;
    span = min(step, span - advance);
  }
  return low;
}

// The vector of `token` in pages of one sequence, counted in vectors.
__device__ __forceinline__ int32_t FindVector(const KvLayer& kv, const int32_t* pages, int kv_head, int32_t token) {
  const int32_t page = pages[token / kv.page_tokens];
  return (page * kv.num_kv_heads + kv_head) * kv.page_tokens + token % kv.page_tokens;
}

}  // namespace millrace::cuda
