// SPDX-License-Identifier: Apache-2.0
#include "kernels/cpu/sample_simd.h"

namespace millrace::cpu {

SampleKernels SampleKernelsAvx2() { return avx2::TheSampleKernels(); }

}  // namespace millrace::cpu
