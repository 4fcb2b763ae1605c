// SPDX-License-Identifier: Apache-2.0
// Per row: q and k heads normed (Qwen3) and rotated by their position, k and v stored into their slot. One warp per
// (row, head); a lane holds pairs of elements that rotate together, or that are both left alone. float32 from the load
// to the one rounding at the store. Bound by memory and, at few rows, by latency.
#include "kernels/cuda/common/block_reduce.h"
#include "kernels/cuda/common/launch.h"
#include "kernels/cuda/common/ptx.h"
#include "kernels/cuda/kv_element.h"
#include "kernels/cuda/rope_append.h"

namespace millrace::cuda {
namespace {

constexpr int kWarps = 4;
constexpr int kMaxHeadDim = 512;

// A head's elements as one lane holds them: pair `lane + 32 * j`; the first D_rot/2 pairs rotate.
template <int kPairs>
struct LanePairs {
  float first[kPairs];
  float second[kPairs];
};

struct PairPlace {
  int first;
  int second;
};

__device__ __forceinline__ PairPlace PlaceOf(int pair, int half, bool is_interleaved) {
  if (is_interleaved || pair >= half) return {2 * pair, 2 * pair + 1};
  return {pair, pair + half};
}

template <int kPairs>
__device__ void NormHead(LanePairs<kPairs>& x, const float* weight, const RopeAppendLaunch& args, int half) {
  float squares = 0;
#pragma unroll
  for (int j = 0; j < kPairs; ++j) squares += x.first[j] * x.first[j] + x.second[j] * x.second[j];
  const float scale = 1.0f / sqrtf(WarpReduce(squares, Add{}) / static_cast<float>(args.kv.head_dim) + args.norm_eps);
#pragma unroll
  for (int j = 0; j < kPairs; ++j) {
    const int pair = static_cast<int>(threadIdx.x % 32) + 32 * j;
    if (2 * pair >= args.kv.head_dim) continue;
    const PairPlace place = PlaceOf(pair, half, args.rope.interleaved);
    x.first[j] *= scale * weight[place.first];
    x.second[j] *= scale * weight[place.second];
  }
}

template <int kPairs>
__device__ void RotateHead(LanePairs<kPairs>& x, const RopeTable& rope, int64_t position, int half) {
#pragma unroll
  for (int j = 0; j < kPairs; ++j) {
    const int pair = static_cast<int>(threadIdx.x % 32) + 32 * j;
    if (pair >= half) continue;
    const float cos = rope.cos[position * half + pair];
    const float sin = rope.sin[position * half + pair];
    const float a = x.first[j], b = x.second[j];
    x.first[j] = a * cos - b * sin;
    x.second[j] = b * cos + a * sin;
  }
}

template <int kPairs>
__device__ void StoreHead(const LanePairs<kPairs>& x, void* base, float* scales, int64_t vector, const KvLayer& kv,
                          int half, bool is_interleaved) {
  const int lane = static_cast<int>(threadIdx.x % 32);
  float inverse = 1;
  if (kv.dtype == DType::kI8) {
    float largest = 0;
#pragma unroll
    for (int j = 0; j < kPairs; ++j) largest = fmaxf(largest, fmaxf(fabsf(x.first[j]), fabsf(x.second[j])));
    largest = WarpReduce(largest, Larger{});
    if (lane == 0) scales[vector] = largest / 127.0f;
    inverse = largest > 0 ? 127.0f / largest : 0.0f;
  }
#pragma unroll
  for (int j = 0; j < kPairs; ++j) {
    const int pair = lane + 32 * j;
    if (2 * pair >= kv.head_dim) continue;
    const PairPlace place = PlaceOf(pair, half, is_interleaved);
    StoreElement(base, kv.dtype, vector * kv.head_dim + place.first, x.first[j] * inverse);
    StoreElement(base, kv.dtype, vector * kv.head_dim + place.second, x.second[j] * inverse);
  }
}

template <int kPairs>
__global__ void __launch_bounds__(32 * kWarps) RopeAppendKernel(RopeAppendLaunch args) {
  const KvLayer& kv = args.kv;
  const int heads = args.num_heads + 2 * kv.num_kv_heads;
  const int64_t row = blockIdx.x;
  const int head = static_cast<int>(blockIdx.y * kWarps + threadIdx.x / 32);
  const int lane = static_cast<int>(threadIdx.x % 32);
  ptx::GridDependencyWait();
  ptx::GridDependencyLaunch();
  if (head >= heads) return;
  const bool is_query = head < args.num_heads;
  const bool is_value = head >= args.num_heads + kv.num_kv_heads;
  const int64_t slot = is_query ? 0 : args.slots[row];
  if (slot < 0) return;
  const int half = is_value ? 0 : args.rope.rotary_dim / 2;
  const int64_t start = row * args.qkv.stride + static_cast<int64_t>(head) * kv.head_dim;
  LanePairs<kPairs> x;
#pragma unroll
  for (int j = 0; j < kPairs; ++j) {
    const int pair = lane + 32 * j;
    const PairPlace place = PlaceOf(pair, half, args.rope.interleaved);
    const bool is_inside = 2 * pair < kv.head_dim;
    x.first[j] = is_inside ? LoadElement(args.qkv.data, args.qkv.dtype, start + place.first) : 0.0f;
    x.second[j] = is_inside ? LoadElement(args.qkv.data, args.qkv.dtype, start + place.second) : 0.0f;
  }
  if (!is_value) {
    const float* weight = is_query ? args.q_norm : args.k_norm;
    if (weight != nullptr) NormHead(x, weight, args, half);
    RotateHead(x, args.rope, args.positions[row], half);
  }
  if (is_query) {
    // The row as a "KV memory" of one vector: q goes back where it came from, never quantised.
    const KvLayer place{.dtype = args.qkv.dtype, .head_dim = kv.head_dim};
    StoreHead(x, static_cast<uint16_t*>(args.qkv.data) + start, nullptr, 0, place, half, args.rope.interleaved);
    return;
  }
  const int kv_head = head - args.num_heads - (is_value ? kv.num_kv_heads : 0);
  const auto token = static_cast<uint32_t>(slot);  // vectors are counted in 31 bits, where they are read
  const auto page_tokens = static_cast<uint32_t>(kv.page_tokens);
  const int64_t vector = KvVectorIndex(kv, token / page_tokens, kv_head, static_cast<int>(token % page_tokens));
  StoreHead(x, is_value ? kv.values : kv.keys, is_value ? kv.value_scales : kv.key_scales, vector, kv, half,
            args.rope.interleaved);
}

bool IsStorable(DType dtype) {
  return dtype == DType::kBF16 || dtype == DType::kF16 || dtype == DType::kI8 || dtype == DType::kF8E4M3;
}

}  // namespace

cudaError_t LaunchRopeAppend(const RopeAppendLaunch& launch, cudaStream_t stream) {
  const int dim = launch.kv.head_dim;
  const bool is_activation = launch.qkv.dtype == DType::kBF16 || launch.qkv.dtype == DType::kF16;
  if (!is_activation || !IsStorable(launch.kv.dtype) || dim > kMaxHeadDim || dim % 2 != 0) {
    return cudaErrorInvalidValue;
  }
  if (launch.qkv.rows == 0) return cudaSuccess;
  const int heads = launch.num_heads + 2 * launch.kv.num_kv_heads;
  const LaunchShape shape{
      .grid = dim3(static_cast<unsigned>(launch.qkv.rows), static_cast<unsigned>((heads + kWarps - 1) / kWarps)),
      .block = dim3(32 * kWarps),
      .stream = stream,
      .is_dependent = launch.is_dependent};
  if (dim <= 64) return Launch(RopeAppendKernel<1>, shape, launch);
  if (dim <= 128) return Launch(RopeAppendKernel<2>, shape, launch);
  if (dim <= 256) return Launch(RopeAppendKernel<4>, shape, launch);
  return Launch(RopeAppendKernel<8>, shape, launch);
}

}  // namespace millrace::cuda
