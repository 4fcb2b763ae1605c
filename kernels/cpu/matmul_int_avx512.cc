// SPDX-License-Identifier: Apache-2.0
// int8 and int4 tiles with AVX-512 VNNI: vpdpbusd adds four products of an unsigned weight (q + 128, or a nibble) and
// a signed activation to a 32-bit sum, exactly. What the unsigned form adds too much is known before the first
// product: sums start at the row's offset (see RowArgs). With a scale per channel one exact sum runs along all of k;
// with groups it is scaled and added in float32 at each group's end. Tiles are 4 vectors of 16 channels by up to 6
// rows. Limited by the two dot-product pipes when rows are many, by memory when they are few.
#include <immintrin.h>

#include "kernels/cpu/matmul_kernels.h"
#include "kernels/cpu/quantize.h"

namespace millrace::cpu {
namespace {

constexpr int kVectors = 4;
constexpr int kChannels = 16 * kVectors;
constexpr int64_t kLineBytes = 64;
// Up to this height the float sums of a grouped tile stay in registers beside the exact ones.
constexpr int kMaxRegisterRows = 2;

struct Int8 {
  static constexpr int kStepBytes = kChannels * 4;
  static inline void Load(const uint8_t* step, __m512i (&w)[kVectors]) {
    for (int vector = 0; vector < kVectors; ++vector) w[vector] = _mm512_loadu_si512(step + vector * 64);
  }
};

struct Int4 {
  static constexpr int kStepBytes = kChannels * 2;
  static inline void Load(const uint8_t* step, __m512i (&w)[kVectors]) {
    const __m512i low_nibbles = _mm512_set1_epi8(15);
    for (int pair = 0; pair < kVectors / 2; ++pair) {
      const __m512i bytes = _mm512_loadu_si512(step + pair * 64);
      w[2 * pair] = _mm512_and_si512(bytes, low_nibbles);
      w[2 * pair + 1] = _mm512_and_si512(_mm512_srli_epi16(bytes, 4), low_nibbles);
    }
  }
};

// Where a tile stands while it walks down its panel.
struct Cursor {
  const uint8_t* weights;
  const int32_t* items;
  const uint8_t* prefetch;
};

// Adds `num_steps` steps to the exact sums.
template <typename Weight, int kRows>
inline void AddSteps(const TileArgs& args, int64_t num_steps, Cursor& cursor, __m512i (&sums)[kRows][kVectors]) {
  const uint8_t* weights = cursor.weights;
  const int32_t* items = cursor.items;
  const uint8_t* prefetch = cursor.prefetch;
  for (int64_t step = 0; step < num_steps; ++step) {
    if (prefetch < args.prefetch_end) {
      for (int64_t line = 0; line < args.prefetch_step_bytes; line += kLineBytes) {
        _mm_prefetch(reinterpret_cast<const char*>(prefetch + line), _MM_HINT_T0);
      }
      prefetch += args.prefetch_step_bytes;
    }
    __m512i w[kVectors];
    Weight::Load(weights, w);
    for (int row = 0; row < kRows; ++row) {
      const __m512i x = _mm512_set1_epi32(items[row]);
      for (int vector = 0; vector < kVectors; ++vector) {
        sums[row][vector] = _mm512_dpbusd_epi32(sums[row][vector], w[vector], x);
      }
    }
    weights += Weight::kStepBytes;
    items += kRows;
  }
  cursor = {weights, items, prefetch};
}

template <typename Weight, int kRows>
void ChannelTile(const TileArgs& args) {
  int32_t* out = static_cast<int32_t*>(args.sums);
  __m512i sums[kRows][kVectors];
  for (int row = 0; row < kRows; ++row) {
    for (int vector = 0; vector < kVectors; ++vector) {
      sums[row][vector] = args.is_first ? _mm512_set1_epi32(args.offsets[row])
                                        : _mm512_loadu_si512(out + row * kChannels + vector * 16);
    }
  }
  Cursor cursor = {args.weights, reinterpret_cast<const int32_t*>(args.activations), args.prefetch};
  AddSteps<Weight, kRows>(args, args.num_units, cursor, sums);
  for (int row = 0; row < kRows; ++row) {
    for (int vector = 0; vector < kVectors; ++vector) {
      _mm512_storeu_si512(out + row * kChannels + vector * 16, sums[row][vector]);
    }
  }
}

// The exact sums of a group start at what the unsigned weights will add too much.
template <bool kHasZeros, int kRows>
inline void StartGroup(const uint8_t* zeros, const int32_t* offsets, __m512i (&sums)[kRows][kVectors]) {
  for (int vector = 0; vector < kVectors; ++vector) {
    __m512i zero = _mm512_setzero_si512();
    if constexpr (kHasZeros) {
      zero = _mm512_cvtepu8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(zeros + vector * 16)));
    }
    for (int row = 0; row < kRows; ++row) {
      const __m512i offset = _mm512_set1_epi32(offsets[row]);
      // The zero in the low 16 bits times minus the sum of the activations; the high halves multiply to nothing.
      sums[row][vector] = kHasZeros ? _mm512_dpwssd_epi32(_mm512_setzero_si512(), zero, offset) : offset;
    }
  }
}

template <typename Weight, bool kHasZeros, int kRows>
void GroupTile(const TileArgs& args) {
  constexpr bool kInRegisters = kRows <= kMaxRegisterRows;
  constexpr int kHeaderBytes = kChannels * (kHasZeros ? 3 : 2);
  float* out = static_cast<float*>(args.sums);
  __m512 totals[kRows][kVectors];
  for (int row = 0; row < kRows; ++row) {
    for (int vector = 0; vector < kVectors; ++vector) {
      float* total = out + row * kChannels + vector * 16;
      if (args.is_first && !kInRegisters) _mm512_storeu_ps(total, _mm512_setzero_ps());
      if (kInRegisters) totals[row][vector] = args.is_first ? _mm512_setzero_ps() : _mm512_loadu_ps(total);
    }
  }
  Cursor cursor = {args.weights, reinterpret_cast<const int32_t*>(args.activations), args.prefetch};
  for (int64_t unit = 0; unit < args.num_units; ++unit) {
    const uint8_t* header = cursor.weights;
    const float* x_scales = args.scales + unit * kRows;
    __m512i sums[kRows][kVectors];
    StartGroup<kHasZeros, kRows>(header + kChannels * 2, args.offsets + unit * kRows, sums);
    cursor.weights += kHeaderBytes;
    AddSteps<Weight, kRows>(args, args.steps_per_unit, cursor, sums);
    for (int vector = 0; vector < kVectors; ++vector) {
      const __m512 scale = _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(header + vector * 32)));
      for (int row = 0; row < kRows; ++row) {
        float* total = out + row * kChannels + vector * 16;
        const __m512 before = kInRegisters ? totals[row][vector] : _mm512_loadu_ps(total);
        const __m512 after = _mm512_fmadd_ps(_mm512_cvtepi32_ps(sums[row][vector]),
                                             _mm512_mul_ps(scale, _mm512_set1_ps(x_scales[row])), before);
        if (kInRegisters) {
          totals[row][vector] = after;
        } else {
          _mm512_storeu_ps(total, after);
        }
      }
    }
  }
  if (!kInRegisters) return;
  for (int row = 0; row < kRows; ++row) {
    for (int vector = 0; vector < kVectors; ++vector) {
      _mm512_storeu_ps(out + row * kChannels + vector * 16, totals[row][vector]);
    }
  }
}

inline __mmask16 FirstLanes(int64_t count) {
  return count >= 16 ? 0xffff : count <= 0 ? 0 : static_cast<__mmask16>((1u << count) - 1);
}

// q = round(x * 127 / max|x|) of `count` values of one row, as quantize.h defines it, written as items of four that
// lie `stride` items apart, `num_steps` of them. Returns the sum of q.
inline int32_t QuantizeGroup(const float* x, int64_t count, int64_t num_steps, int64_t stride, int32_t* items,
                             float* scale) {
  const __m512i magnitude = _mm512_set1_epi32(0x7fffffff);
  __m512i max = _mm512_setzero_si512();
  for (int64_t i = 0; i < count; i += 16) {
    const __m512 values = _mm512_maskz_loadu_ps(FirstLanes(count - i), x + i);
    max = _mm512_max_epu32(max, _mm512_and_si512(_mm512_castps_si512(values), magnitude));
  }
  const QuantScale chosen = QuantScaleFor(_mm512_reduce_max_epu32(max));
  *scale = chosen.scale;
  const __m512 inverse = _mm512_set1_ps(chosen.inverse);
  const bool is_zero = chosen.inverse == 0.0f;  // an infinite or NaN value times zero must not become a number
  __m128i sum = _mm_setzero_si128();
  for (int64_t step = 0; step < num_steps; step += 4) {
    const __mmask16 mask = is_zero ? 0 : FirstLanes(count - step * 4);
    const __m512 values = _mm512_maskz_loadu_ps(mask, x + step * 4);
    const __m128i q = _mm512_cvtsepi32_epi8(_mm512_cvtps_epi32(_mm512_mul_ps(values, inverse)));
    sum = _mm_dpbusd_epi32(sum, _mm_set1_epi8(1), q);
    alignas(16) int32_t lanes[4];
    _mm_store_si128(reinterpret_cast<__m128i*>(lanes), q);
    const int64_t num_items = num_steps - step < 4 ? num_steps - step : 4;
    for (int64_t i = 0; i < num_items; ++i) items[(step + i) * stride] = lanes[i];
  }
  sum = _mm_add_epi32(sum, _mm_shuffle_epi32(sum, 0x4e));
  return _mm_cvtsi128_si32(_mm_add_epi32(sum, _mm_shuffle_epi32(sum, 0xb1)));
}

// `kHasZeros`: offsets keep only their low 16 bits, for vpdpwssd.
template <bool kHasZeros>
void IntRows(const RowArgs& args) {
  const int64_t num_groups = (args.k + args.group_size - 1) / args.group_size;
  const int64_t group_steps = num_groups == 1 ? args.num_steps : args.group_size / 4;
  for (int64_t group = 0; group < num_groups; ++group) {
    for (int row = 0; row < args.rows; ++row) {
      const int64_t index = group * args.rows + row;
      int32_t* items = reinterpret_cast<int32_t*>(args.items) + group * group_steps * args.rows + row;
      const int32_t sum = QuantizeGroup(args.x + row * args.stride + group * args.group_size, args.group_size,
                                        group_steps, args.rows, items, args.scales + index);
      args.offsets[index] = kHasZeros ? (-sum & 0xffff) : -sum * args.zero;
    }
  }
}

void IntOutput(const OutputArgs& args) {
  const __m512 unit = _mm512_set1_ps(args.scale_unit);
  for (int row = 0; row < args.rows; ++row) {
    for (int channel = 0; channel < args.channels; channel += 16) {
      const __mmask16 mask = FirstLanes(args.channels - channel);
      const int64_t index = row * args.stride + channel;
      const int64_t sum_index = row * kChannels + channel;
      __m512 y;
      if (args.row_scales != nullptr) {
        const __m512 scale =
            _mm512_mul_ps(_mm512_loadu_ps(args.channel_scales + channel), _mm512_set1_ps(args.row_scales[row]));
        const __m512i sums = _mm512_loadu_si512(static_cast<const int32_t*>(args.sums) + sum_index);
        y = _mm512_mul_ps(_mm512_cvtepi32_ps(sums), scale);
      } else {
        y = _mm512_mul_ps(_mm512_loadu_ps(static_cast<const float*>(args.sums) + sum_index), unit);
      }
      if (args.bias != nullptr) y = _mm512_add_ps(y, _mm512_maskz_loadu_ps(mask, args.bias + channel));
      if (args.residual != nullptr) y = _mm512_add_ps(y, _mm512_maskz_loadu_ps(mask, args.residual + index));
      _mm512_mask_storeu_ps(args.out + index, mask, y);
    }
  }
}

template <typename Weight>
PanelKernels ChannelTable() {
  return {.max_tile_rows = 6,
          .tiles = {ChannelTile<Weight, 1>, ChannelTile<Weight, 2>, ChannelTile<Weight, 3>, ChannelTile<Weight, 4>,
                    ChannelTile<Weight, 5>, ChannelTile<Weight, 6>},
          .rows = IntRows<false>,
          .output = IntOutput};
}

template <typename Weight, bool kHasZeros>
PanelKernels GroupTable() {
  return {.max_tile_rows = 6,
          .tiles = {GroupTile<Weight, kHasZeros, 1>, GroupTile<Weight, kHasZeros, 2>, GroupTile<Weight, kHasZeros, 3>,
                    GroupTile<Weight, kHasZeros, 4>, GroupTile<Weight, kHasZeros, 5>, GroupTile<Weight, kHasZeros, 6>},
          .rows = IntRows<kHasZeros>,
          .output = IntOutput};
}

}  // namespace

PanelKernels IntKernelsAvx512(WeightFormat format, bool is_grouped, bool has_zeros) {
  if (format == WeightFormat::kInt8) return is_grouped ? GroupTable<Int8, false>() : ChannelTable<Int8>();
  return has_zeros ? GroupTable<Int4, true>() : GroupTable<Int4, false>();
}

}  // namespace millrace::cpu
