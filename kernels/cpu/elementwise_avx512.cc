// SPDX-License-Identifier: Apache-2.0
#include "kernels/cpu/elementwise.h"
#include "kernels/cpu/elementwise_simd.h"

namespace millrace::cpu {

void RmsNormRowAvx512(const float* x, const float* weight, float eps, int64_t cols, float* out) {
  avx512::RmsNormRow(x, weight, eps, cols, out);
}

void SwiGluRowAvx512(const float* gate, const float* up, int64_t cols, float* out) {
  avx512::SwiGluRow(gate, up, cols, out);
}

}  // namespace millrace::cpu
