// SPDX-License-Identifier: Apache-2.0
// Running sums of decode chunks and prefill tiles over the step's sequences, by one block: what every layer's
// attention finds its work by. Bound by latency.
#include <algorithm>

#include "kernels/cuda/attention_plan.h"
#include "kernels/cuda/common/block_reduce.h"
#include "kernels/cuda/common/launch.h"
#include "kernels/cuda/common/ptx.h"

namespace millrace::cuda {
namespace {

constexpr int kThreads = 256;

__global__ void __launch_bounds__(kThreads) AttentionPlanKernel(AttentionPlanLaunch args) {
  __shared__ int32_t scratch[kWarpSize];
  const AttentionShape& shape = args.shape;
  const int thread = static_cast<int>(threadIdx.x);
  const AttentionPlanView plan = ViewPlan(args.plan, args.num_sequences);
  ptx::GridDependencyWait();
  ptx::GridDependencyLaunch();
  const int num_arrivals = args.num_sequences * kFewRows * DecodeHeadTiles(shape.num_heads, shape.num_kv_heads);
  for (int i = thread; i < num_arrivals; i += kThreads) plan.arrivals[i] = 0;
  int32_t chunks_before = 0, tiles_before = 0;
  for (int base = 0; base < args.num_sequences; base += kThreads) {
    const int index = base + thread;
    int32_t own_chunks = 0, own_tiles = 0, all_chunks, all_tiles;
    if (index < args.num_sequences) {
      const DeviceSequence sequence = args.sequences[index];
      own_chunks = NumDecodeChunks(sequence, shape.window_tokens);
      own_tiles = NumPrefillTiles(sequence, shape);
    }
    const int32_t first_chunk = chunks_before + BlockSumBefore(own_chunks, scratch, all_chunks);
    const int32_t first_tile = tiles_before + BlockSumBefore(own_tiles, scratch, all_tiles);
    if (index < args.num_sequences) {
      plan.first_chunk[index] = first_chunk;
      plan.first_tile[index] = first_tile;
    }
    chunks_before += all_chunks, tiles_before += all_tiles;
  }
  if (thread == 0) {
    plan.first_chunk[args.num_sequences] = chunks_before;
    plan.first_tile[args.num_sequences] = tiles_before;
  }
}

}  // namespace

size_t AttentionPlanBytes(const AttentionShape& shape, int max_sequences) {
  const size_t sequences = static_cast<size_t>(max_sequences);
  const size_t head_tiles = static_cast<size_t>(DecodeHeadTiles(shape.num_heads, shape.num_kv_heads));
  return sizeof(int32_t) * (2 * (sequences + 1) + sequences * kFewRows * head_tiles);
}

size_t AttentionWorkspaceBytes(const AttentionShape& shape, int max_sequences, int32_t max_tokens) {
  // The number of chunks does not grow steadily with the tokens: it falls where the chunks lengthen.
  constexpr int32_t kMostShortChunks = kShortTokens / kSmallChunkTokens + 1;
  const int32_t visible =
      shape.window_tokens > 0 && shape.window_tokens < max_tokens ? shape.window_tokens : max_tokens;
  int32_t chunks = visible / kSmallChunkTokens + 2;
  if (visible > kShortTokens) chunks = std::max(kMostShortChunks, std::min(kMaxChunks, visible / kChunkTokens + 2));
  return sizeof(float) * static_cast<size_t>(max_sequences) * static_cast<size_t>(chunks) *
         static_cast<size_t>(shape.num_heads) * static_cast<size_t>(PartialFloats(shape.head_dim));
}

cudaError_t LaunchAttentionPlan(const AttentionPlanLaunch& launch, cudaStream_t stream) {
  const LaunchShape shape{
      .grid = dim3(1), .block = dim3(kThreads), .stream = stream, .is_dependent = launch.is_dependent};
  return Launch(AttentionPlanKernel, shape, launch);
}

}  // namespace millrace::cuda
