// SPDX-License-Identifier: Apache-2.0
// int8 and int4 tiles with AVX-512 VNNI: vpdpbusd adds four products of an unsigned weight (q + 128, or a nibble) and
// a signed activation to a 32-bit sum, exactly. What the unsigned form adds too much is known before the first
// product: sums start at the row's offset (see RowArgs). Limited by the two dot-product pipes when rows are many, by
// memory when they are few.
//
// One scale per channel: one exact sum along all of k; tiles of 4 vectors by up to 6 rows, 24 sums in registers.
// Groups: each group's exact sum is scaled and added in float32 at its end. Tiles of 2 vectors by up to 6 rows, so that
// 12 exact and 12 float sums fit: float sums kept in memory would cost more than the broader tile saves. The two
// multiplications per sum and group share the pipes of the products: for groups of 32 four fifths of the peak remain.
#if defined(__x86_64__)
#include <immintrin.h>

#include "kernels/cpu/matmul_kernels.h"
#include "kernels/cpu/matmul_rows_avx512.h"
#include "kernels/cpu/quantize.h"

namespace millrace::cpu {
namespace {

constexpr int kChannelVectors = 4;
constexpr int kGroupVectors = 2;
constexpr int64_t kLineBytes = 64;

struct Int8 {
  static constexpr int kVectorBytes = 64;  // of a step
  static constexpr int kOddShift = 0;
  template <int kVectors>
  [[gnu::always_inline]] static inline void Load(const uint8_t* step, __m512i (&w)[kVectors]) {
    for (int vector = 0; vector < kVectors; ++vector) w[vector] = _mm512_loadu_si512(step + vector * 64);
  }
};

// High nibbles stay where they are: the odd vectors' weights and sums count 16 times, their packed scales a 16th.
struct Int4 {
  static constexpr int kVectorBytes = 32;
  static constexpr int kOddShift = 4;
  template <int kVectors>
  [[gnu::always_inline]] static inline void Load(const uint8_t* step, __m512i (&w)[kVectors]) {
    for (int pair = 0; pair < kVectors / 2; ++pair) {
      const __m512i bytes = _mm512_loadu_si512(step + pair * 64);
      w[2 * pair] = _mm512_and_si512(bytes, _mm512_set1_epi8(0x0f));
      w[2 * pair + 1] = _mm512_and_si512(bytes, _mm512_set1_epi8(static_cast<char>(0xf0)));
    }
  }
};

// Where a tile stands while it walks down its panel.
struct Cursor {
  const uint8_t* weights;
  const int32_t* items;
  const uint8_t* prefetch;
};

[[gnu::always_inline]] inline void Prefetch(const TileArgs& args, const uint8_t*& prefetch) {
  if (prefetch >= args.prefetch_end) return;
#pragma clang loop unroll(disable)
  for (int64_t line = 0; line < args.prefetch_chunk_bytes; line += kLineBytes) {
    _mm_prefetch(reinterpret_cast<const char*>(prefetch + line), _MM_HINT_T0);
  }
  prefetch += args.prefetch_chunk_bytes;
}

template <typename Weight, int kRows, int kVectors>
[[gnu::always_inline]] inline void AddStep(const uint8_t* step, const int32_t* items,
                                           __m512i (&sums)[kRows][kVectors]) {
  __m512i w[kVectors];
  Weight::Load(step, w);
  for (int row = 0; row < kRows; ++row) {
    const __m512i x = _mm512_set1_epi32(items[row]);
    for (int vector = 0; vector < kVectors; ++vector) {
      sums[row][vector] = _mm512_dpbusd_epi32(sums[row][vector], w[vector], x);
    }
  }
}

// Adds kChunkSteps steps to the exact sums, even steps to `even` and odd ones to `odd` (which may be the same).
template <typename Weight, int kRows, int kVectors>
[[gnu::always_inline]] inline void AddChunk(const TileArgs& args, Cursor& cursor, __m512i (&even)[kRows][kVectors],
                                            __m512i (&odd)[kRows][kVectors]) {
  constexpr int kStepBytes = kVectors * Weight::kVectorBytes;
  Prefetch(args, cursor.prefetch);
#pragma unroll
  for (int i = 0; i < kChunkSteps; ++i) {
    AddStep<Weight>(cursor.weights + i * kStepBytes, cursor.items + i * kRows, i % 2 == 0 ? even : odd);
  }
  cursor.weights += kChunkSteps * kStepBytes;
  cursor.items += kChunkSteps * kRows;
}

template <typename Weight, int kRows>
void ChannelTile(const TileArgs& args) {
  constexpr int kVectors = kChannelVectors;
  int32_t* out = static_cast<int32_t*>(args.sums);
  __m512i sums[kRows][kVectors];
  for (int row = 0; row < kRows; ++row) {
    for (int vector = 0; vector < kVectors; ++vector) {
      sums[row][vector] = args.is_first ? _mm512_set1_epi32(args.offsets[row])
                                        : _mm512_loadu_si512(out + (row * kVectors + vector) * 16);
    }
  }
  Cursor cursor = {args.weights, reinterpret_cast<const int32_t*>(args.activations), args.prefetch};
  int64_t step = 0;
  for (; step + kChunkSteps <= args.num_units; step += kChunkSteps) AddChunk<Weight>(args, cursor, sums, sums);
  for (; step < args.num_units; ++step) {
    AddStep<Weight>(cursor.weights, cursor.items, sums);
    cursor.weights += kVectors * Weight::kVectorBytes;
    cursor.items += kRows;
  }
  for (int row = 0; row < kRows; ++row) {
    for (int vector = 0; vector < kVectors; ++vector) {
      _mm512_storeu_si512(out + (row * kVectors + vector) * 16, sums[row][vector]);
    }
  }
}

// The exact sums of a group start at what the unsigned weights will add too much.
template <typename Weight, bool kHasZeros, int kRows, int kVectors>
[[gnu::always_inline]] inline void StartGroup(const uint8_t* zeros, const int32_t* offsets,
                                              __m512i (&sums)[kRows][kVectors]) {
  for (int vector = 0; vector < kVectors; ++vector) {
    const int shift = vector % 2 * Weight::kOddShift;
    __m512i zero = _mm512_setzero_si512();
    if constexpr (kHasZeros) {
      zero = _mm512_cvtepu8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(zeros + vector * 16)));
      zero = _mm512_slli_epi32(zero, shift);
    }
    for (int row = 0; row < kRows; ++row) {
      const __m512i offset = _mm512_set1_epi32(offsets[row]);
      // The zero in the low 16 bits times minus the sum of the activations; the high halves multiply to nothing.
      sums[row][vector] =
          kHasZeros ? _mm512_dpwssd_epi32(_mm512_setzero_si512(), zero, offset) : _mm512_slli_epi32(offset, shift);
    }
  }
}

template <typename Weight, bool kHasZeros, int kRows>
void GroupTile(const TileArgs& args) {
  constexpr int kVectors = kGroupVectors;
  constexpr int kHeaderBytes = kVectors * 16 * (kHasZeros ? 3 : 2);
  float* out = static_cast<float*>(args.sums);
  __m512 totals[kRows][kVectors];
  for (int row = 0; row < kRows; ++row) {
    for (int vector = 0; vector < kVectors; ++vector) {
      totals[row][vector] = args.is_first ? _mm512_setzero_ps() : _mm512_loadu_ps(out + (row * kVectors + vector) * 16);
    }
  }
  Cursor cursor = {args.weights, reinterpret_cast<const int32_t*>(args.activations), args.prefetch};
  const float* x_scales = args.scales;
  const int32_t* offsets = args.offsets;
  for (int64_t unit = 0; unit < args.num_units; ++unit) {
    const uint8_t* header = cursor.weights;
    cursor.weights += kHeaderBytes;
    __m512i sums[kRows][kVectors];
    StartGroup<Weight, kHasZeros>(header + kVectors * 32, offsets, sums);
    if constexpr (kRows == 1) {
      // Two sums alone would wait for each other's latency; exact ones may be split.
      __m512i odd[kRows][kVectors] = {{_mm512_setzero_si512(), _mm512_setzero_si512()}};
      for (int64_t step = 0; step < args.steps_per_unit; step += kChunkSteps) {
        AddChunk<Weight>(args, cursor, sums, odd);
      }
      for (int vector = 0; vector < kVectors; ++vector) {
        sums[0][vector] = _mm512_add_epi32(sums[0][vector], odd[0][vector]);
      }
    } else {
      for (int64_t step = 0; step < args.steps_per_unit; step += kChunkSteps) {
        AddChunk<Weight>(args, cursor, sums, sums);
      }
    }
    for (int vector = 0; vector < kVectors; ++vector) {
      const __m512 w_scale =
          _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(header + vector * 32)));
      for (int row = 0; row < kRows; ++row) {
        const __m512 scale = _mm512_mul_ps(w_scale, _mm512_set1_ps(x_scales[row]));
        totals[row][vector] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(sums[row][vector]), scale, totals[row][vector]);
      }
    }
    x_scales += kRows;
    offsets += kRows;
  }
  for (int row = 0; row < kRows; ++row) {
    for (int vector = 0; vector < kVectors; ++vector) {
      _mm512_storeu_ps(out + (row * kVectors + vector) * 16, totals[row][vector]);
    }
  }
}

// max |x| of `count` values as bits; an infinity or NaN exceeds all others.
[[gnu::always_inline]] inline uint32_t MaxMagnitude(const float* x, int64_t count) {
  const __m512i magnitude = _mm512_set1_epi32(0x7fffffff);
  __m512i max[2] = {_mm512_setzero_si512(), _mm512_setzero_si512()};
  int64_t i = 0;
  for (; i + 32 <= count; i += 32) {
    max[0] = _mm512_max_epu32(max[0], _mm512_and_si512(_mm512_loadu_si512(x + i), magnitude));
    max[1] = _mm512_max_epu32(max[1], _mm512_and_si512(_mm512_loadu_si512(x + i + 16), magnitude));
  }
  for (; i < count; i += 16) {
    const __m512i values = _mm512_maskz_loadu_epi32(FirstLanes(count - i), x + i);
    max[0] = _mm512_max_epu32(max[0], _mm512_and_si512(values, magnitude));
  }
  return _mm512_reduce_max_epu32(_mm512_max_epu32(max[0], max[1]));
}

[[gnu::always_inline]] inline __m512i Quantize(__m512 values, float inverse) {
  return _mm512_cvtps_epi32(_mm512_mul_ps(values, _mm512_set1_ps(inverse)));
}

// Sixty-four values as bytes, item 4 q + lane at dword 4 lane + q; those past `count` are zero.
[[gnu::always_inline]] inline __m512i QuantizeBlock(const float* x, int64_t count, float low, float high) {
  __m512 values[4];
  if (count >= 64) {
    for (int part = 0; part < 4; ++part) values[part] = _mm512_loadu_ps(x + part * 16);
  } else {
    for (int part = 0; part < 4; ++part) {
      values[part] = _mm512_maskz_loadu_ps(FirstLanes(count - part * 16), x + part * 16);
    }
  }
  return _mm512_packs_epi16(_mm512_packs_epi32(Quantize(values[0], low), Quantize(values[1], low)),
                            _mm512_packs_epi32(Quantize(values[2], high), Quantize(values[3], high)));
}

// Quantises as quantize.h defines it, 64 inputs (16 items) of every row at a time, and interleaves the rows.
// Between the passes the inverse scales wait where the offsets will be. `kHasZeros`: offsets keep only their low 16
// bits, for vpdpwssd.
template <bool kHasZeros, int kRows>
void IntRows(const RowArgs& args) {
  const int64_t group_size = args.group_size;
  const int64_t num_groups = (args.k + group_size - 1) / group_size;
  for (int64_t index = 0; index < num_groups * kRows; ++index) {
    const int64_t first = index / kRows * group_size;
    const float* x = args.x + index % kRows * args.stride + first;
    const QuantScale scale = QuantScaleFor(MaxMagnitude(x, group_size));
    args.scales[index] = scale.scale;
    args.offsets[index] = __builtin_bit_cast(int32_t, scale.inverse);
  }
  const auto offset = [&](int32_t sum) { return kHasZeros ? (-sum & 0xffff) : -sum * args.zero; };
  int32_t* out = reinterpret_cast<int32_t*>(args.items);
  __m512i sums[kRows];
  for (__m512i& sum : sums) sum = _mm512_setzero_si512();
  for (int64_t k = 0; k < args.k; k += 64) {
    // A block lies in one group, or is two groups of 32.
    int32_t* low_offsets = args.offsets + k / group_size * kRows;
    int32_t* high_offsets = group_size == 32 && k + 32 < args.k ? low_offsets + kRows : low_offsets;
    const bool is_group_end = (k + 64) % group_size == 0 || group_size == 32 || k + 64 >= args.k;
    __m512i items[kRows];
    for (int row = 0; row < kRows; ++row) {
      const float* x = args.x + row * args.stride + k;
      const float low = __builtin_bit_cast(float, low_offsets[row]);
      const float high = __builtin_bit_cast(float, high_offsets[row]);
      items[row] = QuantizeBlock(x, args.k - k, low, high);
      sums[row] = _mm512_dpbusd_epi32(sums[row], _mm512_set1_epi8(1), items[row]);
      if (!is_group_end) continue;
      if (high_offsets != low_offsets) {
        high_offsets[row] = offset(_mm512_mask_reduce_add_epi32(0xcccc, sums[row]));
        sums[row] = _mm512_maskz_mov_epi32(0x3333, sums[row]);
      }
      low_offsets[row] = offset(_mm512_reduce_add_epi32(sums[row]));
      sums[row] = _mm512_setzero_si512();
    }
    StoreInterleaved<kRows, true>(items, args.num_steps - k / 4, out + k / 4 * kRows);
  }
}

void ChannelOutput(const OutputArgs& by_reference) {
  const OutputArgs args = by_reference;  // a copy: vector stores might write through the reference
  const int32_t* sums = static_cast<const int32_t*>(args.sums);
  for (int row = 0; row < args.rows; ++row) {
    const __m512 row_scale = _mm512_set1_ps(args.row_scales[row]);
    for (int channel = 0; channel < args.channels; channel += 16) {
      const __m512 scale = _mm512_mul_ps(_mm512_loadu_ps(args.channel_scales + channel), row_scale);
      const __m512i sum = _mm512_loadu_si512(sums + row * kChannelVectors * 16 + channel);
      Finish(args, row, channel, _mm512_mul_ps(_mm512_cvtepi32_ps(sum), scale));
    }
  }
}

void GroupOutput(const OutputArgs& by_reference) {
  const OutputArgs args = by_reference;  // as above
  const float* sums = static_cast<const float*>(args.sums);
  const __m512 unit = _mm512_set1_ps(args.scale_unit);
  for (int row = 0; row < args.rows; ++row) {
    for (int channel = 0; channel < args.channels; channel += 16) {
      const __m512 sum = _mm512_loadu_ps(sums + row * kGroupVectors * 16 + channel);
      Finish(args, row, channel, _mm512_mul_ps(sum, unit));
    }
  }
}

template <typename Weight>
PanelKernels ChannelTable() {
  return {.max_tile_rows = 6,
          .tiles = {ChannelTile<Weight, 1>, ChannelTile<Weight, 2>, ChannelTile<Weight, 3>, ChannelTile<Weight, 4>,
                    ChannelTile<Weight, 5>, ChannelTile<Weight, 6>},
          .rows = {IntRows<false, 1>, IntRows<false, 2>, IntRows<false, 3>, IntRows<false, 4>, IntRows<false, 5>,
                   IntRows<false, 6>},
          .output = ChannelOutput};
}

template <typename Weight, bool kHasZeros>
PanelKernels GroupTable() {
  return {.max_tile_rows = 6,
          .tiles = {GroupTile<Weight, kHasZeros, 1>, GroupTile<Weight, kHasZeros, 2>, GroupTile<Weight, kHasZeros, 3>,
                    GroupTile<Weight, kHasZeros, 4>, GroupTile<Weight, kHasZeros, 5>, GroupTile<Weight, kHasZeros, 6>},
          .rows = {IntRows<kHasZeros, 1>, IntRows<kHasZeros, 2>, IntRows<kHasZeros, 3>, IntRows<kHasZeros, 4>,
                   IntRows<kHasZeros, 5>, IntRows<kHasZeros, 6>},
          .output = GroupOutput};
}

}  // namespace

PanelKernels IntKernelsAvx512(WeightFormat format, bool is_grouped, bool has_zeros) {
  if (format == WeightFormat::kInt8) return is_grouped ? GroupTable<Int8, false>() : ChannelTable<Int8>();
  return has_zeros ? GroupTable<Int4, true>() : GroupTable<Int4, false>();
}

}  // namespace millrace::cpu
#endif  // __x86_64__
