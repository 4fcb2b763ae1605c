// SPDX-License-Identifier: Apache-2.0
// The matmul for many rows: out[m, n] = sum over k of x[m, k] * w[n, k] in tiles of up to 256 rows x 128 channels, for
// bfloat16 and float16 (float32 sums) and int8 with a scale per channel (exact sums).
//
//   block   8 warps as 2 (rows) x 4 (channels); a warp holds every second tile of 16 rows, so that a short pass keeps
//           both halves busy, by 4 of 8 channels; warps above each other share a scheduler and even out its work
//   stage   64 bytes along k of the rows of x and the channels, 4 stages; rows lie 64 bytes apart, so the eight lanes
//   of
//           a quarter of a 16-byte load read two whole rows: no bank is asked twice
//   k       lane 4g + t takes bytes [16t, 16t + 16) of both operands: the products see k permuted alike
//   tiles   groups of 8 tiles of rows, channels last, so that neighbours share x and w in L2; shared by the blocks as
//           matmul_schedule.h says
//
// sm_80 and up; limited by tensor cores. Weights are fetched before the grid dependency is waited for.
#include <cuda_runtime.h>

#include <cstdint>

#include "kernels/cuda/common/launch.h"
#include "kernels/cuda/common/ptx.h"
#include "kernels/cuda/matmul_device.h"
#include "kernels/cuda/matmul_kernels.h"
#include "kernels/cuda/matmul_schedule.h"

namespace millrace::cuda {
namespace {

constexpr int kChannels = kTileChannelsWide;
constexpr int kWarpRows = 2;
constexpr int kWarpColumns = 4;
constexpr int kNumThreads = 32 * kWarpRows * kWarpColumns;
constexpr int kChannelTiles = kChannels / 8 / kWarpColumns;  // of 8 channels, of a warp
constexpr int kStageBytes = kTileStageBytes;                 // along k
constexpr int kRowUnits = kStageBytes / 16;
constexpr int kNumStages = 4;

template <int kMaxRows>
struct TileShape {
  static constexpr int kRowTiles = kMaxRows / 16 / kWarpRows;  // of 16 rows, of a warp
  static constexpr int kNumSums = kRowTiles * kChannelTiles;
  static constexpr int kStageUnits = (kMaxRows + kChannels) * kRowUnits;  // x, then w
  static constexpr int kSharedBytes = kNumStages * kStageUnits * 16;
  static_assert(kMaxRows % (16 * kWarpRows) == 0 && kMaxRows * kRowUnits % kNumThreads == 0);
};

constexpr int kLoadRows = kNumThreads / kRowUnits;  // that all threads copy at once

// One operand's rows as a thread copies them: 16 bytes of every kLoadRows-th; past the last row and past K are zeros.
struct TileSource {
  const char* first;
  int64_t step_bytes;  // to the thread's next row
  int num_rows;        // from the thread's first row on
  int num_bytes;       // of a row, from the thread's first byte on

  __device__ TileSource(const void* data, int64_t stride_bytes, int rows, int row_bytes)
      : step_bytes(kLoadRows * stride_bytes) {
    const int row = static_cast<int>(threadIdx.x) / kRowUnits;
    const int byte = static_cast<int>(threadIdx.x) % kRowUnits * 16;
    first = static_cast<const char*>(data) + row * stride_bytes + byte;
    num_rows = rows - row;
    num_bytes = row_bytes - byte;
  }
};

template <int kRows>
__device__ void LoadTile(const TileSource& source, int stage, uint4* shared) {
  const char* address = source.first + stage * kStageBytes;
  const int num_rows = stage * kStageBytes < source.num_bytes ? source.num_rows : 0;
#pragma unroll
  for (int i = 0; i < kRows / kLoadRows; ++i) {
    ptx::CpAsync16(shared + i * kNumThreads + threadIdx.x, address, i * kLoadRows < num_rows);
    address += source.step_bytes;
  }
}

// The products of a stage; tiles of rows past the end are left out.
template <typename Math, int kRowTiles>
__device__ void MultiplyTile(const uint4* x, const uint4* w, int num_rows,
                             typename Math::Sum (&sums)[kRowTiles * kChannelTiles][4]) {
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const int warp_row = static_cast<int>(threadIdx.x) / 32 / kWarpColumns;
  const int warp_column = static_cast<int>(threadIdx.x) / 32 % kWarpColumns;
  uint32_t b[kChannelTiles][2][2];
#pragma unroll
  for (int j = 0; j < kChannelTiles; ++j) {
    const uint4 units = w[(warp_column * kChannelTiles + j) * 8 * kRowUnits + lane];
    b[j][0][0] = units.x, b[j][0][1] = units.y, b[j][1][0] = units.z, b[j][1][1] = units.w;
  }
#pragma unroll
  for (int i = 0; i < kRowTiles; ++i) {
    const int row = (i * kWarpRows + warp_row) * 16;
    if (row >= num_rows) break;
    uint32_t a[2][4];
    RowsToOperands(x[row * kRowUnits + lane], x[(row + 8) * kRowUnits + lane], a);
#pragma unroll
    for (int j = 0; j < kChannelTiles; ++j) {
      Math::Mma(sums[i * kChannelTiles + j], a[0], b[j][0]);
      Math::Mma(sums[i * kChannelTiles + j], a[1], b[j][1]);
    }
  }
}

template <int kNumSums, typename Sum>
__device__ void StoreTile(const MatmulTask& task, const TilePlace& place, const Sum (&sums)[kNumSums][4]) {
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const int warp = static_cast<int>(threadIdx.x) / 32;
#pragma unroll
  for (int i = 0; i < kNumSums; ++i) {
    const int row_tile = i / kChannelTiles * kWarpRows + warp / kWarpColumns;
    const int channel_tile = warp % kWarpColumns * kChannelTiles + i % kChannelTiles;
    const int channel = place.first_channel + channel_tile * 8 + lane % 4 * 2;
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int row = row_tile * 16 + half * 8 + lane / 4;
      if (row >= place.num_rows || channel >= task.w.n) continue;
      const float2 pair = {static_cast<float>(sums[i][2 * half]), static_cast<float>(sums[i][2 * half + 1])};
      StoreOutputPair(task.epilogue, place.first_row + row, channel, static_cast<int>(task.w.n), pair);
    }
  }
}

// The ring of stages of one tile.
template <typename Math, int kMaxRows>
struct TileRing {
  using Shape = TileShape<kMaxRows>;
  uint4* shared;
  TileSource x;
  TileSource w;
  int end_stage;

  __device__ TileRing(const MatmulTask& task, const TilePlace& place, int end)
      : shared(ptx::SharedMemory<uint4>()),
        x(static_cast<const char*>(task.x) + place.first_row * task.x_stride_bytes, task.x_stride_bytes, place.num_rows,
          static_cast<int>(task.w.k) * Math::kItemBytes),
        w(static_cast<const char*>(task.w.values) + place.first_channel * task.w.stride * Math::kItemBytes,
          task.w.stride * Math::kItemBytes, static_cast<int>(task.w.n) - place.first_channel,
          static_cast<int>(task.w.k) * Math::kItemBytes),
        end_stage(end) {}
  __device__ uint4* Rows(int slot) const { return shared + slot % kNumStages * Shape::kStageUnits; }
  __device__ uint4* Channels(int slot) const { return Rows(slot) + kMaxRows * kRowUnits; }
  __device__ void LoadWeights(int stage, int slot) const {
    if (stage < end_stage) LoadTile<kChannels>(w, stage, Channels(slot));
  }
  __device__ void LoadRows(int stage, int slot) const {
    if (stage < end_stage) LoadTile<kMaxRows>(x, stage, Rows(slot));
    ptx::CpAsyncCommit();
  }
};

template <typename Math, int kMaxRows>
__global__ void __launch_bounds__(kNumThreads, kMaxRows <= 128 ? 2 : 1) TileMatmul(const MatmulTask task) {
  using Shape = TileShape<kMaxRows>;
  __shared__ Segment segment;
  for (int i = 0; FindSegment(task, i, segment); ++i) {
    const TilePlace place = FindTilePlace(task, segment.tile, kChannels);
    const TileRing<Math, kMaxRows> ring(task, place, segment.end_stage);
    for (int s = 0; s < kNumStages - 1; ++s) ring.LoadWeights(segment.first_stage + s, s);
    if (i == 0) ptx::GridDependencyWait();
    for (int s = 0; s < kNumStages - 1; ++s) ring.LoadRows(segment.first_stage + s, s);
    if (i == 0) ptx::GridDependencyLaunch();
    typename Math::Sum sums[Shape::kNumSums][4] = {};
#pragma unroll 1
    for (int s = 0; s < segment.end_stage - segment.first_stage; ++s) {
      ptx::CpAsyncWait<kNumStages - 2>();
      __syncthreads();  // the stage has arrived for everyone, and everyone is done with the slot refilled now
      ring.LoadWeights(segment.first_stage + s + kNumStages - 1, s + kNumStages - 1);
      ring.LoadRows(segment.first_stage + s + kNumStages - 1, s + kNumStages - 1);
      MultiplyTile<Math, Shape::kRowTiles>(ring.Rows(s), ring.Channels(s), place.num_rows, sums);
    }
    const TilePlace done = FindTilePlace(task, segment.tile, kChannels);
    const int warp_row = static_cast<int>(threadIdx.x) / 32 / kWarpColumns;
    const auto is_used = [&](int sum) { return (sum / kChannelTiles * kWarpRows + warp_row) * 16 < done.num_rows; };
    if (GatherSegments(task, segment, is_used, sums)) StoreTile(task, done, sums);
  }
}

template <typename Math, int kMaxRows>
cudaError_t LaunchTile(MatmulTask task, cudaStream_t stream) {
  CutIntoTiles(kChannels, task.rows_per_pass, task);
  task.num_stages = static_cast<int>((task.w.k * Math::kItemBytes + kStageBytes - 1) / kStageBytes);
  return Launch(TileMatmul<Math, kMaxRows>,
                {.grid = dim3(static_cast<unsigned>(task.num_blocks)),
                 .block = dim3(kNumThreads),
                 .shared_bytes = TileShape<kMaxRows>::kSharedBytes,
                 .stream = stream,
                 .is_dependent = task.is_dependent},
                task);
}

template <typename Math>
cudaError_t LaunchTileRows(const MatmulTask& task, cudaStream_t stream) {
  if (task.rows_per_pass <= kTileRows / 2) return LaunchTile<Math, kTileRows / 2>(task, stream);
  return LaunchTile<Math, kTileRows>(task, stream);
}

}  // namespace

cudaError_t LaunchTileMatmul(const MatmulTask& task, cudaStream_t stream) {
  if (task.w.format == WeightFormat::kInt8) return LaunchTileRows<S8Math>(task, stream);
  if (task.x_dtype == DType::kBF16) return LaunchTileRows<Bf16Math>(task, stream);
  return LaunchTileRows<F16Math>(task, stream);
}

}  // namespace millrace::cuda
