// SPDX-License-Identifier: Apache-2.0
#include "kernels/cpu/attention_simd.h"

namespace millrace::cpu {

AttentionKernels AttentionKernelsAvx512() { return avx512::Kernels(); }

}  // namespace millrace::cpu
