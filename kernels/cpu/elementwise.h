// SPDX-License-Identifier: Apache-2.0
#pragma once
// Fast twins of the row-wise ops, one row at a time; the plain files split the rows among threads.
// REQUIRES: the processor has the instructions of the suffix.
#include <cstdint>

namespace millrace::cpu {

void RmsNormRowAvx512(const float* x, const float* weight, float eps, int64_t cols, float* out);
void SwiGluRowAvx512(const float* gate, const float* up, int64_t cols, float* out);
void RmsNormRowAvx2(const float* x, const float* weight, float eps, int64_t cols, float* out);
void SwiGluRowAvx2(const float* gate, const float* up, int64_t cols, float* out);

}  // namespace millrace::cpu
