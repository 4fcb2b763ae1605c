// SPDX-License-Identifier: Apache-2.0
#include "kernels/cpu/sample_simd.h"

namespace millrace::cpu {

SampleKernels SampleKernelsAvx512() { return avx512::TheSampleKernels(); }

}  // namespace millrace::cpu
