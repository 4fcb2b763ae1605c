// SPDX-License-Identifier: Apache-2.0
#pragma once
// What blocks of a cluster share in the matmul by warpgroups (matmul_warpgroup.h): whose weights each fetches, which
// rows are whose, and when a stage is empty. Of one block, it is as if there were none. Internal to matmul_warpgroup*.
#include <cuda_runtime.h>

#include "kernels/cuda/common/ptx_barrier.h"
#include "kernels/cuda/matmul_kernels.h"
#include "kernels/cuda/matmul_schedule.h"
#include "kernels/cuda/matmul_warpgroup_store.h"

namespace millrace::cuda {

// The blocks of a cluster as the schedule sees them: one.
template <bool kHasClusters>
struct Cluster {
  __device__ static int Size(const MatmulTask& task) { return kHasClusters ? task.cluster_blocks : 1; }
  __device__ static int Number(const MatmulTask& task) { return static_cast<int>(blockIdx.x) / Size(task); }
  __device__ static int Rank(const MatmulTask& task) { return static_cast<int>(blockIdx.x) % Size(task); }

  __device__ static bool ComputeSegment(const MatmulTask& task, int index, Segment& segment) {
    return cuda::ComputeSegment(task, index, segment, Number(task), static_cast<int>(gridDim.x) / Size(task));
  }
  // For this block; without rows where the cluster has room for more than there are.
  __device__ static TilePlace FindPlace(const MatmulTask& task, int tile) {
    TilePlace place = FindTilePlace(task, tile, kWarpgroupChannels, task.rows_per_pass * Size(task));
    const int skipped = Rank(task) * task.rows_per_pass;
    place.first_row += skipped;
    place.num_rows = min(task.rows_per_pass, place.num_rows - skipped);
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
template <bool kHasClusters>
struct Consumers {
  static constexpr int kQuadsAhead = 8;
  __device__ static int NumThreads() { return kGroupThreads * kConsumerGroups; }
  __device__ static void Sync() { ptx::NamedBarrierWait(1, kGroupThreads * kConsumerGroups); }
  __device__ static int Block(const MatmulTask& task) { return Cluster<kHasClusters>::Number(task); }
  __device__ static int FirstSlot(const MatmulTask& task) {
    return Cluster<kHasClusters>::Rank(task) * task.num_split_blocks;
  }
};

struct WeightsAt {
  int first_channel;
  int stage;
};

// The map's box at (x, y) into every block of the cluster.
__device__ inline void CopyToCluster(const MatmulTask& task, unsigned char* shared, const CUtensorMap& map, int2 at,
                                     ptx::Mbarrier* full) {
  if (task.cluster_blocks == 1) {
    ptx::TensorCopy(shared, &map, at.x, at.y, full);
  } else {
    ptx::TensorCopyTo((1u << task.cluster_blocks) - 1, shared, &map, at.x, at.y, full);
  }
}

template <bool kHasClusters, int kNumStages>
struct StageBarriers {
  using Blocks = Cluster<kHasClusters>;
  ptx::Mbarrier full[kNumStages];
  ptx::Mbarrier empty[kNumStages];

  // By one thread.
  __device__ void Init(const MatmulTask& task) {
    for (int i = 0; i < kNumStages; ++i) {
      ptx::MbarrierInit(&full[i], 1);
      ptx::MbarrierInit(&empty[i], kConsumerGroups * kGroupThreads / 32 * Blocks::Size(task));
    }
    ptx::MbarrierInitFence();
  }
  __device__ void Release(const MatmulTask& task, int fill) {
    const int lane = static_cast<int>(threadIdx.x) % 32;
    if (lane >= Blocks::Size(task)) return;
    if (Blocks::Size(task) == 1) {
      ptx::MbarrierArrive(&empty[fill % kNumStages]);
    } else {
      ptx::MbarrierArriveOf(lane, &empty[fill % kNumStages]);
    }
  }
};

}  // namespace millrace::cuda
