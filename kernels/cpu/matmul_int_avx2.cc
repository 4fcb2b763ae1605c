// SPDX-License-Identifier: Apache-2.0
// int8 and int4 tiles with AVX2, exact: two vectors of 8 channels by up to 4 rows. vpmaddubsw saturates at 16 bits, so
// int8 (stored as q + 128, up to 255) is widened to 16 bits first, even and odd k apart, and multiplied by vpmaddwd;
// nibbles are small enough for vpmaddubsw: eight steps of two products of at most 15 * 128 stay below 2^15. What the
// unsigned form adds too much is the row's offset (see RowArgs), where sums start. Limited by the multiplier pipes when
// rows are many, by memory when they are few.
#if defined(__x86_64__)
#include <immintrin.h>

#include "kernels/cpu/matmul_avx2.h"
#include "kernels/cpu/matmul_kernels.h"
#include "kernels/cpu/quantize.h"

namespace millrace::cpu {
namespace {

using avx2::kChannels;
using avx2::kLanes;
using avx2::kVectors;
using avx2::Prefetch;
static_assert(kChunkSteps * 2 * 15 * 128 < 32768, "a chunk of nibble products fits 16 bits");

// Where a tile stands while it walks down its panel.
struct Cursor {
  const uint8_t* weights;
  const uint8_t* items;
  const uint8_t* prefetch;
};

[[gnu::always_inline]] inline __m256i Load(const uint8_t* bytes) {
  return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(bytes));
}

[[gnu::always_inline]] inline __m256i Broadcast(const uint8_t* four_bytes) {
  int32_t value;
  __builtin_memcpy(&value, four_bytes, sizeof(value));
  return _mm256_set1_epi32(value);
}

struct Int8 {
  static constexpr int kStepBytes = kChannels * 4;
  static constexpr int kItemBytes = 8;  // int16 of k0 k2 k1 k3
  static constexpr int kOddShift = 0;

  template <int kRows>
  [[gnu::always_inline]] static inline void AddSteps(const Cursor& cursor, int64_t num_steps,
                                                     __m256i (&sums)[kRows][kVectors]) {
    // Even k first, then odd, and rows outside vectors: one load of a row's values serves both vectors, and everything
    // stays in sixteen registers.
    for (int64_t step = 0; step < num_steps; ++step) {
      const uint8_t* weights = cursor.weights + step * kStepBytes;
      const uint8_t* items = cursor.items + step * kRows * kItemBytes;
      const __m256i even[kVectors] = {_mm256_and_si256(Load(weights), _mm256_set1_epi16(0x00ff)),
                                      _mm256_and_si256(Load(weights + 32), _mm256_set1_epi16(0x00ff))};
      AddProducts(even, items, sums);
      const __m256i odd[kVectors] = {_mm256_srli_epi16(Load(weights), 8), _mm256_srli_epi16(Load(weights + 32), 8)};
      AddProducts(odd, items + 4, sums);
    }
  }

 private:
  template <int kRows>
  [[gnu::always_inline]] static inline void AddProducts(const __m256i (&w)[kVectors], const uint8_t* items,
                                                        __m256i (&sums)[kRows][kVectors]) {
    for (int row = 0; row < kRows; ++row) {
      const __m256i x = Broadcast(items + row * kItemBytes);
      for (int vector = 0; vector < kVectors; ++vector) {
        sums[row][vector] = _mm256_add_epi32(sums[row][vector], _mm256_madd_epi16(w[vector], x));
      }
    }
  }
};

struct Int4 {
  static constexpr int kStepBytes = kChannels * 2;
  static constexpr int kItemBytes = 4;
  static constexpr int kOddShift = 4;  // the packed scales of high nibbles are a 16th

  // REQUIRES: num_steps <= kChunkSteps.
  template <int kRows>
  [[gnu::always_inline]] static inline void AddSteps(const Cursor& cursor, int64_t num_steps,
                                                     __m256i (&sums)[kRows][kVectors]) {
    __m256i narrow[kRows][kVectors];
    for (int row = 0; row < kRows; ++row) {
      for (int vector = 0; vector < kVectors; ++vector) narrow[row][vector] = _mm256_setzero_si256();
    }
    for (int64_t step = 0; step < num_steps; ++step) {
      const __m256i bytes = Load(cursor.weights + step * kStepBytes);
      const __m256i low = _mm256_and_si256(bytes, _mm256_set1_epi8(15));
      const __m256i high = _mm256_and_si256(_mm256_srli_epi16(bytes, 4), _mm256_set1_epi8(15));
      for (int row = 0; row < kRows; ++row) {
        const __m256i x = Broadcast(cursor.items + (step * kRows + row) * kItemBytes);
        narrow[row][0] = _mm256_add_epi16(narrow[row][0], _mm256_maddubs_epi16(low, x));
        narrow[row][1] = _mm256_add_epi16(narrow[row][1], _mm256_maddubs_epi16(high, x));
      }
    }
    for (int row = 0; row < kRows; ++row) {
      for (int vector = 0; vector < kVectors; ++vector) {
        const __m256i wide = _mm256_madd_epi16(narrow[row][vector], _mm256_set1_epi16(1));
        sums[row][vector] = _mm256_add_epi32(sums[row][vector], wide);
      }
    }
  }
};

template <typename Weight, int kRows>
[[gnu::always_inline]] inline void AddChunk(const TileArgs& args, Cursor& cursor, __m256i (&sums)[kRows][kVectors]) {
  Prefetch(args, cursor.prefetch);
  Weight::AddSteps(cursor, kChunkSteps, sums);
  cursor.weights += kChunkSteps * Weight::kStepBytes;
  cursor.items += kChunkSteps * kRows * Weight::kItemBytes;
}

template <typename Weight, int kRows>
void ChannelTile(const TileArgs& args) {
  int32_t* out = static_cast<int32_t*>(args.sums);
  __m256i sums[kRows][kVectors];
  for (int row = 0; row < kRows; ++row) {
    for (int vector = 0; vector < kVectors; ++vector) {
      const int32_t* before = out + row * kChannels + vector * kLanes;
      sums[row][vector] = args.is_first ? _mm256_set1_epi32(args.offsets[row])
                                        : _mm256_loadu_si256(reinterpret_cast<const __m256i*>(before));
    }
  }
  Cursor cursor = {args.weights, args.activations, args.prefetch};
  int64_t step = 0;
  for (; step + kChunkSteps <= args.num_units; step += kChunkSteps) AddChunk<Weight>(args, cursor, sums);
  Weight::AddSteps(cursor, args.num_units - step, sums);
  for (int row = 0; row < kRows; ++row) {
    for (int vector = 0; vector < kVectors; ++vector) {
      _mm256_storeu_si256(reinterpret_cast<__m256i*>(out + row * kChannels + vector * kLanes), sums[row][vector]);
    }
  }
}

template <typename Weight, bool kHasZeros, int kRows>
void GroupTile(const TileArgs& args) {
  constexpr int kHeaderBytes = kChannels * (kHasZeros ? 3 : 2);
  float* out = static_cast<float*>(args.sums);
  if (args.is_first) {
    for (int i = 0; i < kRows * kChannels; i += kLanes) _mm256_storeu_ps(out + i, _mm256_setzero_ps());
  }
  Cursor cursor = {args.weights, args.activations, args.prefetch};
  const float* x_scales = args.scales;
  const int32_t* offsets = args.offsets;
  for (int64_t unit = 0; unit < args.num_units; ++unit) {
    const uint8_t* header = cursor.weights;
    cursor.weights += kHeaderBytes;
    __m256i sums[kRows][kVectors];
    for (int row = 0; row < kRows; ++row) {
      for (int vector = 0; vector < kVectors; ++vector) sums[row][vector] = _mm256_setzero_si256();
    }
    for (int64_t step = 0; step < args.steps_per_unit; step += kChunkSteps) AddChunk<Weight>(args, cursor, sums);
    for (int vector = 0; vector < kVectors; ++vector) {
      const __m256 w_scale = _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(header + vector * 16)));
      const uint8_t* zeros = header + kChannels * 2 + vector * kLanes;
      const __m256i zero = kHasZeros ? _mm256_cvtepu8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(zeros)))
                                     : _mm256_set1_epi32(1);
      for (int row = 0; row < kRows; ++row) {
        const __m256i offset = _mm256_mullo_epi32(zero, _mm256_set1_epi32(offsets[row]));
        const __m256i sum =
            _mm256_slli_epi32(_mm256_add_epi32(sums[row][vector], offset), vector % 2 * Weight::kOddShift);
        const __m256 scale = _mm256_mul_ps(w_scale, _mm256_set1_ps(x_scales[row]));
        float* total = out + row * kChannels + vector * kLanes;
        _mm256_storeu_ps(total, _mm256_fmadd_ps(_mm256_cvtepi32_ps(sum), scale, _mm256_loadu_ps(total)));
      }
    }
    x_scales += kRows;
    offsets += kRows;
  }
}

[[gnu::always_inline]] inline uint32_t MaxMagnitude(const float* x, int64_t count) {
  const __m256i magnitude_bits = _mm256_set1_epi32(0x7fffffff);
  __m256i maxima = _mm256_setzero_si256();
  int64_t i = 0;
  for (; i + kLanes <= count; i += kLanes) {
    const __m256i bits = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(x + i));
    maxima = _mm256_max_epu32(maxima, _mm256_and_si256(bits, magnitude_bits));
  }
  uint32_t lanes[kLanes];
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(lanes), maxima);
  uint32_t max = 0;
  for (const uint32_t lane : lanes) max = lane > max ? lane : max;
  for (; i < count; ++i) {
    const uint32_t bits = __builtin_bit_cast(uint32_t, x[i]) & 0x7fffffffu;
    max = bits > max ? bits : max;
  }
  return max;
}

// Eight values quantised, as int32: zero where the inverse is, for there infinity and NaN must not become the integer
// that stands for overflow.
[[gnu::always_inline]] inline __m256i Quantize(__m256 values, __m256 inverse) {
  const __m256 is_used = _mm256_cmp_ps(inverse, _mm256_setzero_ps(), _CMP_NEQ_OQ);
  return _mm256_cvtps_epi32(_mm256_and_ps(_mm256_mul_ps(values, inverse), is_used));
}

// The items of two steps.
template <typename Weight>
[[gnu::always_inline]] inline void StoreItems(__m256i q, uint8_t* first_item, uint8_t* second_item) {
  const __m256i narrow = _mm256_packs_epi32(q, q);  // the four values of a step twice per half
  if constexpr (Weight::kItemBytes == 8) {
    const __m256i pairs_apart =
        _mm256_broadcastsi128_si256(_mm_setr_epi8(0, 1, 4, 5, 2, 3, 6, 7, -1, -1, -1, -1, -1, -1, -1, -1));
    const __m256i apart = _mm256_shuffle_epi8(narrow, pairs_apart);
    _mm_storel_epi64(reinterpret_cast<__m128i*>(first_item), _mm256_castsi256_si128(apart));
    _mm_storel_epi64(reinterpret_cast<__m128i*>(second_item), _mm256_extracti128_si256(apart, 1));
  } else {
    const __m256i bytes = _mm256_packs_epi16(narrow, narrow);
    const int32_t first = _mm_cvtsi128_si32(_mm256_castsi256_si128(bytes));
    const int32_t second = _mm_cvtsi128_si32(_mm256_extracti128_si256(bytes, 1));
    __builtin_memcpy(first_item, &first, sizeof(first));
    __builtin_memcpy(second_item, &second, sizeof(second));
  }
}

// Quantises as quantize.h defines it.
template <typename Weight, int kRows>
void IntRows(const RowArgs& args) {
  constexpr int64_t kStepBytes = kRows * Weight::kItemBytes;
  const int64_t num_groups = (args.k + args.group_size - 1) / args.group_size;
  const int64_t group_steps = num_groups == 1 ? args.num_steps : args.group_size / 4;
  for (int64_t index = 0; index < num_groups * kRows; ++index) {
    const int64_t group = index / kRows;
    const int64_t row = index % kRows;
    const float* x = args.x + row * args.stride + group * args.group_size;
    const QuantScale scale = QuantScaleFor(MaxMagnitude(x, args.group_size));
    const __m256 inverse = _mm256_set1_ps(scale.inverse);
    uint8_t* items = args.items + group * group_steps * kStepBytes + row * Weight::kItemBytes;
    __m256i sums = _mm256_setzero_si256();
    for (int64_t step = 0; step < group_steps; step += 2) {
      const int64_t left = args.group_size - step * 4;
      float rest[kLanes] = {};
      if (left < kLanes) __builtin_memcpy(rest, x + step * 4, sizeof(float) * static_cast<size_t>(left < 0 ? 0 : left));
      const __m256i q = Quantize(_mm256_loadu_ps(left < kLanes ? rest : x + step * 4), inverse);
      sums = _mm256_add_epi32(sums, q);
      uint8_t spare[Weight::kItemBytes];  // an odd number of steps ends in half a vector
      StoreItems<Weight>(q, items + step * kStepBytes,
                         step + 1 < group_steps ? items + (step + 1) * kStepBytes : spare);
    }
    int32_t lanes[kLanes];
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(lanes), sums);
    int32_t sum = 0;
    for (const int32_t lane : lanes) sum += lane;
    args.scales[index] = scale.scale;
    args.offsets[index] = -sum * args.zero;
  }
}

void ChannelOutput(const OutputArgs& args) {
  const int32_t* sums = static_cast<const int32_t*>(args.sums);
  avx2::WriteOutput(args, [&](int row, int vector) {
    const __m256i sum = Load(reinterpret_cast<const uint8_t*>(sums + row * kChannels + vector * kLanes));
    const __m256 channel_scales = _mm256_loadu_ps(args.channel_scales + vector * kLanes);
    return _mm256_mul_ps(_mm256_cvtepi32_ps(sum), _mm256_mul_ps(channel_scales, _mm256_set1_ps(args.row_scales[row])));
  });
}

void GroupOutput(const OutputArgs& args) {
  const float* sums = static_cast<const float*>(args.sums);
  avx2::WriteOutput(args, [&](int row, int vector) {
    return _mm256_mul_ps(_mm256_loadu_ps(sums + row * kChannels + vector * kLanes), _mm256_set1_ps(args.scale_unit));
  });
}

PanelKernels ChannelTable() {
  return {.max_tile_rows = 4,
          .tiles = {ChannelTile<Int8, 1>, ChannelTile<Int8, 2>, ChannelTile<Int8, 3>, ChannelTile<Int8, 4>},
          .rows = {IntRows<Int8, 1>, IntRows<Int8, 2>, IntRows<Int8, 3>, IntRows<Int8, 4>},
          .output = ChannelOutput};
}

template <typename Weight, bool kHasZeros>
PanelKernels GroupTable() {
  return {.max_tile_rows = 4,
          .tiles = {GroupTile<Weight, kHasZeros, 1>, GroupTile<Weight, kHasZeros, 2>, GroupTile<Weight, kHasZeros, 3>,
                    GroupTile<Weight, kHasZeros, 4>},
          .rows = {IntRows<Weight, 1>, IntRows<Weight, 2>, IntRows<Weight, 3>, IntRows<Weight, 4>},
          .output = GroupOutput};
}

}  // namespace

PanelKernels IntKernelsAvx2(WeightFormat format, bool is_grouped, bool has_zeros) {
  if (format == WeightFormat::kInt8) return is_grouped ? GroupTable<Int8, false>() : ChannelTable();
  return has_zeros ? GroupTable<Int4, true>() : GroupTable<Int4, false>();
}

}  // namespace millrace::cpu
#endif  // __x86_64__
