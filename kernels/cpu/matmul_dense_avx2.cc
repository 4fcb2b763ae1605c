// SPDX-License-Identifier: Apache-2.0
// Dense tiles with AVX2 and FMA: y[rows, 16] += x[rows, K] * W^T in float32, two vectors of 8 channels by up to 4 rows.
// bfloat16 comes in pairs of k per 32-bit lane and becomes float32 by a shift (even k) and a mask (odd k); float16 is
// widened on load. Limited by the two FMA pipes when rows are many, by memory when they are few.
#if defined(__x86_64__)
#include <immintrin.h>

#include "kernels/cpu/matmul_avx2.h"
#include "kernels/cpu/matmul_kernels.h"

namespace millrace::cpu {
namespace {

using avx2::kChannels;
using avx2::kLanes;
using avx2::kVectors;
using avx2::Prefetch;

struct Bf16 {
  static constexpr int kStepBytes = kChannels * 4;
  static constexpr int kStepInputs = 2;
  [[gnu::always_inline]] static inline __m256 Load(const uint8_t* step, int vector, int input) {
    const __m256i pairs = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(step + vector * 32));
    const __m256i odd_bits = _mm256_set1_epi32(static_cast<int>(0xffff0000u));
    return _mm256_castsi256_ps(input == 0 ? _mm256_slli_epi32(pairs, 16) : _mm256_and_si256(pairs, odd_bits));
  }
};

struct F16 {
  static constexpr int kStepBytes = kChannels * 2;
  static constexpr int kStepInputs = 1;
  [[gnu::always_inline]] static inline __m256 Load(const uint8_t* step, int vector, int) {
    return _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(step + vector * 16)));
  }
};

struct F32 {
  static constexpr int kStepBytes = kChannels * 4;
  static constexpr int kStepInputs = 1;
  [[gnu::always_inline]] static inline __m256 Load(const uint8_t* step, int vector, int) {
    return _mm256_loadu_ps(reinterpret_cast<const float*>(step + vector * 32));
  }
};

template <typename Element, int kRows>
[[gnu::always_inline]] inline void AddStep(const uint8_t* step, const float* items, __m256 (&sums)[kRows][kVectors]) {
  for (int input = 0; input < Element::kStepInputs; ++input) {
    __m256 w[kVectors];
    for (int vector = 0; vector < kVectors; ++vector) w[vector] = Element::Load(step, vector, input);
    for (int row = 0; row < kRows; ++row) {
      const __m256 x = _mm256_broadcast_ss(items + row * Element::kStepInputs + input);
      for (int vector = 0; vector < kVectors; ++vector) {
        sums[row][vector] = _mm256_fmadd_ps(x, w[vector], sums[row][vector]);
      }
    }
  }
}

template <typename Element, int kRows>
void DenseTile(const TileArgs& args) {
  constexpr int kItemFloats = kRows * Element::kStepInputs;
  float* out = static_cast<float*>(args.sums);
  __m256 sums[kRows][kVectors];
  for (int row = 0; row < kRows; ++row) {
    for (int vector = 0; vector < kVectors; ++vector) {
      sums[row][vector] =
          args.is_first ? _mm256_setzero_ps() : _mm256_loadu_ps(out + row * kChannels + vector * kLanes);
    }
  }
  const uint8_t* weights = args.weights;
  const float* items = reinterpret_cast<const float*>(args.activations);
  const uint8_t* prefetch = args.prefetch;
  int64_t step = 0;
  for (; step + kChunkSteps <= args.num_units; step += kChunkSteps) {
    Prefetch(args, prefetch);
#pragma unroll
    for (int i = 0; i < kChunkSteps; ++i) {
      AddStep<Element>(weights + i * Element::kStepBytes, items + i * kItemFloats, sums);
    }
    weights += kChunkSteps * Element::kStepBytes;
    items += kChunkSteps * kItemFloats;
  }
  for (; step < args.num_units; ++step) {
    AddStep<Element>(weights, items, sums);
    weights += Element::kStepBytes;
    items += kItemFloats;
  }
  for (int row = 0; row < kRows; ++row) {
    for (int vector = 0; vector < kVectors; ++vector) {
      _mm256_storeu_ps(out + row * kChannels + vector * kLanes, sums[row][vector]);
    }
  }
}

template <typename Element, int kRows>
void DenseRows(const RowArgs& args) {
  constexpr int kInputs = Element::kStepInputs;
  float* out = reinterpret_cast<float*>(args.items);
  const int64_t num_whole_steps = args.k / kInputs;
  for (int64_t step = 0; step < num_whole_steps; ++step, out += kRows * kInputs) {
    for (int row = 0; row < kRows; ++row) {
      __builtin_memcpy(out + row * kInputs, args.x + row * args.stride + step * kInputs, sizeof(float) * kInputs);
    }
  }
  for (int64_t step = num_whole_steps; step < args.num_steps; ++step) {
    for (int row = 0; row < kRows; ++row) {
      for (int64_t k = step * kInputs; k < (step + 1) * kInputs; ++k) {
        *out++ = k < args.k ? args.x[row * args.stride + k] : 0.0f;
      }
    }
  }
}

void DenseOutput(const OutputArgs& args) {
  const float* sums = static_cast<const float*>(args.sums);
  avx2::WriteOutput(args,
                    [&](int row, int vector) { return _mm256_loadu_ps(sums + row * kChannels + vector * kLanes); });
}

template <typename Element>
PanelKernels Table() {
  return {.max_tile_rows = 4,
          .tiles = {DenseTile<Element, 1>, DenseTile<Element, 2>, DenseTile<Element, 3>, DenseTile<Element, 4>},
          .rows = {DenseRows<Element, 1>, DenseRows<Element, 2>, DenseRows<Element, 3>, DenseRows<Element, 4>},
          .output = DenseOutput};
}

}  // namespace

PanelKernels DenseKernelsAvx2(DType dtype) {
  switch (dtype) {
    case DType::kF16:
      return Table<F16>();
    case DType::kF32:
      return Table<F32>();
    default:
      return Table<Bf16>();
  }
}

}  // namespace millrace::cpu
#endif  // __x86_64__
