// SPDX-License-Identifier: Apache-2.0
#pragma once
// How blocks share the tiles of a matmul (stream-K): whole waves of tiles first, tile i * num_blocks + b in wave i;
// then the stages of the tiles left over, put in a row, are cut into num_split_blocks equal ranges. A tile that several
// blocks worked on is added up by whichever of them arrives last, in rising order of the blocks: no block waits, and
// the order depends on nothing but the sizes. Sums of integers are the same in any order: there the last keeps its own
// in registers.
//
//   tiles left      |----- 0 -----|----- 1 -----|----- 2 -----|
//   ranges          |--- b 0 ---|--- b 1 ---|--- b 2 ---|-b 3-|
//   partial slots           0/1   1/0  1/1   2/0   2/1    3/0     block / 0: a tile begun by another, 1: begun here
#include <cuda_runtime.h>

#include <cstdint>
#include <type_traits>

#include "kernels/cuda/matmul_kernels.h"

namespace millrace::cuda {

// Stages [first_stage, end_stage) of a tile.
struct Segment {
  int tile = 0;
  int first_stage = 0;
  int end_stage = 0;
  int first_block = 0;  // the blocks that share the tile
  int last_block = 0;
};

// Segment number `index` of a block of so many; false when there are no more. In 32 bits: of 64, every division would
// be a call of a hundred instructions, before the first byte is fetched. See kMaxMatmulInputs.
__device__ inline bool ComputeSegment(const MatmulTask& task, int index, Segment& segment, int block, int num_blocks) {
  const int num_waves = task.num_tiles / num_blocks;
  segment = {.end_stage = task.num_stages, .first_block = block, .last_block = block};
  if (index < num_waves) {
    segment.tile = index * num_blocks + block;
    return true;
  }
  if (block >= task.num_split_blocks) return false;
  const int first_tile = num_waves * num_blocks;
  const auto num_stages = static_cast<uint32_t>(task.num_stages);
  const auto num_blocks_left = static_cast<uint32_t>(task.num_split_blocks);
  const uint32_t num_left = static_cast<uint32_t>(task.num_tiles - first_tile) * num_stages;
  const uint32_t begin = num_left * static_cast<uint32_t>(block) / num_blocks_left;
  const uint32_t end = num_left * static_cast<uint32_t>(block + 1) / num_blocks_left;
  const uint32_t tile = begin / num_stages + static_cast<uint32_t>(index - num_waves);
  const uint32_t tile_begin = tile * num_stages;
  const uint32_t tile_end = tile_begin + num_stages;
  if (tile_begin >= end || begin >= end) return false;
  segment.tile = first_tile + static_cast<int>(tile);
  segment.first_stage = static_cast<int>(max(begin, tile_begin) - tile_begin);
  segment.end_stage = static_cast<int>(min(end, tile_end) - tile_begin);
  // Block b holds a stage when floor(num_left * b / blocks) <= stage, so the last such b does.
  segment.first_block = static_cast<int>(((tile_begin + 1) * num_blocks_left - 1) / num_left);
  segment.last_block = static_cast<int>((tile_end * num_blocks_left - 1) / num_left);
  return true;
}

// This block's.
__device__ inline bool ComputeSegment(const MatmulTask& task, int index, Segment& segment) {
  return ComputeSegment(task, index, segment, static_cast<int>(blockIdx.x), static_cast<int>(gridDim.x));
}

inline void CutIntoTiles(int tile_channels, int tile_rows, MatmulTask& task) {
  task.num_row_tiles = (task.num_rows + tile_rows - 1) / tile_rows;
  task.num_channel_tiles = static_cast<int>((task.w.n + tile_channels - 1) / tile_channels);
  task.num_tiles = task.num_row_tiles * task.num_channel_tiles;
}

// Where a tile lies: groups of 8 tiles of rows, channels last, so that blocks beside each other share x and w in L2.
struct TilePlace {
  int first_row = 0;
  int num_rows = 0;
  int first_channel = 0;
};

__device__ inline TilePlace FindTilePlace(const MatmulTask& task, int tile, int tile_channels, int tile_rows) {
  constexpr int kGroupTiles = 8;
  const int group = tile / (kGroupTiles * task.num_channel_tiles);
  const int in_group = tile % (kGroupTiles * task.num_channel_tiles);
  const int height = min(kGroupTiles, task.num_row_tiles - group * kGroupTiles);
  TilePlace place;
  place.first_row = (group * kGroupTiles + in_group % height) * tile_rows;
  place.num_rows = min(tile_rows, task.num_rows - place.first_row);
  place.first_channel = in_group / height * tile_channels;
  return place;
}
__device__ inline TilePlace FindTilePlace(const MatmulTask& task, int tile, int tile_channels) {
  return FindTilePlace(task, tile, tile_channels, task.rows_per_pass);
}

// As ComputeSegment, into shared memory: between the sums of a tile there is no register to spare for where it is.
// Barriers around it: everyone is done with the last segment, and this one is written.
__device__ inline bool FindSegment(const MatmulTask& task, int index, Segment& shared) {
  __shared__ int is_found;
  __syncthreads();
  if (threadIdx.x == 0) is_found = ComputeSegment(task, index, shared) ? 1 : 0;
  __syncthreads();
  return is_found != 0;
}

// Four sums of a thread in one piece.
template <typename Sum>
struct alignas(16) SumQuad {
  Sum sums[4];
};

// Who adds up: all of a block's threads, or its first ones, with a barrier of theirs.
struct WholeBlock {
  static constexpr int kQuadsAhead = 8;  // partial sums on the way to a thread: more would not fit the registers
  __device__ static int NumThreads() { return static_cast<int>(blockDim.x); }
  __device__ static void Sync() { __syncthreads(); }
  // The block's number in the schedule, and what its slots and counter are moved by.
  __device__ static int Block(const MatmulTask& /*task*/) { return static_cast<int>(blockIdx.x); }
  __device__ static int FirstSlot(const MatmulTask& /*task*/) { return 0; }
};

// Brings a shared tile's sums together. True in the block that has them all: the only one, or the last to arrive.
// Every thread of the team calls it. is_used(i): sums[i] has rows; the same for
// all lanes of a warp.
template <typename Team = WholeBlock, int kCount, typename Sum, typename IsUsed>
__device__ bool GatherSegments(const MatmulTask& task, const Segment& segment, const IsUsed& is_used,
                               Sum (&sums)[kCount][4]) {
  if (segment.first_block == segment.last_block) return true;
  __shared__ int is_last;
  const int num_threads = Team::NumThreads();
  const int block = Team::Block(task), first_slot = Team::FirstSlot(task);
  const auto slot_of = [&](int of_block) {
    const int slot = 2 * (first_slot + of_block) + (of_block == segment.first_block ? 1 : 0);
    return static_cast<SumQuad<Sum>*>(task.partials) + kCount * num_threads * slot + threadIdx.x;
  };
  SumQuad<Sum>* const own = slot_of(block);
#pragma unroll
  for (int i = 0; i < kCount; ++i) {
    if (is_used(i)) own[i * num_threads] = {{sums[i][0], sums[i][1], sums[i][2], sums[i][3]}};
  }
  __threadfence();  // this thread's sums before the block's arrival
  Team::Sync();     // all sums before thread 0 tells
  if (threadIdx.x == 0) {
    int32_t* const counter = task.counters + first_slot + segment.first_block;
    is_last = atomicAdd(counter, 1) == segment.last_block - segment.first_block ? 1 : 0;
    if (is_last != 0) *counter = 0;  // nobody else comes; the next launch finds it as this one did
  }
  Team::Sync();  // is_last is written
  if (is_last == 0) return false;
  __threadfence();  // the others' sums are read after their arrivals were seen
  constexpr bool kKeepsOwn = std::is_integral_v<Sum>;
#pragma unroll
  for (int i = 0; i < kCount && !kKeepsOwn; ++i) {
#pragma unroll
    for (int r = 0; r < 4; ++r) sums[i][r] = Sum{0};
  }
  for (int b = segment.first_block; b <= segment.last_block; ++b) {
    if (kKeepsOwn && b == block) continue;
    const SumQuad<Sum>* const slot = slot_of(b);
#pragma unroll
    for (int i = 0; i < kCount; ++i) {
      if (!is_used(i)) continue;
      const SumQuad<Sum> quad = slot[i * num_threads];
#pragma unroll
      for (int r = 0; r < 4; ++r) sums[i][r] += quad.sums[r];
      if (i % Team::kQuadsAhead == Team::kQuadsAhead - 1) __syncwarp();
    }
  }
  return true;
}

}  // namespace millrace::cuda
