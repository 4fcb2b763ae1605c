// SPDX-License-Identifier: Apache-2.0
#pragma once
// Activations as int8 with one scale a row, as int8 weights want them: x ~ value * scale, scale = max|x| / 127, values
// in
// [-127, 127] rounded to nearest even. A row whose maximum is below 1e-30 is zeros with scale 0; one that holds an
// infinity or a NaN is zeros with scale NaN, so that the fault stays visible. A view of device memory; owns nothing.
#include <cstdint>

namespace millrace::cuda {

struct QuantizedRows {
  int8_t* values = nullptr;  // [T, K], row starts `stride` bytes apart; null: not wanted, not given
  float* scales = nullptr;   // [T]
  int64_t stride = 0;        // a multiple of 16, >= K
};

}  // namespace millrace::cuda
