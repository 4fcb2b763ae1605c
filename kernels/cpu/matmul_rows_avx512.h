// SPDX-License-Identifier: Apache-2.0
#pragma once
// Shared by the *_avx512.cc kernels of matmul: lane masks, the interleaving of packed activations and
// the last step of an output. Everything has
// internal linkage, because code compiled with these instructions must not be the linker's copy for other files.
#if defined(__x86_64__)
#include <immintrin.h>

#include <cstdint>

#include "kernels/cpu/matmul_kernels.h"

namespace millrace::cpu {
namespace {

[[maybe_unused, gnu::always_inline]] inline __mmask16 FirstLanes(int64_t count) {
  return count >= 16 ? 0xffff : count <= 0 ? 0 : static_cast<__mmask16>((1u << count) - 1);
}

// Adds bias and residual to the sixteen channels from `channel` on of one row and writes them. Masked memory accesses
// are slow, so only the last vector of a matrix uses them.
[[maybe_unused, gnu::always_inline]] inline void Finish(const OutputArgs& args, int row, int channel, __m512 y) {
  const int64_t index = row * args.stride + channel;
  if (args.channels - channel >= 16) {
    if (args.bias != nullptr) y = _mm512_add_ps(y, _mm512_loadu_ps(args.bias + channel));
    if (args.residual != nullptr) y = _mm512_add_ps(y, _mm512_loadu_ps(args.residual + index));
    _mm512_storeu_ps(args.out + index, y);
    return;
  }
  const __mmask16 mask = FirstLanes(args.channels - channel);
  if (args.bias != nullptr) y = _mm512_add_ps(y, _mm512_maskz_loadu_ps(mask, args.bias + channel));
  if (args.residual != nullptr) y = _mm512_add_ps(y, _mm512_maskz_loadu_ps(mask, args.residual + index));
  _mm512_mask_storeu_ps(args.out + index, mask, y);
}

// For a tile of kRows rows, lane l of output vector o holds item (16 o + l) / kRows of row (16 o + l) % kRows.
// `kTransposed`: a source vector holds item 4 q + lane at dword 4 lane + q, as two packs of 128-bit lanes leave it.
template <int kRows, bool kTransposed>
struct InterleaveTable {
  alignas(64) int32_t index[kRows][16] = {};
  __mmask16 mask[kRows][kRows] = {};  // [output][row]

  constexpr InterleaveTable() {
    for (int output = 0; output < kRows; ++output) {
      for (int lane = 0; lane < 16; ++lane) {
        const int position = 16 * output + lane;
        const int item = position / kRows;
        index[output][lane] = kTransposed ? item % 4 * 4 + item / 4 : item;
        mask[output][position % kRows] = static_cast<__mmask16>(mask[output][position % kRows] | 1u << lane);
      }
    }
  }
};

// Writes sixteen items of each row, interleaved, the first `num_items` of them: out[item * kRows + row].
template <int kRows, bool kTransposed>
[[gnu::always_inline]] inline void StoreInterleaved(const __m512i (&items)[kRows], int64_t num_items, int32_t* out) {
  static constexpr InterleaveTable<kRows, kTransposed> kTable;
  const int64_t count = num_items * kRows;
#pragma unroll
  for (int output = 0; output < kRows; ++output) {
    const __m512i index = _mm512_load_si512(kTable.index[output]);
    __m512i mixed = _mm512_permutexvar_epi32(index, items[0]);
#pragma unroll
    for (int row = 1; row < kRows; ++row) {
      mixed = _mm512_mask_permutexvar_epi32(mixed, kTable.mask[output][row], index, items[row]);
    }
    if (count >= 16 * kRows) {
      _mm512_storeu_si512(out + 16 * output, mixed);
    } else {
      _mm512_mask_storeu_epi32(out + 16 * output, FirstLanes(count - 16 * output), mixed);
    }
  }
}

}  // namespace
}  // namespace millrace::cpu
#endif  // __x86_64__
