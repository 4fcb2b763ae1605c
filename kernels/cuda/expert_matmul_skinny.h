// SPDX-License-Identifier: Apache-2.0
#pragma once
// The skinny matmul (matmul_skinny.h) over experts: out[r, n] = sum over k of x[r, k] * w_e[n, k] for the rows r of
// each expert e, x [T * k, K] sorted by expert.
//
//   tiles  expert by expert: its channels, 128 (or 256) at a time, and for each the passes of its rows, so that the
//          blocks that read the same weights run beside each other
//   grid   as many blocks as fit at once, whatever the routing; block b takes tiles b, b + grid, ... up to a number
//   that
//          every block computes from `starts`. Experts without rows have no tiles
//   block  the stages, formats and products of the skinny matmul; K is never cut, so that nothing is added up between
//          blocks and a row's bits do not depend on the routing
//
// sm_80 and up; the limit is memory bandwidth: the weights of the experts that have rows.
#include <cuda_runtime.h>

#include <algorithm>
#include <cstdint>

#include "kernels/cuda/common/block_reduce.h"
#include "kernels/cuda/expert_matmul_kernels.h"
#include "kernels/cuda/matmul_skinny.h"

namespace millrace::cuda {

// The tile at hand: what the kernels of one matmul take, and where in it.
struct ExpertTile {
  MatmulTask task;
  int channel_tile;
  int first_row;
  int num_rows;
};

// firsts[e]: the passes of the experts before e; firsts[num_experts]: of all. Every thread of the block calls it.
__device__ inline void CountPasses(const ExpertMatmulTask& task, int32_t* firsts) {
  constexpr int kExpertsAThread = kMaxExperts / kSkinnyThreads;
  static_assert(kMaxExperts % kSkinnyThreads == 0);
  __shared__ int32_t scratch[kWarpSize];
  const int rows_per_pass = task.all.rows_per_pass;
  const int first_expert = static_cast<int>(threadIdx.x) * kExpertsAThread;
  int32_t passes[kExpertsAThread], sum = 0, total = 0;
#pragma unroll
  for (int i = 0; i < kExpertsAThread; ++i) {
    const int e = first_expert + i;
    const int num_rows = e < task.num_experts ? task.starts[e + 1] - task.starts[e] : 0;
    passes[i] = (num_rows + rows_per_pass - 1) / rows_per_pass;
    sum += passes[i];
  }
  int32_t before = BlockSumBefore(sum, scratch, total);
#pragma unroll
  for (int i = 0; i < kExpertsAThread; ++i) {
    if (first_expert + i < task.num_experts) firsts[first_expert + i] = before;
    before += passes[i];
  }
  if (threadIdx.x == 0) firsts[task.num_experts] = total;
  __syncthreads();  // all passes are counted
}

__device__ inline void FindExpertTile(const ExpertMatmulTask& task, const int32_t* firsts, int index,
                                      int num_channel_tiles, ExpertTile& tile) {
  const int expert = FindExpert(firsts, task.num_experts, index / num_channel_tiles);
  const int num_passes = firsts[expert + 1] - firsts[expert];
  const int in_expert = index - firsts[expert] * num_channel_tiles;
  const int first_row = task.starts[expert] + in_expert % num_passes * task.all.rows_per_pass;
  SetExpert(task.experts[expert], tile.task);
  tile.channel_tile = in_expert / num_passes;
  tile.first_row = first_row;
  tile.num_rows = min(task.all.rows_per_pass, task.starts[expert + 1] - first_row);
}

template <typename Format, int kChannelTiles, int kTokenTiles>
__global__ void __launch_bounds__(kSkinnyThreads, kChannelTiles* kTokenTiles <= 8 ? 2 : 1)
    SkinnyExpertMatmul(const ExpertMatmulTask task) {
  using Ring = SkinnyRing<Format, kChannelTiles, kTokenTiles>;
  using Shape = typename Ring::Shape;
  __shared__ int32_t firsts[kMaxExperts + 1];
  // Bytes: a shared variable has no constructor, and the task's members have defaults.
  alignas(ExpertTile) __shared__ unsigned char tile_bytes[sizeof(ExpertTile)];
  ExpertTile& tile = *reinterpret_cast<ExpertTile*>(tile_bytes);
  ptx::GridDependencyWait();
  ptx::GridDependencyLaunch();
  if (threadIdx.x == 0) tile.task = task.all;
  CountPasses(task, firsts);
  const int num_channel_tiles = static_cast<int>((task.all.w.n + Shape::kChannels - 1) / Shape::kChannels);
  const int num_tiles = firsts[task.num_experts] * num_channel_tiles;
  for (int index = static_cast<int>(blockIdx.x); index < num_tiles; index += static_cast<int>(gridDim.x)) {
    __syncthreads();  // everyone is done with the last tile and its stages
    if (threadIdx.x == 0) FindExpertTile(task, firsts, index, num_channel_tiles, tile);
    __syncthreads();  // the tile is written
    const int warp = static_cast<int>(threadIdx.x) / 32;
    const SkinnyPlace place = {.first_tile = (tile.channel_tile * kSkinnyWarps + warp) * kChannelTiles,
                               .first_row = tile.first_row,
                               .num_rows = tile.num_rows};
    const Segment segment = {.end_stage = task.all.num_stages};
    const Ring ring(tile.task, place, segment.end_stage);
    for (int s = 0; s < Ring::kNumStages - 1; ++s) {
      ring.LoadWeights(s, s);
      ring.LoadTokens(s, s);
    }
    typename Format::Math::Sum sums[Shape::kNumSums][4] = {};
    float totals[Format::kIsGrouped ? Shape::kNumSums : 1][4] = {};
    SumSkinny<Ring, Format, kChannelTiles, kTokenTiles>(ring, segment, sums, totals);
    if constexpr (Format::kIsGrouped) {
      StoreSkinny<Shape, kTokenTiles>(tile.task, place, totals);
    } else {
      StoreSkinny<Shape, kTokenTiles>(tile.task, place, sums);
    }
  }
}

template <typename Format, int kChannelTiles, int kTokenTiles>
cudaError_t LaunchSkinnyExperts(ExpertMatmulTask task, cudaStream_t stream) {
  using Shape = SkinnyShape<Format, kChannelTiles, kTokenTiles>;
  const int64_t num_channel_tiles = (task.all.w.n + Shape::kChannels - 1) / Shape::kChannels;
  const int64_t num_blocks = std::min<int64_t>(task.all.num_blocks, task.max_passes * num_channel_tiles);
  task.all.num_stages = static_cast<int>((task.all.w.k * Format::kXBytes + kStageBytes - 1) / kStageBytes);
  return Launch(SkinnyExpertMatmul<Format, kChannelTiles, kTokenTiles>,
                {.grid = dim3(static_cast<unsigned>(num_blocks)),
                 .block = dim3(kSkinnyThreads),
                 .shared_bytes = Shape::kSharedBytes,
                 .stream = stream,
                 .is_dependent = task.all.is_dependent},
                task);
}

template <typename Format>
cudaError_t LaunchSkinnyExpertFormat(const ExpertMatmulTask& task, cudaStream_t stream) {
  if (task.all.rows_per_pass <= 8) return LaunchSkinnyExperts<Format, 1, 1>(task, stream);
  if (task.all.rows_per_pass <= 16) return LaunchSkinnyExperts<Format, 1, 2>(task, stream);
  if (task.all.rows_per_pass <= 32) return LaunchSkinnyExperts<Format, 1, 4>(task, stream);
  return LaunchSkinnyExperts<Format, Format::kManyChannelTiles, 8>(task, stream);
}

}  // namespace millrace::cuda
