// SPDX-License-Identifier: Apache-2.0
#pragma once
// Float formats of checkpoints, converted exactly or with rounding to nearest even. Stateless, any thread.
#include <bit>
#include <cmath>
#include <cstdint>

namespace millrace {

inline float FromBFloat16(uint16_t bits) { return std::bit_cast<float>(static_cast<uint32_t>(bits) << 16); }

// Exponent and mantissa moved to float's places, then the exponents' biases levelled by 2^112: exact, subnormals
// included, and without a call where the processor has no instruction for it.
inline float FromFloat16(uint16_t bits) {
  const uint32_t sign = static_cast<uint32_t>(bits & 0x8000u) << 16;
  const uint32_t magnitude = static_cast<uint32_t>(bits & 0x7fffu) << 13;
  const uint32_t finite = std::bit_cast<uint32_t>(std::bit_cast<float>(magnitude) * 0x1p112f);
  const uint32_t value = magnitude >= 0x0f800000u ? magnitude | 0x7f800000u : finite;
  return std::bit_cast<float>(value | sign);
}

inline uint16_t Float16Bits(float value) { return std::bit_cast<uint16_t>(static_cast<_Float16>(value)); }

inline uint16_t BFloat16Bits(float value) {
  if (std::isnan(value)) return 0x7fc0;
  const uint32_t bits = std::bit_cast<uint32_t>(value);
  return static_cast<uint16_t>((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16);
}

}  // namespace millrace
