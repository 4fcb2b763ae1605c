// SPDX-License-Identifier: Apache-2.0
#pragma once
// Float formats of checkpoints, converted exactly or with rounding to nearest even. Stateless, any thread.
#include <bit>
#include <cmath>
#include <cstdint>

namespace millrace {

inline float FromBFloat16(uint16_t bits) { return std::bit_cast<float>(static_cast<uint32_t>(bits) << 16); }
inline float FromFloat16(uint16_t bits) { return static_cast<float>(std::bit_cast<_Float16>(bits)); }
inline uint16_t Float16Bits(float value) { return std::bit_cast<uint16_t>(static_cast<_Float16>(value)); }
inline uint16_t BFloat16Bits(float value) {
  if (std::isnan(value)) return 0x7fc0;
  const uint32_t bits = std::bit_cast<uint32_t>(value);
  return static_cast<uint16_t>((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16);
}

}  // namespace millrace
