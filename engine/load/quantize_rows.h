// SPDX-License-Identifier: Apache-2.0
#pragma once
// Rounds float32 rows to int8 and int4 with one scale a group. Written so that the baseline instruction set vectorises
// it; the same bits on every machine (no fused multiply-add, fixed order of sums). Stateless, any thread.
#include <cstdint>

namespace millrace {

// False when a value is infinite or not a number.
bool AreFinite(const float* values, int64_t count);

// q = round(w / scale) in [-127, 127], scale = largest magnitude / 127 (0 when all are 0).
// REQUIRES: finite values.
float QuantizeInt8(const float* values, int64_t count, int8_t* out);

// w = (nibble - 8) * scale, two nibbles a byte, even index low. Tries several divisors of the largest value and keeps
// the scale of least squared error, which for given nibbles q is sum(w q) / sum(q q). The scale may be negative.
// REQUIRES: finite values; count a multiple of 32, at most 128.
float QuantizeInt4(const float* values, int64_t count, uint8_t* out);

}  // namespace millrace
