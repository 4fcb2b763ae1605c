// SPDX-License-Identifier: Apache-2.0
#include "kernels/cpu/attention_simd.h"

namespace millrace::cpu {

AttentionKernels AttentionKernelsAvx2() { return avx2::Kernels(); }

}  // namespace millrace::cpu
