// SPDX-License-Identifier: Apache-2.0
// The matmul of int8 by int8 for many rows on sm_90a: out[m, n] = s_x[m] * s_w[n] * sum over k of x[m, k] * w[n, k],
// the sum exact, in tiles of up to 128 rows x 256 channels.
//
//   block     two warpgroups that multiply and one thread that fetches; more than 64 rows: each group takes 64 of them
//             and all channels, else each takes half of the channels
//   stage     128 bytes along k of the rows of x and the channels, by tensor copies, swizzled; 4 stages, handed over by
//             a pair of barriers each (full: the bytes are there; empty: all eight warps are done)
//   products  m64n256k32 (or n128) straight from shared memory; those of a stage are waited for while the next one's
//   run tiles     as the tile kernel's: shared by the blocks as matmul_schedule.h says
//
// Limited by tensor cores, then by the shared memory that feeds them. Weights are fetched before the grid dependency is
// waited for. Its twin, for other devices and in tests, is the tile kernel: the sums are the same integers.
#include <cuda_runtime.h>

#include <cstdint>

#include "kernels/cuda/common/launch.h"
#include "kernels/cuda/common/ptx_wgmma.h"
#include "kernels/cuda/matmul_device.h"
#include "kernels/cuda/matmul_kernels.h"
#include "kernels/cuda/matmul_schedule.h"
#include "kernels/cuda/tensor_map.h"

namespace millrace::cuda {
namespace {

constexpr int kChannels = kWarpgroupChannels;
constexpr int kGroupRows = 64;  // of a product
constexpr int kNumGroups = 2;   // of warps that multiply; the fetching group comes after them
constexpr int kGroupThreads = 128;
constexpr int kNumThreads = kGroupThreads * (kNumGroups + 1);
constexpr int kStageBytes = kWarpgroupStageBytes;  // along k
constexpr int kProductBytes = 32;                  // along k
constexpr int kNumStages = 4;
constexpr int kProducerRegisters = 40;
constexpr int kConsumerRegisters = 232;
static_assert(kStageBytes == kTensorBoxBytes, "a stage is a box wide");

// kRowGroups: warpgroups above each other.
template <int kRowGroups>
struct WarpgroupTile {
  static constexpr int kRows = kGroupRows * kRowGroups;
  static constexpr int kGroupChannels = kChannels * kRowGroups / kNumGroups;
  static constexpr int kColumnTiles = kGroupChannels / 8;
  static constexpr int kRowBytes = kRows * kStageBytes;  // of x, of a stage
  static constexpr int kSlotBytes = kRowBytes + kChannels * kStageBytes;
  static constexpr int kSharedBytes = kNumStages * kSlotBytes + 1024;  // the stages start at a multiple of 1024
  using Sums = int32_t[kColumnTiles][4];
};

struct Barriers {
  ptx::Mbarrier full[kNumStages];
  ptx::Mbarrier empty[kNumStages];
};

// The multiplying warps, to whoever adds up shared tiles.
struct Consumers {
  __device__ static int NumThreads() { return kGroupThreads * kNumGroups; }
  __device__ static void Sync() { ptx::NamedBarrierWait(1, kGroupThreads * kNumGroups); }
};

// What is fetched, by one thread.
template <int kRowGroups>
struct Fetcher {
  using Tile = WarpgroupTile<kRowGroups>;
  const CUtensorMap* x_map;
  const CUtensorMap* w_map;
  unsigned char* slots;
  Barriers* barriers;

  __device__ unsigned char* Slot(int fill) const { return slots + fill % kNumStages * Tile::kSlotBytes; }
  __device__ void Announce(int fill) const {
    ptx::MbarrierArriveExpect(&barriers->full[fill % kNumStages], Tile::kSlotBytes);
  }
  __device__ void FetchWeights(const TilePlace& place, int stage, int fill) const {
    ptx::TensorCopy(Slot(fill) + Tile::kRowBytes, w_map, stage * kStageBytes, place.first_channel,
                    &barriers->full[fill % kNumStages]);
  }
  __device__ void FetchRows(const TilePlace& place, int stage, int fill) const {
    ptx::TensorCopy(Slot(fill), x_map, stage * kStageBytes, place.first_row, &barriers->full[fill % kNumStages]);
  }
};

template <int kRowGroups>
__device__ void Fetch(const MatmulTask& task, const Fetcher<kRowGroups>& fetcher) {
  int fill = 0;  // stages begun
  Segment segment;
  for (int i = 0; ComputeSegment(task, i, segment); ++i) {
    const TilePlace place = FindTilePlace(task, segment.tile, kChannels);
    int stage = segment.first_stage;
    if (i == 0) {
      const int num_early = min(kNumStages, segment.end_stage - stage);
      for (int s = 0; s < num_early; ++s) {
        fetcher.Announce(s);
        fetcher.FetchWeights(place, stage + s, s);
      }
      ptx::GridDependencyWait();
      for (int s = 0; s < num_early; ++s) fetcher.FetchRows(place, stage + s, s);
      ptx::GridDependencyLaunch();
      stage += num_early, fill += num_early;
    }
    for (; stage < segment.end_stage; ++stage, ++fill) {
      ptx::MbarrierWait(&fetcher.barriers->empty[fill % kNumStages], fill / kNumStages % 2 ^ 1);
      fetcher.Announce(fill);
      fetcher.FetchWeights(place, stage, fill);
      fetcher.FetchRows(place, stage, fill);
    }
  }
}

__device__ void Release(Barriers& barriers, int fill) {
  if (threadIdx.x % 32 == 0) ptx::MbarrierArrive(&barriers.empty[fill % kNumStages]);
}

// The sums of a segment's stages, which were filled from `fill` on.
template <int kRowGroups>
__device__ void MultiplyStages(const unsigned char* slots, Barriers& barriers, int fill, int num_stages,
                               typename WarpgroupTile<kRowGroups>::Sums& sums) {
  using Tile = WarpgroupTile<kRowGroups>;
  const int group = static_cast<int>(threadIdx.x) / kGroupThreads;
  const int rows_at = kRowGroups == 1 ? 0 : group * kGroupRows * kStageBytes;
  const int channels_at = Tile::kRowBytes + (kRowGroups == 1 ? group * Tile::kGroupChannels * kStageBytes : 0);
  constexpr int kEightRows = 8 * kStageBytes;
  const uint64_t x = ptx::MatrixDescriptor(slots + rows_at, ptx::Swizzle::k128, 16, kEightRows);
  const uint64_t w = ptx::MatrixDescriptor(slots + channels_at, ptx::Swizzle::k128, 16, kEightRows);
#pragma unroll 1
  for (int s = 0; s < num_stages; ++s, ++fill) {
    ptx::MbarrierWait(&barriers.full[fill % kNumStages], fill / kNumStages % 2);
    const uint32_t slot_at = static_cast<uint32_t>(fill % kNumStages * Tile::kSlotBytes);
    ptx::WgmmaFence();
#pragma unroll
    for (int at = 0; at < kStageBytes; at += kProductBytes) {
      ptx::WgmmaS8(sums, ptx::Advance(x, slot_at + at), ptx::Advance(w, slot_at + at), true);
    }
    ptx::WgmmaCommit();
    ptx::WgmmaWait<1>();
    if (s > 0) Release(barriers, fill - 1);
  }
  ptx::WgmmaWait<0>();
  Release(barriers, fill - 1);
}

template <int kRowGroups>
__device__ void StoreSums(const MatmulTask& task, const TilePlace& place,
                          const typename WarpgroupTile<kRowGroups>::Sums& sums) {
  using Tile = WarpgroupTile<kRowGroups>;
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const int warp = static_cast<int>(threadIdx.x) / 32;
  const int first_row = kRowGroups == 1 ? warp % 4 * 16 : warp * 16;
  const int first_channel = place.first_channel + (kRowGroups == 1 ? warp / 4 * Tile::kGroupChannels : 0);
#pragma unroll
  for (int j = 0; j < Tile::kColumnTiles; ++j) {
    const int channel = first_channel + 8 * j + lane % 4 * 2;
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int row = first_row + half * 8 + lane / 4;
      if (row >= place.num_rows || channel >= task.w.n) continue;
      const float2 pair = {static_cast<float>(sums[j][2 * half]), static_cast<float>(sums[j][2 * half + 1])};
      StoreOutputPair(task.epilogue, place.first_row + row, channel, static_cast<int>(task.w.n), pair);
    }
  }
}

template <int kRowGroups>
__device__ void Consume(const MatmulTask& task, const unsigned char* slots, Barriers& barriers) {
  const int group = static_cast<int>(threadIdx.x) / kGroupThreads;
  ptx::GridDependencyWait();  // the rows' scales, the residual and the partial sums are the predecessors'
  ptx::GridDependencyLaunch();
  int fill = 0;
  Segment segment;
  for (int i = 0; ComputeSegment(task, i, segment); ++i) {
    const TilePlace place = FindTilePlace(task, segment.tile, kChannels);
    const int num_stages = segment.end_stage - segment.first_stage;
    const bool has_rows = kRowGroups == 1 || group * kGroupRows < place.num_rows;
    typename WarpgroupTile<kRowGroups>::Sums sums = {};
    if (has_rows) {
      MultiplyStages<kRowGroups>(slots, barriers, fill, num_stages, sums);
    } else {
      for (int s = 0; s < num_stages; ++s) {
        ptx::MbarrierWait(&barriers.full[(fill + s) % kNumStages], (fill + s) / kNumStages % 2);
        Release(barriers, fill + s);
      }
    }
    fill += num_stages;
    const auto is_used = [&](int) { return has_rows; };
    if (GatherSegments<Consumers>(task, segment, is_used, sums)) StoreSums<kRowGroups>(task, place, sums);
  }
}

template <int kRowGroups>
__global__ void __launch_bounds__(kNumThreads, 1)
    WarpgroupMatmul(const MatmulTask task, const __grid_constant__ CUtensorMap x_map,
                    const __grid_constant__ CUtensorMap w_map) {
  __shared__ Barriers barriers;
  unsigned char* const slots = ptx::AlignShared<1024>(ptx::SharedMemory<unsigned char>());
  if (threadIdx.x == 0) {
    for (int i = 0; i < kNumStages; ++i) {
      ptx::MbarrierInit(&barriers.full[i], 1);
      ptx::MbarrierInit(&barriers.empty[i], kNumGroups * kGroupThreads / 32);
    }
    ptx::MbarrierInitFence();
  }
  __syncthreads();  // the barriers are there for everyone
  if (threadIdx.x >= kNumGroups * kGroupThreads) {
    ptx::LowerRegisters<kProducerRegisters>();
    if (threadIdx.x == kNumGroups * kGroupThreads) {
      ptx::PrefetchTensorMap(&w_map);
      ptx::PrefetchTensorMap(&x_map);
      Fetch<kRowGroups>(task, {&x_map, &w_map, slots, &barriers});
    }
  } else {
    ptx::RaiseRegisters<kConsumerRegisters>();
    Consume<kRowGroups>(task, slots, barriers);
  }
}

template <int kRowGroups>
cudaError_t LaunchGroups(MatmulTask task, cudaStream_t stream) {
  using Tile = WarpgroupTile<kRowGroups>;
  const int num_row_tiles = (task.num_rows + task.rows_per_pass - 1) / task.rows_per_pass;
  task.num_tiles = static_cast<int>((task.w.n + kChannels - 1) / kChannels) * num_row_tiles;
  task.num_stages = static_cast<int>((task.w.k + kStageBytes - 1) / kStageBytes);
  CUtensorMap x_map, w_map;
  cudaError_t error = MakeTensorMap({task.x, task.w.k, task.num_rows, task.x_stride_bytes, Tile::kRows}, x_map);
  if (error == cudaSuccess) {
    error = MakeTensorMap({task.w.values, task.w.k, task.w.n, task.w.stride, kChannels}, w_map);
  }
  if (error != cudaSuccess) return error;
  return Launch(WarpgroupMatmul<kRowGroups>,
                {.grid = dim3(static_cast<unsigned>(task.num_blocks)),
                 .block = dim3(kNumThreads),
                 .shared_bytes = Tile::kSharedBytes,
                 .stream = stream,
                 .is_dependent = task.is_dependent},
                task, x_map, w_map);
}

}  // namespace

cudaError_t LaunchWarpgroupMatmul(const MatmulTask& task, cudaStream_t stream) {
  return task.rows_per_pass <= kGroupRows ? LaunchGroups<1>(task, stream) : LaunchGroups<2>(task, stream);
}

}  // namespace millrace::cuda
