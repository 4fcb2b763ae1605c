// SPDX-License-Identifier: Apache-2.0
#pragma once
// Storage only: the conversions are kernels/cuda/common/ptx.h's.
#include <cstdint>

using __nv_fp8_storage_t = unsigned char;
using __nv_fp8x2_storage_t = unsigned short;
struct __nv_fp8_e4m3 {
  __nv_fp8_storage_t __x;
};
