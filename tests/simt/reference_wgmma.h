// SPDX-License-Identifier: Apache-2.0
#pragma once
// Where wgmma finds its operands in shared memory, and what it computes, in plain C++: the emulator's, and on a GPU
// what tests/cuda/wrappers_warpgroup_test.cu expects. From the PTX manual's descriptor, canonical layouts and
// fragments. Two things are our reading of it: swizzles are a function of the address, not of the place in the matrix
// (so a descriptor may start inside a row), and the leading offset is not looked at where rows lie along k and are
// swizzled.
#include <cstdint>

#include "tests/simt/reference_ptx.h"

namespace simt::reference {

struct MatrixPlace {
  uint32_t start, leading_bytes, stride_bytes;
  int swizzle_bits;  // 0, or of a swizzle of 32, 64 or 128 bytes 1, 2 or 3
  bool has_base_offset;
};
inline MatrixPlace DecodeMatrix(uint64_t descriptor) {
  constexpr int kBits[] = {0, 3, 2, 1};
  const auto field = [&](int shift) { return static_cast<uint32_t>(descriptor >> shift & 0x3fff) << 4; };
  return {field(0), field(16), field(32), kBits[descriptor >> 62], (descriptor >> 49 & 7) != 0};
}
inline uint32_t SwizzledAddress(uint32_t address, int swizzle_bits) {
  return address ^ (address >> 7 & ((1u << swizzle_bits) - 1)) << 4;
}
// 16 bytes of row `row`, piece 0 or 1 of the 32 bytes along k that one product takes.
inline uint32_t AddressAlongK(const MatrixPlace& m, int row, int piece) {
  const uint32_t group = m.start + static_cast<uint32_t>(row / 8) * m.stride_bytes;
  if (m.swizzle_bits == 0)
    return group + static_cast<uint32_t>(row % 8 * 16) + static_cast<uint32_t>(piece) * m.leading_bytes;
  return SwizzledAddress(
      group + (static_cast<uint32_t>(row % 8) << m.swizzle_bits) * 16 + static_cast<uint32_t>(piece) * 16,
      m.swizzle_bits);
}
// 16 bytes, columns 8 * tile .. of one k of 16.
inline uint32_t AddressAcrossK(const MatrixPlace& m, int k, int tile) {
  const auto low = static_cast<uint32_t>(k % 8), high = static_cast<uint32_t>(k / 8), at = static_cast<uint32_t>(tile);
  if (m.swizzle_bits == 0) return m.start + at * m.stride_bytes + low * 16 + high * m.leading_bytes;
  const uint32_t width = 1u << m.swizzle_bits;
  return SwizzledAddress(
      m.start + at % width * 16 + at / width * m.leading_bytes + low * width * 16 + high * m.stride_bytes,
      m.swizzle_bits);
}

// Calls store(row, column, sum of products) for a [64][k] and b [columns][k].
template <typename Sum, typename Element, typename Store>
void MultiplyRows(const Element* a, const Element* b, int columns, int k, Store&& store) {
  for (int row = 0; row < 64; ++row) {
    for (int column = 0; column < columns; ++column) {
      Sum sum = 0;
      for (int i = 0; i < k; ++i) sum += static_cast<Sum>(a[row * k + i]) * static_cast<Sum>(b[column * k + i]);
      store(row, column, sum);
    }
  }
}
// Which row and column a thread's d[tile][r] is, and which row and k the two halves of its a[r].
inline int SumRow(int thread, int r) { return thread / 32 * 16 + thread % 32 / 4 + r / 2 * 8; }
inline int SumColumn(int thread, int tile, int r) { return 8 * tile + thread % 4 * 2 + r % 2; }
inline int OperandRow(int thread, int r) { return thread / 32 * 16 + thread % 32 / 4 + r % 2 * 8; }
inline int OperandK(int thread, int r, int half) { return thread % 4 * 2 + r / 2 * 8 + half; }

}  // namespace simt::reference
