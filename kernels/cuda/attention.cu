// SPDX-License-Identifier: Apache-2.0
// Which kernels a launch of attention needs.
#include "kernels/cuda/attention.h"
#include "kernels/cuda/attention_plan.h"

namespace millrace::cuda {
namespace {

bool IsAligned(const void* pointer, uintptr_t bytes) { return reinterpret_cast<uintptr_t>(pointer) % bytes == 0; }

bool IsByteOrHalf(DType dtype) {
  return dtype == DType::kBF16 || dtype == DType::kF16 || dtype == DType::kI8 || dtype == DType::kF8E4M3;
}

}  // namespace

bool HasFastAttention(const AttentionLaunch& launch) {
  const KvLayer& kv = launch.kv;
  if (!IsByteOrHalf(kv.dtype) || !IsAligned(kv.keys, 16) || !IsAligned(kv.values, 16)) return false;
  // Vectors are counted in 32 bits, elements of q and out go in pairs.
  if (kv.num_pages * kv.num_kv_heads * kv.page_tokens > INT32_MAX) return false;
  if (launch.q.stride % 2 != 0 || launch.out.stride % 2 != 0) return false;
  if (!IsAligned(launch.q.data, 4) || !IsAligned(launch.out.data, 4)) return false;
  switch (kv.head_dim) {
    case 32:
    case 64:
    case 80:
    case 96:
    case 128:
    case 256:
      return true;
    default:
      return false;
  }
}

cudaError_t LaunchAttention(const AttentionLaunch& launch, cudaStream_t stream) {
  const bool is_activation = launch.q.dtype == DType::kBF16 || launch.q.dtype == DType::kF16;
  if (!is_activation || launch.out.dtype != launch.q.dtype) return cudaErrorInvalidValue;
  if (launch.q.rows == 0 || launch.num_sequences == 0) return cudaSuccess;
  if (!HasFastAttention(launch)) return LaunchAttentionPlainly(launch, stream);
  const cudaError_t error = LaunchAttentionDecode(launch, stream);
  if (error != cudaSuccess || launch.mix == AttentionMix::kDecode) return error;
  return HasWarpgroupAttention(launch) ? LaunchAttentionWarpgroup(launch, stream)
                                       : LaunchAttentionPrefill(launch, stream);
}

}  // namespace millrace::cuda
