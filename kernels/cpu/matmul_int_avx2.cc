// SPDX-License-Identifier: Apache-2.0
// int8 and int4 tiles with AVX2, exact: two vectors of 8 channels by up to 4 rows. vpmaddubsw saturates at 16 bits, so
// int8 (stored as q + 128, up to 255) is widened to 16 bits first, even and odd k apart, and multiplied by vpmaddwd;
// nibbles are small enough for vpmaddubsw: eight steps of two products of at most 15 * 128 stay below 2^15. What the
// unsigned form adds too much is the row's offset (see RowArgs), where sums start. Limited by the multiplier pipes when
// rows are many, by memory when they are few.
#if defined(__x86_64__)
#include <immintrin.h>

#include "kernels/cpu/matmul_kernels.h"
#include "kernels/cpu/quantize.h"

namespace millrace::cpu {
namespace {

constexpr int kVectors = 2;
constexpr int kLanes = 8;
constexpr int kChannels = kLanes * kVectors;
constexpr int64_t kLineBytes = 64;
static_assert(kChunkSteps * 2 * 15 * 128 < 32768, "a chunk of nibble products fits 16 bits");

// Where a tile stands while it walks down its panel.
struct Cursor {
  const uint8_t* weights;
  const uint8_t* items;
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
    for (int64_t step = 0; step < num_steps; ++step) {
      const uint8_t* items = cursor.items + step * kRows * kItemBytes;
      for (int vector = 0; vector < kVectors; ++vector) {
        const __m256i bytes = Load(cursor.weights + step * kStepBytes + vector * 32);
        const __m256i even = _mm256_and_si256(bytes, _mm256_set1_epi16(0x00ff));
        const __m256i odd = _mm256_srli_epi16(bytes, 8);
        for (int row = 0; row < kRows; ++row) {
          const __m256i low = _mm256_madd_epi16(even, Broadcast(items + row * kItemBytes));
          const __m256i high = _mm256_madd_epi16(odd, Broadcast(items + row * kItemBytes + 4));
          sums[row][vector] = _mm256_add_epi32(sums[row][vector], _mm256_add_epi32(low, high));
        }
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
  uint32_t max = 0;
  for (int64_t i = 0; i < count; ++i) {
    const uint32_t bits = __builtin_bit_cast(uint32_t, x[i]) & 0x7fffffffu;
    max = bits > max ? bits : max;
  }
  return max;
}

// The next four quantised values of a row, as int32; those past `count` are zero, and all of a row whose inverse is
// zero: there infinity and NaN must not become the integer that stands for overflow.
[[gnu::always_inline]] inline __m128i QuantizeStep(const float* x, int64_t count, __m128 inverse) {
  float values[4] = {};
  __builtin_memcpy(values, x, sizeof(float) * static_cast<size_t>(count < 4 ? count : 4));
  const __m128 is_used = _mm_cmpneq_ps(inverse, _mm_setzero_ps());
  return _mm_cvtps_epi32(_mm_and_ps(_mm_mul_ps(_mm_loadu_ps(values), inverse), is_used));
}

// Quantises as quantize.h defines it.
template <typename Weight, int kRows>
void IntRows(const RowArgs& args) {
  const int64_t num_groups = (args.k + args.group_size - 1) / args.group_size;
  const int64_t group_steps = num_groups == 1 ? args.num_steps : args.group_size / 4;
  const __m128i pairs_apart = _mm_setr_epi8(0, 1, 4, 5, 2, 3, 6, 7, -1, -1, -1, -1, -1, -1, -1, -1);
  for (int64_t index = 0; index < num_groups * kRows; ++index) {
    const int64_t group = index / kRows;
    const int64_t row = index % kRows;
    const float* x = args.x + row * args.stride + group * args.group_size;
    const QuantScale scale = QuantScaleFor(MaxMagnitude(x, args.group_size));
    const __m128 inverse = _mm_set1_ps(scale.inverse);
    uint8_t* items = args.items + (group * group_steps * kRows + row) * Weight::kItemBytes;
    __m128i sum = _mm_setzero_si128();
    for (int64_t step = 0; step < group_steps; ++step) {
      const __m128i q = QuantizeStep(x + step * 4, args.group_size - step * 4, inverse);
      sum = _mm_add_epi32(sum, q);
      const __m128i narrow = _mm_packs_epi32(q, q);
      uint8_t* item = items + step * kRows * Weight::kItemBytes;
      if constexpr (Weight::kItemBytes == 8) {
        _mm_storel_epi64(reinterpret_cast<__m128i*>(item), _mm_shuffle_epi8(narrow, pairs_apart));
      } else {
        const int32_t bytes = _mm_cvtsi128_si32(_mm_packs_epi16(narrow, narrow));
        __builtin_memcpy(item, &bytes, sizeof(bytes));
      }
    }
    sum = _mm_add_epi32(sum, _mm_shuffle_epi32(sum, 0x4e));
    sum = _mm_add_epi32(sum, _mm_shuffle_epi32(sum, 0xb1));
    args.scales[index] = scale.scale;
    args.offsets[index] = -_mm_cvtsi128_si32(sum) * args.zero;
  }
}

[[gnu::always_inline]] inline void Finish(const OutputArgs& args, int row, int channel, float y) {
  const int64_t index = row * args.stride + channel;
  if (args.bias != nullptr) y += args.bias[channel];
  if (args.residual != nullptr) y += args.residual[index];
  args.out[index] = y;
}

void ChannelOutput(const OutputArgs& args) {
  const int32_t* sums = static_cast<const int32_t*>(args.sums);
  for (int row = 0; row < args.rows; ++row) {
    for (int channel = 0; channel < args.channels; ++channel) {
      const float scale = args.channel_scales[channel] * args.row_scales[row];
      Finish(args, row, channel, static_cast<float>(sums[row * kChannels + channel]) * scale);
    }
  }
}

void GroupOutput(const OutputArgs& args) {
  const float* sums = static_cast<const float*>(args.sums);
  for (int row = 0; row < args.rows; ++row) {
    for (int channel = 0; channel < args.channels; ++channel) {
      Finish(args, row, channel, sums[row * kChannels + channel] * args.scale_unit);
    }
  }
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
