// SPDX-License-Identifier: Apache-2.0
#pragma once
// What the instructions of kernels/cuda/common/ptx.h compute, in plain C++ on the host: the emulator's arithmetic, and
// on a GPU what tests/cuda/wrappers_conformance_test.cu expects. Written from the instructions' definitions, not from
// the wrappers.
#include <cmath>
#include <cstdint>
#include <cstring>

namespace simt::reference {

inline uint32_t Lop3(int table, uint32_t a, uint32_t b, uint32_t c) {
  uint32_t d = 0;
  for (int row = 0; row < 8; ++row) {  // a is the highest bit of the table's row
    if ((table >> row & 1) == 0) continue;
    d |= (row & 4 ? a : ~a) & (row & 2 ? b : ~b) & (row & 1 ? c : ~c);
  }
  return d;
}

inline uint32_t Prmt(uint32_t a, uint32_t b, uint32_t selector) {
  const uint64_t bytes = uint64_t{b} << 32 | a;
  uint32_t d = 0;
  for (int i = 0; i < 4; ++i) {
    const uint32_t choice = selector >> 4 * i & 15;
    uint32_t byte = bytes >> 8 * (choice & 7) & 0xff;
    if (choice & 8) byte = byte & 0x80 ? 0xff : 0;
    d |= byte << 8 * i;
  }
  return d;
}

inline float FloatOfBf16(uint32_t bits) {
  const uint32_t wide = bits << 16;
  float value;
  std::memcpy(&value, &wide, sizeof(value));
  return value;
}
inline float FloatOfHalf(uint32_t bits) {
  const uint32_t sign = (bits & 0x8000) << 16, exponent = bits >> 10 & 31, mantissa = bits & 1023;
  if (exponent == 0) return (sign ? -0x1p-24f : 0x1p-24f) * static_cast<float>(mantissa);
  const uint32_t wide = sign | (exponent == 31 ? 255 : exponent + 112) << 23 | mantissa << 13;
  float value;
  std::memcpy(&value, &wide, sizeof(value));
  return value;
}

inline float FloatOfE4m3(uint32_t code) {
  const int exponent = code >> 3 & 15, mantissa = code & 7;
  if ((code & 0x7f) == 0x7f) return NAN;
  const float magnitude =
      exponent == 0 ? std::ldexp(float(mantissa), -9) : std::ldexp(float(8 + mantissa), exponent - 10);
  return code & 0x80 ? -magnitude : magnitude;
}
// Every e4m3 is a half: of the bits of its mantissa, exact.
inline uint32_t HalfOfE4m3(uint32_t code) {
  const float value = FloatOfE4m3(code);
  if (std::isnan(value)) return 0x7fff;
  for (uint32_t bits = 0; bits < 0x7c00; bits += 0x80) {  // at most 3 bits of mantissa
    if (FloatOfHalf(bits) == std::fabs(value)) return bits | (code & 0x80) << 8;
  }
  for (uint32_t bits = 0; bits < 0x400; ++bits) {  // half's subnormals are finer
    if (FloatOfHalf(bits) == std::fabs(value)) return bits | (code & 0x80) << 8;
  }
  return 0x7fff;
}
inline uint32_t E4m3x2ToHalf2(uint16_t x) {
  static const auto kTable = [] {
    struct Table {
      uint16_t half[256];
    } table;
    for (uint32_t code = 0; code < 256; ++code) table.half[code] = static_cast<uint16_t>(HalfOfE4m3(code));
    return table;
  }();
  return kTable.half[x & 0xff] | uint32_t{kTable.half[x >> 8]} << 16;
}
// The nearest of all codes; of two as near, the even one; beyond the range the largest finite one.
inline uint32_t E4m3OfFloat(float value) {
  if (std::isnan(value)) return 0x7f;
  const uint32_t sign = std::signbit(value) ? 0x80 : 0;
  const float magnitude = std::fabs(value);
  uint32_t below = 0, above = 0x7e;  // codes are in the order of their values
  if (magnitude >= FloatOfE4m3(above)) return sign | above;
  while (above - below > 1) {
    const uint32_t middle = (below + above) / 2;
    (FloatOfE4m3(middle) <= magnitude ? below : above) = middle;
  }
  const float to_below = magnitude - FloatOfE4m3(below), to_above = FloatOfE4m3(above) - magnitude;
  if (to_below == to_above) return sign | (below % 2 == 0 ? below : above);
  return sign | (to_below < to_above ? below : above);
}
inline uint16_t FloatsToE4m3x2(float lo, float hi) {
  return static_cast<uint16_t>(E4m3OfFloat(hi) << 8 | E4m3OfFloat(lo));
}

// d += a * b of m16n8k16 (m16n8k32 for int8) from the registers of 32 lanes, by the fragment maps of the PTX manual.
template <typename Sum, int kElements, typename Element, typename D>
void Mma(const uint32_t (&a)[32][4], const uint32_t (&b)[32][2], D (&d)[32][4], Element element) {
  constexpr int kK = 8 * kElements;  // elements of a register, eight registers along K
  constexpr int kBits = 32 / kElements;
  Sum rows[16][kK], cols[8][kK];
  for (int lane = 0; lane < 32; ++lane) {
    const int group = lane / 4, within = lane % 4;
    for (int e = 0; e < kElements; ++e) {
      const int k = within * kElements + e, shift = kBits * e;
      for (int r = 0; r < 4; ++r) rows[group + r % 2 * 8][k + r / 2 * (kK / 2)] = element(a[lane][r] >> shift);
      for (int r = 0; r < 2; ++r) cols[group][k + r * (kK / 2)] = element(b[lane][r] >> shift);
    }
  }
  for (int lane = 0; lane < 32; ++lane) {
    for (int r = 0; r < 4; ++r) {
      const Sum* row = rows[lane / 4 + r / 2 * 8];
      const Sum* col = cols[lane % 4 * 2 + r % 2];
      Sum sum = d[lane][r];
      for (int k = 0; k < kK; ++k) sum += row[k] * col[k];
      d[lane][r] = static_cast<D>(sum);
    }
  }
}
inline void MmaBf16(const uint32_t (&a)[32][4], const uint32_t (&b)[32][2], float (&d)[32][4]) {
  Mma<double, 2>(a, b, d, [](uint32_t bits) { return double{FloatOfBf16(bits & 0xffff)}; });
}
inline void MmaF16(const uint32_t (&a)[32][4], const uint32_t (&b)[32][2], float (&d)[32][4]) {
  Mma<double, 2>(a, b, d, [](uint32_t bits) { return double{FloatOfHalf(bits & 0xffff)}; });
}
inline void MmaS8(const uint32_t (&a)[32][4], const uint32_t (&b)[32][2], int32_t (&d)[32][4]) {
  Mma<int32_t, 4>(a, b, d, [](uint32_t bits) { return int32_t{static_cast<int8_t>(bits & 0xff)}; });
}

}  // namespace simt::reference
