// SPDX-License-Identifier: Apache-2.0
// Dense tiles with AVX-512: y[rows, 64] += x[rows, K] * W^T, 4 vectors of 16 channels wide and up to 6 rows high, so
// that 24 sums, 4 weights and a broadcast fill the 32 registers. bfloat16 runs on vdpbf16ps (products and sums in
// float32, pairs of k at once, denormals flushed); float16 is widened on load; float32 as it is. Limited by the two
// dot-product pipes when rows are many, by memory when they are few.
#if defined(__x86_64__)
#include <immintrin.h>

#include "kernels/cpu/matmul_kernels.h"
#include "kernels/cpu/matmul_rows_avx512.h"

namespace millrace::cpu {
namespace {

constexpr int kVectors = 4;
constexpr int kChannels = 16 * kVectors;
constexpr int64_t kLineBytes = 64;

struct Bf16 {
  static constexpr int kStepBytes = kChannels * 4;
  static constexpr int kStepInputs = 2;
  using Weight = __m512bh;
  [[gnu::always_inline]] static inline Weight Load(const uint8_t* step, int vector) {
    return (__m512bh)_mm512_loadu_si512(step + vector * 64);
  }
  [[gnu::always_inline]] static inline __m512 Add(__m512 sum, int32_t item, Weight w) {
    return _mm512_dpbf16_ps(sum, (__m512bh)_mm512_set1_epi32(item), w);
  }
};

struct F16 {
  static constexpr int kStepBytes = kChannels * 2;
  static constexpr int kStepInputs = 1;
  using Weight = __m512;
  [[gnu::always_inline]] static inline Weight Load(const uint8_t* step, int vector) {
    return _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(step + vector * 32)));
  }
  [[gnu::always_inline]] static inline __m512 Add(__m512 sum, int32_t item, Weight w) {
    return _mm512_fmadd_ps(_mm512_castsi512_ps(_mm512_set1_epi32(item)), w, sum);
  }
};

struct F32 {
  static constexpr int kStepBytes = kChannels * 4;
  static constexpr int kStepInputs = 1;
  using Weight = __m512;
  [[gnu::always_inline]] static inline Weight Load(const uint8_t* step, int vector) {
    return _mm512_loadu_ps(step + vector * 64);
  }
  [[gnu::always_inline]] static inline __m512 Add(__m512 sum, int32_t item, Weight w) { return F16::Add(sum, item, w); }
};

[[gnu::always_inline]] inline void Prefetch(const TileArgs& args, const uint8_t*& prefetch) {
  if (prefetch >= args.prefetch_end) return;
#pragma clang loop unroll(disable)
  for (int64_t line = 0; line < args.prefetch_chunk_bytes; line += kLineBytes) {
    _mm_prefetch(reinterpret_cast<const char*>(prefetch + line), _MM_HINT_T0);
  }
  prefetch += args.prefetch_chunk_bytes;
}

template <typename Element, int kRows>
[[gnu::always_inline]] inline void AddStep(const uint8_t* step, const int32_t* items, __m512 (&sums)[kRows][kVectors]) {
  typename Element::Weight w[kVectors];
  for (int vector = 0; vector < kVectors; ++vector) w[vector] = Element::Load(step, vector);
  for (int row = 0; row < kRows; ++row) {
    for (int vector = 0; vector < kVectors; ++vector) {
      sums[row][vector] = Element::Add(sums[row][vector], items[row], w[vector]);
    }
  }
}

template <typename Element, int kRows>
void DenseTile(const TileArgs& args) {
  float* out = static_cast<float*>(args.sums);
  __m512 sums[kRows][kVectors];
  for (int row = 0; row < kRows; ++row) {
    for (int vector = 0; vector < kVectors; ++vector) {
      sums[row][vector] = args.is_first ? _mm512_setzero_ps() : _mm512_loadu_ps(out + row * kChannels + vector * 16);
    }
  }
  const uint8_t* weights = args.weights;
  const int32_t* items = reinterpret_cast<const int32_t*>(args.activations);
  const uint8_t* prefetch = args.prefetch;
  int64_t step = 0;
  for (; step + kChunkSteps <= args.num_units; step += kChunkSteps) {
    Prefetch(args, prefetch);
#pragma unroll
    for (int i = 0; i < kChunkSteps; ++i) {
      AddStep<Element, kRows>(weights + i * Element::kStepBytes, items + i * kRows, sums);
    }
    weights += kChunkSteps * Element::kStepBytes;
    items += kChunkSteps * kRows;
  }
  for (; step < args.num_units; ++step) {
    AddStep<Element, kRows>(weights, items, sums);
    weights += Element::kStepBytes;
    items += kRows;
  }
  for (int row = 0; row < kRows; ++row) {
    for (int vector = 0; vector < kVectors; ++vector) {
      _mm512_storeu_ps(out + row * kChannels + vector * 16, sums[row][vector]);
    }
  }
}

template <typename Element, int kRows>
void DenseRows(const RowArgs& args) {
  int32_t* out = reinterpret_cast<int32_t*>(args.items);
  for (int64_t step = 0; step < args.num_steps; step += 16) {
    const int64_t k = step * Element::kStepInputs;
    __m512i items[kRows];
    for (int row = 0; row < kRows; ++row) {
      const float* x = args.x + row * args.stride + k;
      const __m512 low = _mm512_maskz_loadu_ps(FirstLanes(args.k - k), x);
      items[row] = _mm512_castps_si512(low);
      if constexpr (Element::kStepInputs == 2) {
        const __m512 high = _mm512_maskz_loadu_ps(FirstLanes(args.k - k - 16), x + 16);
        items[row] = (__m512i)_mm512_cvtne2ps_pbh(high, low);
      }
    }
    StoreInterleaved<kRows, false>(items, args.num_steps - step, out + step * kRows);
  }
}

void DenseOutput(const OutputArgs& by_reference) {
  const OutputArgs args = by_reference;  // a copy: vector stores might write through the reference
  for (int row = 0; row < args.rows; ++row) {
    const float* sums = static_cast<const float*>(args.sums) + row * kChannels;
    for (int channel = 0; channel < args.channels; channel += 16) {
      Finish(args, row, channel, _mm512_loadu_ps(sums + channel));
    }
  }
}

template <typename Element>
PanelKernels Table() {
  return {.max_tile_rows = 6,
          .tiles = {DenseTile<Element, 1>, DenseTile<Element, 2>, DenseTile<Element, 3>, DenseTile<Element, 4>,
                    DenseTile<Element, 5>, DenseTile<Element, 6>},
          .rows = {DenseRows<Element, 1>, DenseRows<Element, 2>, DenseRows<Element, 3>, DenseRows<Element, 4>,
                   DenseRows<Element, 5>, DenseRows<Element, 6>},
          .output = DenseOutput};
}

}  // namespace

PanelKernels DenseKernelsAvx512(DType dtype) {
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
