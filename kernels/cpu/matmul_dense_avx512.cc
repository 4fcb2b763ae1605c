// SPDX-License-Identifier: Apache-2.0
// Dense tiles with AVX-512: y[rows, 64] += x[rows, K] * W^T, 4 vectors of 16 channels wide and up to 6 rows high, so
// that 24 sums, 4 weights and a broadcast fill the 32 registers. bfloat16 runs on vdpbf16ps (products and sums in
// float32, pairs of k at once, denormals flushed); float16 is widened on load; float32 as it is. Limited by the two
// dot-product pipes when rows are many, by memory when they are few.
#include <immintrin.h>

#include "kernels/cpu/matmul_kernels.h"

namespace millrace::cpu {
namespace {

constexpr int kVectors = 4;
constexpr int kChannels = 16 * kVectors;
constexpr int64_t kLineBytes = 64;

struct Bf16 {
  static constexpr int kStepBytes = kChannels * 4;
  static constexpr int kStepInputs = 2;
  using Weight = __m512bh;
  static inline Weight Load(const uint8_t* step, int vector) {
    return (__m512bh)_mm512_loadu_si512(step + vector * 64);
  }
  static inline __m512 Add(__m512 sum, int32_t item, Weight w) {
    return _mm512_dpbf16_ps(sum, (__m512bh)_mm512_set1_epi32(item), w);
  }
};

struct F16 {
  static constexpr int kStepBytes = kChannels * 2;
  static constexpr int kStepInputs = 1;
  using Weight = __m512;
  static inline Weight Load(const uint8_t* step, int vector) {
    return _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(step + vector * 32)));
  }
  static inline __m512 Add(__m512 sum, int32_t item, Weight w) {
    return _mm512_fmadd_ps(_mm512_castsi512_ps(_mm512_set1_epi32(item)), w, sum);
  }
};

struct F32 {
  static constexpr int kStepBytes = kChannels * 4;
  static constexpr int kStepInputs = 1;
  using Weight = __m512;
  static inline Weight Load(const uint8_t* step, int vector) { return _mm512_loadu_ps(step + vector * 64); }
  static inline __m512 Add(__m512 sum, int32_t item, Weight w) { return F16::Add(sum, item, w); }
};

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
  for (int64_t step = 0; step < args.num_units; ++step) {
    if (prefetch < args.prefetch_end) {
      for (int64_t line = 0; line < args.prefetch_step_bytes; line += kLineBytes) {
        _mm_prefetch(reinterpret_cast<const char*>(prefetch + line), _MM_HINT_T0);
      }
      prefetch += args.prefetch_step_bytes;
    }
    typename Element::Weight w[kVectors];
    for (int vector = 0; vector < kVectors; ++vector) w[vector] = Element::Load(weights, vector);
    for (int row = 0; row < kRows; ++row) {
      for (int vector = 0; vector < kVectors; ++vector) {
        sums[row][vector] = Element::Add(sums[row][vector], items[row], w[vector]);
      }
    }
    weights += Element::kStepBytes;
    items += kRows;
  }
  for (int row = 0; row < kRows; ++row) {
    for (int vector = 0; vector < kVectors; ++vector) {
      _mm512_storeu_ps(out + row * kChannels + vector * 16, sums[row][vector]);
    }
  }
}

inline __mmask16 FirstLanes(int64_t count) {
  return count >= 16 ? 0xffff : count <= 0 ? 0 : static_cast<__mmask16>((1u << count) - 1);
}

// Sixteen items of one row, `stride` items apart.
inline void StoreItems(__m512i items, int32_t* out, int64_t count, int64_t stride) {
  if (stride == 1) {
    _mm512_mask_storeu_epi32(out, FirstLanes(count), items);
    return;
  }
  alignas(64) int32_t lanes[16];
  _mm512_store_si512(lanes, items);
  const int64_t num_items = count < 16 ? count : 16;
  for (int64_t i = 0; i < num_items; ++i) out[i * stride] = lanes[i];
}

template <typename Element>
void DenseRows(const RowArgs& args) {
  for (int row = 0; row < args.rows; ++row) {
    const float* x = args.x + row * args.stride;
    int32_t* items = reinterpret_cast<int32_t*>(args.items) + row;
    for (int64_t step = 0; step < args.num_steps; step += 16) {
      const int64_t k = step * Element::kStepInputs;
      const __m512 low = _mm512_maskz_loadu_ps(FirstLanes(args.k - k), x + k);
      __m512i values = _mm512_castps_si512(low);
      if constexpr (Element::kStepInputs == 2) {
        const __m512 high = _mm512_maskz_loadu_ps(FirstLanes(args.k - k - 16), x + k + 16);
        values = (__m512i)_mm512_cvtne2ps_pbh(high, low);
      }
      StoreItems(values, items + step * args.rows, args.num_steps - step, args.rows);
    }
  }
}

void DenseOutput(const OutputArgs& args) {
  for (int row = 0; row < args.rows; ++row) {
    const float* sums = static_cast<const float*>(args.sums) + row * kChannels;
    for (int channel = 0; channel < args.channels; channel += 16) {
      const __mmask16 mask = FirstLanes(args.channels - channel);
      const int64_t index = row * args.stride + channel;
      __m512 y = _mm512_loadu_ps(sums + channel);
      if (args.bias != nullptr) y = _mm512_add_ps(y, _mm512_maskz_loadu_ps(mask, args.bias + channel));
      if (args.residual != nullptr) y = _mm512_add_ps(y, _mm512_maskz_loadu_ps(mask, args.residual + index));
      _mm512_mask_storeu_ps(args.out + index, mask, y);
    }
  }
}

template <typename Element>
PanelKernels Table() {
  return {.max_tile_rows = 6,
          .tiles = {DenseTile<Element, 1>, DenseTile<Element, 2>, DenseTile<Element, 3>, DenseTile<Element, 4>,
                    DenseTile<Element, 5>, DenseTile<Element, 6>},
          .rows = DenseRows<Element>,
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
