// SPDX-License-Identifier: Apache-2.0
#pragma once
// One number of an activation or of a KV vector on the device, in any dtype: the slow and plain way.
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include <cstdint>

#include "kernels/cuda/common/ptx.h"
#include "kernels/kv_layer.h"

namespace millrace::cuda {

// Index of (page, head, offset) counted in vectors of head_dim.
__device__ __forceinline__ int64_t KvVectorIndex(const KvLayer& kv, int64_t page, int head, int offset) {
  return (page * kv.num_kv_heads + head) * kv.page_tokens + offset;
}

__device__ __forceinline__ float E4m3ToFloat(uint8_t bits) {
  const uint32_t pair = ptx::E4m3x2ToHalf2(bits);
  return __half2float(__ushort_as_half(static_cast<uint16_t>(pair & 0xffffu)));
}

__device__ __forceinline__ float LoadElement(const void* base, DType dtype, int64_t index) {
  switch (dtype) {
    case DType::kBF16:
      return __bfloat162float(static_cast<const __nv_bfloat16*>(base)[index]);
    case DType::kF16:
      return __half2float(static_cast<const __half*>(base)[index]);
    case DType::kI8:
      return static_cast<float>(static_cast<const int8_t*>(base)[index]);
    case DType::kF8E4M3:
      return E4m3ToFloat(static_cast<const uint8_t*>(base)[index]);
    default:
      return static_cast<const float*>(base)[index];
  }
}

// Rounds to nearest even; kI8 expects a value already divided by its scale, kF8E4M3 saturates.
__device__ __forceinline__ void StoreElement(void* base, DType dtype, int64_t index, float value) {
  switch (dtype) {
    case DType::kBF16:
      static_cast<__nv_bfloat16*>(base)[index] = __float2bfloat16_rn(value);
      return;
    case DType::kF16:
      static_cast<__half*>(base)[index] = __float2half_rn(value);
      return;
    case DType::kI8:
      static_cast<int8_t*>(base)[index] = static_cast<int8_t>(rintf(value));
      return;
    case DType::kF8E4M3:
      static_cast<uint8_t*>(base)[index] = static_cast<uint8_t>(ptx::FloatsToE4m3x2(value, 0.0f) & 0xff);
      return;
    default:
      static_cast<float*>(base)[index] = value;
  }
}

}  // namespace millrace::cuda
