// SPDX-License-Identifier: Apache-2.0
#pragma once
// What the dense and the integer AVX2 tiles share: the tile's width, fetching ahead, and writing results. Only
// *_avx2.cc include this. Stateless; any thread.
#include <immintrin.h>

#include <cstdint>

#include "kernels/cpu/matmul_kernels.h"

namespace millrace::cpu::avx2 {

constexpr int kVectors = 2;
constexpr int kLanes = 8;
constexpr int kChannels = kLanes * kVectors;
constexpr int64_t kLineBytes = 64;

[[gnu::always_inline]] inline void Prefetch(const TileArgs& args, const uint8_t*& prefetch) {
  if (prefetch >= args.prefetch_end) return;
#pragma clang loop unroll(disable)
  for (int64_t line = 0; line < args.prefetch_chunk_bytes; line += kLineBytes) {
    _mm_prefetch(reinterpret_cast<const char*>(prefetch + line), _MM_HINT_T0);
  }
  prefetch += args.prefetch_chunk_bytes;
}

// out = residual + bias + value(row, vector of channels). The last panel's padding channels are not written.
template <typename Value>
[[gnu::always_inline]] inline void WriteOutput(const OutputArgs& args, Value value) {
  for (int row = 0; row < args.rows; ++row) {
    for (int vector = 0; vector < kVectors; ++vector) {
      const int channel = vector * kLanes;
      const int64_t index = row * args.stride + channel;
      __m256 y = value(row, vector);
      if (channel + kLanes <= args.channels) {
        if (args.bias != nullptr) y = _mm256_add_ps(y, _mm256_loadu_ps(args.bias + channel));
        if (args.residual != nullptr) y = _mm256_add_ps(y, _mm256_loadu_ps(args.residual + index));
        _mm256_storeu_ps(args.out + index, y);
        continue;
      }
      float values[kLanes];
      _mm256_storeu_ps(values, y);
      for (int i = 0; i < args.channels - channel; ++i) {
        if (args.bias != nullptr) values[i] += args.bias[channel + i];
        if (args.residual != nullptr) values[i] += args.residual[index + i];
        args.out[index + i] = values[i];
      }
    }
  }
}

}  // namespace millrace::cpu::avx2
