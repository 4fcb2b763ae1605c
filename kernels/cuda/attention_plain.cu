// SPDX-License-Identifier: Apache-2.0
// softmax(q k^T * scale) v over pages by online softmax (arXiv 1805.02867), one warp per (row, head), a token at a
// time, in float32. Takes every head dimension up to 512 and every KV dtype; as slow as it is plain.
#include "kernels/cuda/attention.h"
#include "kernels/cuda/common/block_reduce.h"
#include "kernels/cuda/common/launch.h"
#include "kernels/cuda/common/ptx.h"
#include "kernels/cuda/kv_element.h"

namespace millrace::cuda {
namespace {

constexpr int kWarps = 4;
constexpr int kMaxHeadDim = 512;
constexpr int kLaneElements = kMaxHeadDim / 32;
constexpr float kLog2E = 1.4426950408889634f;

// The sequence that `row` belongs to, or -1; found by the whole warp.
__device__ int FindSequence(const AttentionLaunch& args, int row) {
  for (int base = 0; base < args.num_sequences; base += 32) {
    const int index = base + static_cast<int>(threadIdx.x % 32);
    bool is_here = false;
    if (index < args.num_sequences) {
      const DeviceSequence sequence = args.sequences[index];
      is_here = row >= sequence.first_row && row < sequence.first_row + sequence.num_rows;
    }
    const unsigned found = __ballot_sync(kAllLanes, is_here);
    if (found != 0) return base + __ffs(static_cast<int>(found)) - 1;
  }
  return -1;
}

struct HeadState {
  float largest = -INFINITY;
  float sum = 0;
  float out[kLaneElements] = {};
};

// Adds one token to the state; `q` already carries the scale and log2(e).
__device__ void AddToken(const KvLayer& kv, int64_t vector, const float (&q)[kLaneElements], HeadState& state) {
  const int lane = static_cast<int>(threadIdx.x % 32);
  const bool has_scales = kv.dtype == DType::kI8;
  float dot = 0;
#pragma unroll
  for (int j = 0; j < kLaneElements; ++j) {
    const int d = lane + 32 * j;
    if (d < kv.head_dim) dot += q[j] * LoadElement(kv.keys, kv.dtype, vector * kv.head_dim + d);
  }
  const float score = WarpReduce(dot, Add{}) * (has_scales ? kv.key_scales[vector] : 1.0f);
  const float largest = fmaxf(state.largest, score);
  const float shrink = exp2f(state.largest - largest);
  const float weight = exp2f(score - largest);
  const float scaled_weight = weight * (has_scales ? kv.value_scales[vector] : 1.0f);
  state.largest = largest;
  state.sum = state.sum * shrink + weight;
#pragma unroll
  for (int j = 0; j < kLaneElements; ++j) {
    const int d = lane + 32 * j;
    if (d >= kv.head_dim) continue;
    state.out[j] = state.out[j] * shrink + scaled_weight * LoadElement(kv.values, kv.dtype, vector * kv.head_dim + d);
  }
}

__global__ void __launch_bounds__(32 * kWarps) AttentionPlainKernel(AttentionLaunch args) {
  const KvLayer& kv = args.kv;
  const int64_t item = static_cast<int64_t>(blockIdx.x) * kWarps + threadIdx.x / 32;
  const int row = static_cast<int>(item / args.num_heads);
  const int head = static_cast<int>(item % args.num_heads);
  const int lane = static_cast<int>(threadIdx.x % 32);
  ptx::GridDependencyWait();
  ptx::GridDependencyLaunch();
  if (row >= args.q.rows) return;
  const int index = FindSequence(args, row);
  if (index < 0) return;
  const DeviceSequence sequence = args.sequences[index];
  const int kv_head = head / (args.num_heads / kv.num_kv_heads);
  const int seen = sequence.context_tokens + (row - sequence.first_row) + 1;
  const int first = args.window_tokens > 0 ? max(0, seen - args.window_tokens) : 0;

  float q[kLaneElements];
#pragma unroll
  for (int j = 0; j < kLaneElements; ++j) {
    const int d = lane + 32 * j;
    const int64_t at = row * args.q.stride + static_cast<int64_t>(head) * kv.head_dim + d;
    q[j] = d < kv.head_dim ? LoadElement(args.q.data, args.q.dtype, at) * (args.scale * kLog2E) : 0.0f;
  }
  HeadState state;
  for (int token = first; token < seen; ++token) {
    const int page = args.pages[sequence.first_page + token / kv.page_tokens];
    AddToken(kv, KvVectorIndex(kv, page, kv_head, token % kv.page_tokens), q, state);
  }
#pragma unroll
  for (int j = 0; j < kLaneElements; ++j) {
    const int d = lane + 32 * j;
    const int64_t at = row * args.out.stride + static_cast<int64_t>(head) * kv.head_dim + d;
    if (d < kv.head_dim) StoreElement(args.out.data, args.out.dtype, at, state.out[j] / state.sum);
  }
}

}  // namespace

cudaError_t LaunchAttentionPlainly(const AttentionLaunch& launch, cudaStream_t stream) {
  const bool is_activation = launch.q.dtype == DType::kBF16 || launch.q.dtype == DType::kF16;
  if (!is_activation || launch.out.dtype != launch.q.dtype || launch.kv.head_dim > kMaxHeadDim) {
    return cudaErrorInvalidValue;
  }
  if (launch.q.rows == 0 || launch.num_sequences == 0) return cudaSuccess;
  const int64_t items = launch.q.rows * launch.num_heads;
  const LaunchShape shape{.grid = dim3(static_cast<unsigned>((items + kWarps - 1) / kWarps)),
                          .block = dim3(32 * kWarps),
                          .stream = stream,
                          .is_dependent = launch.is_dependent};
  return Launch(AttentionPlainKernel, shape, launch);
}

}  // namespace millrace::cuda
