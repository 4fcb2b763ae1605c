// SPDX-License-Identifier: Apache-2.0
#pragma once
// Activations quantised per row: value = q * scale, scale = absmax / 127, q in [-127, 127], rounded to nearest even.
#include <cstdint>

namespace millrace::cuda {

struct QuantizedRows {
  int8_t* values = nullptr;  // [T, K], row starts `stride` bytes apart; null: not wanted, not given
  float* scales = nullptr;   // [T]
  int64_t stride = 0;        // a multiple of 16, >= K
};

}  // namespace millrace::cuda
