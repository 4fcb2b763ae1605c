// SPDX-License-Identifier: Apache-2.0
#pragma once
// The sampling kernels, written once over simd.h and compiled per instruction set. Included by sample_avx512.cc and
// sample_avx2.cc only. Limited by the cache the logits lie in.
#include <cstdint>

#include "kernels/cpu/sample_kernels.h"
#include "kernels/cpu/simd.h"

namespace millrace::cpu::MILLRACE_SIMD {

constexpr float kInfinity = __builtin_inff();

// The last vector may be short; lanes past the end read as `filler`.
inline Vec LoadLanes(const float* from, int64_t count, Vec filler) {
  return count >= kWidth ? Load(from) : Select(FirstLanes(count), LoadPart(from, count), filler);
}
inline int64_t BlockEnd(int64_t begin, int64_t vocab) {
  return begin + kSampleBlock < vocab ? begin + kSampleBlock : vocab;
}

inline bool BlockMaxima(const float* logits, int64_t vocab, float* maxima) {
  const Vec never = Set(-kInfinity);
  const Vec limit = Set(3.40282347e38f);  // the largest finite number
  uint32_t broken = 0;
  for (int64_t begin = 0; begin < vocab; begin += kSampleBlock) {
    const int64_t end = BlockEnd(begin, vocab);
    Vec largest = never, not_finite = Zero();
    for (int64_t i = begin; i < end; i += kWidth) {
      const Vec value = LoadLanes(logits + i, end - i, never);
      largest = Max(largest, value);
      not_finite = Select(IsNotFiniteAbove(value, limit), Set(1.0f), not_finite);
    }
    broken |= Bits(IsLess(Zero(), not_finite));
    *maxima++ = Largest(largest);
  }
  return broken == 0;
}

inline Vec Weight(Vec logit, Vec largest, Vec temperature) { return Exp((logit - largest) / temperature); }

inline void BlockSums(const float* logits, int64_t vocab, float largest, float temperature, float* sums) {
  const Vec most = Set(largest), heat = Set(temperature), never = Set(-kInfinity);
  for (int64_t begin = 0; begin < vocab; begin += kSampleBlock) {
    const int64_t end = BlockEnd(begin, vocab);
    Vec sum = Zero();
    for (int64_t i = begin; i < end; i += kWidth) {
      sum = Add(sum, Weight(LoadLanes(logits + i, end - i, never), most, heat));
    }
    *sums++ = Sum(sum);
  }
}

inline void Weigh(const float* logits, int64_t count, float largest, float temperature, float* weights) {
  const Vec most = Set(largest), heat = Set(temperature);
  for (int64_t i = 0; i < count; i += kWidth) {
    StorePart(weights + i, Weight(LoadPart(logits + i, count - i), most, heat), count - i);
  }
}

inline int64_t Collect(const float* logits, int64_t vocab, float threshold, int32_t* ids, float* values) {
  const Vec least = Set(threshold);
  int64_t num_found = 0;
  for (int64_t i = 0; i < vocab; i += kWidth) {
    const int64_t count = vocab - i;
    uint32_t found = Bits(IsAtLeast(LoadPart(logits + i, count), least));
    if (count < kWidth) found &= (1u << static_cast<unsigned>(count)) - 1u;
    for (; found != 0; found &= found - 1) {
      const int64_t id = i + __builtin_ctz(found);
      ids[num_found] = static_cast<int32_t>(id);
      values[num_found++] = logits[id];
    }
  }
  return num_found;
}

inline int64_t CountAtLeast(const float* logits, int64_t vocab, float threshold) {
  const Vec least = Set(threshold);
  int64_t count = 0;
  int64_t i = 0;
  for (; i + kWidth <= vocab; i += kWidth) count += __builtin_popcount(Bits(IsAtLeast(Load(logits + i), least)));
  for (; i < vocab; ++i) count += logits[i] >= threshold ? 1 : 0;
  return count;
}

inline void ForbidUnmasked(float* logits, int64_t vocab, const uint32_t* mask) {
  const Vec never = Set(-kInfinity);
  for (int64_t i = 0; i < vocab; i += kWidth) {
    const uint32_t bits = mask[i / 32] >> static_cast<unsigned>(i % 32);
    const Vec value = LoadPart(logits + i, vocab - i);
    StorePart(logits + i, Select(FromBits(bits), value, Min(never, value)), vocab - i);
  }
}

inline SampleKernels TheSampleKernels() {
  return {.block_maxima = BlockMaxima,
          .block_sums = BlockSums,
          .weigh = Weigh,
          .collect = Collect,
          .count_at_least = CountAtLeast,
          .forbid = ForbidUnmasked};
}

}  // namespace millrace::cpu::MILLRACE_SIMD
