// SPDX-License-Identifier: Apache-2.0
#pragma once
// What blocks of a cluster share in the matmul by warpgroups (matmul_warpgroup.h): which part each fetches for whom,
// which rows and channels are whose, and when a stage is empty. Of one block, it is as if there were none. Internal to
// matmul_warpgroup*.
#include <cuda_runtime.h>

#include <cstdint>

#include "kernels/cuda/common/ptx_barrier.h"
#include "kernels/cuda/matmul_kernels.h"
#include "kernels/cuda/matmul_schedule.h"
#include "kernels/cuda/matmul_warpgroup_store.h"

namespace millrace::cuda {

// The blocks of a cluster, which the schedule sees as one. Those of the same rows have neighbouring ranks.
struct Cluster {
  __device__ static int Size(const MatmulTask& task) { return task.cluster.row_blocks * task.cluster.channel_blocks; }
  __device__ static int Number(const MatmulTask& task) { return Divide(static_cast<int>(blockIdx.x), Size(task)); }
  __device__ static int Rank(const MatmulTask& task) { return static_cast<int>(blockIdx.x) & (Size(task) - 1); }
  __device__ static int RowBlock(const MatmulTask& task, int rank) { return Divide(rank, task.cluster.channel_blocks); }
  __device__ static int ChannelBlock(const MatmulTask& task, int rank) {
    return rank & (task.cluster.channel_blocks - 1);
  }
  // By a number of blocks, which is a power of two.
  __device__ static int Divide(int count, int num_blocks) { return count >> __popc(num_blocks - 1); }

  __device__ static bool ComputeSegment(const MatmulTask& task, int index, Segment& segment) {
    return cuda::ComputeSegment(task, index, segment, Number(task), Divide(static_cast<int>(gridDim.x), Size(task)));
  }
  // For this block; without rows, or beyond the channels, where the cluster has room for more than there are.
  __device__ static TilePlace FindPlace(const MatmulTask& task, int tile, int block_channels) {
    TilePlace place = FindTilePlace(task, tile, block_channels * task.cluster.channel_blocks,
                                    task.rows_per_pass * task.cluster.row_blocks);
    const int rank = Rank(task);
    const int skipped = RowBlock(task, rank) * task.rows_per_pass;
    place.first_row += skipped;
    place.num_rows = min(task.rows_per_pass, place.num_rows - skipped);
    place.first_channel += ChannelBlock(task, rank) * block_channels;
    return place;
  }
  __device__ static void Sync(const MatmulTask& task) {
    if (Size(task) == 1) {
      __syncthreads();
    } else {
      ptx::ClusterSync();
    }
  }
};

// The multiplying warps, to whoever adds up shared tiles.
struct Consumers {
  static constexpr int kQuadsAhead = 8;
  __device__ static int NumThreads() { return kGroupThreads * kConsumerGroups; }
  __device__ static void Sync() { ptx::NamedBarrierWait(1, kGroupThreads * kConsumerGroups); }
  __device__ static int Block(const MatmulTask& task) { return Cluster::Number(task); }
  __device__ static int FirstSlot(const MatmulTask& task) { return Cluster::Rank(task) * task.num_split_blocks; }
};

// Of a tile, in a segment of it.
struct Stage {
  int number;
  bool is_first;
};

struct WeightsAt {
  int first_channel;
  int stage;
};

// The map's box at (x, y) to the same place in the blocks whose bits are set; one bit is this block's.
__device__ inline void CopyToBlocks(uint32_t ranks, unsigned char* shared, const CUtensorMap& map, int2 at,
                                    ptx::Mbarrier* full) {
  if ((ranks & (ranks - 1)) == 0) {
    ptx::TensorCopy(shared, &map, at.x, at.y, full);
  } else {
    ptx::TensorCopyTo(ranks, shared, &map, at.x, at.y, full);
  }
}

// This block's part of a box of num_rows rows that blocks of the same channels need, to all of them. Ranks are pinned
// since the fetching thread has no registers for what follows from them.
__device__ inline void CopyForChannels(const MatmulTask& task, unsigned char* shared, const CUtensorMap& map, int2 at,
                                       int num_rows, ptx::Mbarrier* full) {
  const int rank = ptx::Pin(Cluster::Rank(task));
  const int first = Cluster::RowBlock(task, rank) * Cluster::Divide(num_rows, task.cluster.row_blocks);
  const uint32_t every = task.cluster.channel_blocks == 1 ? 0xf : 0x5;
  const uint32_t ranks = ((1u << Cluster::Size(task)) - 1 & every) << Cluster::ChannelBlock(task, rank);
  CopyToBlocks(ranks, shared + first * kWarpgroupStageBytes, map, {at.x, at.y + first}, full);
}

// This block's part of a box of num_rows rows that blocks of the same rows need, to all of them.
__device__ inline void CopyForRows(const MatmulTask& task, unsigned char* shared, const CUtensorMap& map, int2 at,
                                   int num_rows, ptx::Mbarrier* full) {
  const int rank = ptx::Pin(Cluster::Rank(task));
  const int first = Cluster::ChannelBlock(task, rank) * Cluster::Divide(num_rows, task.cluster.channel_blocks);
  const uint32_t ranks = ((1u << task.cluster.channel_blocks) - 1) << (rank - Cluster::ChannelBlock(task, rank));
  CopyToBlocks(ranks, shared + first * kWarpgroupStageBytes, map, {at.x, at.y + first}, full);
}

template <uint32_t kNumStages>
struct StageBarriers {
  ptx::Mbarrier full[kNumStages];
  ptx::Mbarrier empty[kNumStages];

  // By one thread.
  __device__ void Init(const MatmulTask& task) {
    for (uint32_t i = 0; i < kNumStages; ++i) {
      ptx::MbarrierInit(&full[i], 1);
      ptx::MbarrierInit(&empty[i], kConsumerGroups * kGroupThreads / 32 * Cluster::Size(task));
    }
    ptx::MbarrierInitFence();
  }
  __device__ void Release(const MatmulTask& task, uint32_t fill) {
    const int lane = static_cast<int>(threadIdx.x) % 32;
    if (lane >= Cluster::Size(task)) return;
    if (Cluster::Size(task) == 1) {
      ptx::MbarrierArrive(&empty[fill % kNumStages]);
    } else {
      ptx::MbarrierArriveOf(lane, &empty[fill % kNumStages]);
    }
  }
};

}  // namespace millrace::cuda
