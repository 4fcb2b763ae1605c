// SPDX-License-Identifier: Apache-2.0
#pragma once
// The matmul for many rows on sm_90a: out^T = W x^T. Channels are the 64 rows of a product and the rows of x its
// columns, as many as a pass has, in steps of 16: little is multiplied for nothing, whatever the number of rows.
//
//   block     two warpgroups that multiply, each half of the 256 or 128 channels by all rows, and a thread that fetches
//   stage     128 bytes along k of the rows of x, swizzled, and the weights for them, by tensor copies; 4 or 8 stages,
//             handed over by a pair of barriers each (full: the bytes are there; empty: all eight warps are done)
//   products  m64nRk16 or m64nRk32 with R = kRows; the last ones run on while the next are prepared
//   cluster   one block, or two or four in a row or a square (ClusterShape). Those of the same channels fetch a part of
//             a stage's weights each for all, those of the same rows a part of the rows, so that L2 is asked for either
//             once. A stage is empty when the warps of all are done with it.
//   tiles     as the tile kernel's, a cluster's together: shared by the clusters as matmul_schedule.h says
//   out       8 x 8 sums at a time are transposed among a warp's registers, so that pairs of channels are stored
//
// Weights are fetched before the grid dependency is waited for. Internal to matmul_warpgroup_*.cu.
#include <cuda_runtime.h>

#include <cstdint>

#include "kernels/cuda/common/launch.h"
#include "kernels/cuda/common/ptx_wgmma.h"
#include "kernels/cuda/matmul_kernels.h"
#include "kernels/cuda/matmul_warpgroup_cluster.h"
#include "kernels/cuda/matmul_warpgroup_store.h"
#include "kernels/cuda/matmul_warpgroup_tile.h"
#include "kernels/cuda/tensor_map.h"

namespace millrace::cuda {

// What is fetched, by one thread.
template <typename Format, int kRows>
struct StageFetcher {
  using Tile = WarpgroupTile<Format, kRows>;
  const MatmulTask& task;
  const CUtensorMap* x_map;
  const typename Format::Maps* maps;
  unsigned char* slots;
  typename Tile::Barriers* barriers;

  __device__ unsigned char* Slot(uint32_t fill) const { return slots + fill % Tile::kNumStages * Tile::kSlotBytes; }
  __device__ ptx::Mbarrier* Full(uint32_t fill) const { return &barriers->full[fill % Tile::kNumStages]; }
  __device__ void FetchWeights(const TilePlace& place, int stage, uint32_t fill) const {
    ptx::MbarrierArriveExpect(Full(fill), Tile::kRowBytes + Format::FetchedBytes(task));
    Format::Fetch(task, *maps, {place.first_channel, stage}, Slot(fill) + Tile::kRowBytes, Full(fill));
  }
  __device__ void FetchRows(const TilePlace& place, int stage, uint32_t fill) const {
    CopyForRows(task, Slot(fill), *x_map, {stage * kWarpgroupStageBytes, place.first_row}, kRows, Full(fill));
  }

  __device__ void Run() const {
    ptx::PrefetchTensorMap(x_map);
    uint32_t fill = 0;  // stages begun
    Segment segment;
    for (int i = 0; Cluster::ComputeSegment(task, i, segment); ++i) {
      const TilePlace place = Cluster::FindPlace(task, segment.tile, Format::kChannels);
      int stage = segment.first_stage;
      if (i == 0) {
        const int num_early = min(static_cast<int>(Tile::kNumStages), segment.end_stage - stage);
#pragma unroll 1
        for (int s = 0; s < num_early; ++s) FetchWeights(place, stage + s, static_cast<uint32_t>(s));
        ptx::GridDependencyWait();
#pragma unroll 1
        for (int s = 0; s < num_early; ++s) FetchRows(place, stage + s, static_cast<uint32_t>(s));
        ptx::GridDependencyLaunch();
        stage += num_early, fill += static_cast<uint32_t>(num_early);
      }
#pragma unroll 1
      for (; stage < segment.end_stage; ++stage, ++fill) {
        ptx::MbarrierWait(&barriers->empty[fill % Tile::kNumStages], fill / Tile::kNumStages % 2 ^ 1);
        FetchWeights(place, stage, fill);
        FetchRows(place, stage, fill);
      }
    }
  }
};

template <typename Format, int kRows>
__device__ void Consume(const MatmulTask& task, const unsigned char* slots,
                        typename WarpgroupTile<Format, kRows>::Barriers& barriers) {
  using Tile = WarpgroupTile<Format, kRows>;
  ptx::GridDependencyWait();  // the rows' scales, the residual and the partial sums are the predecessors'
  ptx::GridDependencyLaunch();
  uint32_t fill = 0;
  Segment segment;
  for (int i = 0; Cluster::ComputeSegment(task, i, segment); ++i) {
    typename Format::Lane lane(task);
    typename Tile::Sums sums = {};
    auto& flat = reinterpret_cast<typename Format::Sum(&)[Tile::kGroupProducts * Tile::kRowTiles][4]>(sums);
#pragma unroll 1
    for (int stage = segment.first_stage; stage < segment.end_stage; ++stage, ++fill) {
      ptx::MbarrierWait(&barriers.full[fill % Tile::kNumStages], fill / Tile::kNumStages % 2);
      const unsigned char* const slot = slots + fill % Tile::kNumStages * Tile::kSlotBytes;
      const uint64_t x = ptx::MatrixDescriptor(slot, ptx::Swizzle::k128, 16, kEightRowsBytes);
      Format::Multiply(task, lane, {stage, stage == segment.first_stage}, x, slot + Tile::kRowBytes, sums, [&] {
        if (stage > segment.first_stage) barriers.Release(task, fill - 1);
      });
    }
    ptx::WgmmaWait<0>();
    ptx::PinRegisters(flat);
    barriers.Release(task, fill - 1);
    const TilePlace place = Cluster::FindPlace(task, segment.tile, Format::kChannels);
    const auto is_used = [&](int sum) { return sum % Tile::kRowTiles * 8 < place.num_rows; };
    if (!GatherSegments<Consumers>(task, segment, is_used, flat)) continue;
    ptx::PinRegisters(flat);
    StoreSums(task, place, sums);
  }
}

template <typename Format, int kRows>
__device__ __forceinline__ void FetchAndConsume(const MatmulTask& task, const CUtensorMap& x_map,
                                                const typename Format::Maps& maps) {
  using Tile = WarpgroupTile<Format, kRows>;
  __shared__ typename Tile::Barriers barriers;
  unsigned char* const slots = ptx::AlignShared<1024>(ptx::SharedMemory<unsigned char>());
  if (threadIdx.x == 0) barriers.Init(task);
  Cluster::Sync(task);  // the barriers are there for everyone
  if (threadIdx.x >= kConsumerGroups * kGroupThreads) {
    ptx::LowerRegisters<kProducerRegisters>();
    if (threadIdx.x == kConsumerGroups * kGroupThreads) {
      StageFetcher<Format, kRows>{task, &x_map, &maps, slots, &barriers}.Run();
    }
  } else {
    ptx::RaiseRegisters<kConsumerRegisters>();
    Consume<Format, kRows>(task, slots, barriers);
  }
  if (Cluster::Size(task) > 1) Cluster::Sync(task);  // nobody speaks to a block that has ended
}

// Empty but on sm_90a: of every architecture that a library is built for it would carry what nobody may launch.
template <typename Format, int kRows>
__global__ void __launch_bounds__(kWarpgroupThreads, 1)
    WarpgroupMatmul(const MatmulTask task, const __grid_constant__ CUtensorMap x_map,
                    const __grid_constant__ typename Format::Maps maps) {
  if constexpr (ptx::kIsSm90a) {
    FetchAndConsume<Format, kRows>(task, x_map, maps);
  } else {
    __trap();
  }
}

template <typename Format, int kRows>
cudaError_t LaunchWarpgroup(MatmulTask task, cudaStream_t stream) {
  const ClusterShape& cluster = task.cluster;
  if (!HasWarpgroupCluster(task.w.format, cluster)) return cudaErrorInvalidValue;
  CutIntoTiles(Format::kChannels * cluster.channel_blocks, kRows * cluster.row_blocks, task);
  const int64_t row_bytes = task.w.k * Format::kXBytes;
  task.num_stages = static_cast<int>((row_bytes + kWarpgroupStageBytes - 1) / kWarpgroupStageBytes);
  CUtensorMap x_map;
  typename Format::Maps maps;
  cudaError_t error = Format::MakeMaps(task, maps);
  if (error == cudaSuccess) {
    const auto box_rows = static_cast<uint32_t>(kRows / cluster.channel_blocks);
    error = MakeTensorMap({task.x, row_bytes, task.num_rows, task.x_stride_bytes, box_rows}, x_map);
  }
  if (error != cudaSuccess) return error;
  return Launch(WarpgroupMatmul<Format, kRows>,
                {.grid = dim3(static_cast<unsigned>(task.num_blocks * cluster.num_blocks())),
                 .block = dim3(kWarpgroupThreads),
                 .shared_bytes = WarpgroupTile<Format, kRows>::kSharedBytes,
                 .stream = stream,
                 .is_dependent = task.is_dependent,
                 .cluster_blocks = static_cast<unsigned>(cluster.num_blocks())},
                task, x_map, maps);
}

// The kernel of the task's rows_per_pass.
template <typename Format, int kRows, int kMaxRows>
cudaError_t LaunchWarpgroupRows(const MatmulTask& task, cudaStream_t stream) {
  if (task.rows_per_pass == kRows) return LaunchWarpgroup<Format, kRows>(task, stream);
  if constexpr (kRows < kMaxRows) {
    return LaunchWarpgroupRows<Format, kRows + kWarpgroupRowStep, kMaxRows>(task, stream);
  }
  return cudaErrorInvalidValue;
}

}  // namespace millrace::cuda
