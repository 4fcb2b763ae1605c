// SPDX-License-Identifier: Apache-2.0
#pragma once
// bfloat16 and half with CUDA's names for what one does with them. Arithmetic is rounded once, to the nearest even:
// computed in double, where sums and products of 16-bit floats are exact or rounded far below the last place.
#include <cmath>
#include <cstdint>

#include "vector_types.h"

namespace simt {

struct HalfFormat {
  static constexpr int kMantissaBits = 10, kMaxExponent = 15;
};
struct Bf16Format {
  static constexpr int kMantissaBits = 7, kMaxExponent = 127;
};

// The bits of the nearest value of the format.
template <typename Format>
uint16_t RoundTo16(double value) {
  constexpr int kMantissaBits = Format::kMantissaBits, kBias = Format::kMaxExponent;
  const uint16_t sign = std::signbit(value) ? 0x8000 : 0;
  const double magnitude = std::fabs(value);
  if (std::isnan(value)) return 0x7fff;
  int exponent = 0;
  std::frexp(magnitude, &exponent);                                // magnitude in [2^(exponent - 1), 2^exponent)
  exponent = exponent - 1 < 1 - kBias ? 1 - kBias : exponent - 1;  // subnormals share the smallest normal's unit
  if (magnitude == 0 || std::isinf(value)) return sign | (magnitude == 0 ? 0 : (2 * kBias + 1) << kMantissaBits);
  const double units = std::nearbyint(std::ldexp(magnitude, kMantissaBits - exponent));
  // The implicit bit, and a carry out of the mantissa, add to the exponent by themselves.
  const int64_t bits = (static_cast<int64_t>(exponent + kBias - 1) << kMantissaBits) + static_cast<int64_t>(units);
  const int64_t infinity = static_cast<int64_t>(2 * kBias + 1) << kMantissaBits;
  return sign | static_cast<uint16_t>(bits < infinity ? bits : infinity);
}
template <typename Format>
float Widen16(uint16_t bits) {
  if constexpr (Format::kMantissaBits == 7) return __builtin_bit_cast(float, uint32_t{bits} << 16);
  const int exponent = bits >> 10 & 31, mantissa = bits & 1023;
  uint32_t wide = uint32_t(bits & 0x8000) << 16;
  if (exponent == 31) return __builtin_bit_cast(float, wide | 0x7f800000u | uint32_t(mantissa) << 13);
  if (exponent > 0) return __builtin_bit_cast(float, wide | uint32_t(exponent + 112) << 23 | uint32_t(mantissa) << 13);
  return (wide ? -0x1p-24f : 0x1p-24f) * static_cast<float>(mantissa);
}

template <typename Format>
struct Float16 {
  Float16() = default;
  Float16(float value) : bits(RoundTo16<Format>(value)) {}
  Float16(double value) : bits(RoundTo16<Format>(value)) {}
  Float16(int value) : bits(RoundTo16<Format>(value)) {}
  operator float() const { return Widen16<Format>(bits); }
  static Float16 FromBits(uint16_t bits) {
    Float16 value;
    value.bits = bits;
    return value;
  }
  uint16_t bits;
};
template <typename Format>
struct alignas(4) Float16x2 {
  Float16x2() = default;
  Float16x2(Float16<Format> x, Float16<Format> y) : x(x), y(y) {}
  Float16<Format> x, y;
};

template <typename F>
double Wide(Float16<F> a) {
  return static_cast<double>(static_cast<float>(a));
}

}  // namespace simt

// Both formats have the arithmetic under one name; one value and pairs.
#define SIMT_OP1(name, expression)                   \
  template <typename F>                              \
  simt::Float16<F> name(simt::Float16<F> v) {        \
    const double a = simt::Wide(v);                  \
    return simt::Float16<F>(expression);             \
  }                                                  \
  template <typename F>                              \
  simt::Float16x2<F> name##2(simt::Float16x2<F> a) { \
    return {name(a.x), name(a.y)};                   \
  }
#define SIMT_OP2(name, expression)                                         \
  template <typename F>                                                    \
  simt::Float16<F> name(simt::Float16<F> v, simt::Float16<F> w) {          \
    const double a = simt::Wide(v), b = simt::Wide(w);                     \
    return simt::Float16<F>(expression);                                   \
  }                                                                        \
  template <typename F>                                                    \
  simt::Float16x2<F> name##2(simt::Float16x2<F> a, simt::Float16x2<F> b) { \
    return {name(a.x, b.x), name(a.y, b.y)};                               \
  }
SIMT_OP1(__hneg, -a)
SIMT_OP1(__habs, std::fabs(a))
SIMT_OP2(__hadd, a + b)
SIMT_OP2(__hsub, a - b)
SIMT_OP2(__hmul, a* b)
SIMT_OP2(__hmax, std::fmax(a, b))
SIMT_OP2(__hmin, std::fmin(a, b))
#undef SIMT_OP1
#undef SIMT_OP2
template <typename F>
simt::Float16<F> __hfma(simt::Float16<F> a, simt::Float16<F> b, simt::Float16<F> c) {
  return simt::Float16<F>(simt::Wide(a) * simt::Wide(b) + simt::Wide(c));
}
template <typename F>
simt::Float16x2<F> __hfma2(simt::Float16x2<F> a, simt::Float16x2<F> b, simt::Float16x2<F> c) {
  return {__hfma(a.x, b.x, c.x), __hfma(a.y, b.y, c.y)};
}
template <typename F>
float __low2float(simt::Float16x2<F> v) {
  return v.x;
}
template <typename F>
float __high2float(simt::Float16x2<F> v) {
  return v.y;
}
