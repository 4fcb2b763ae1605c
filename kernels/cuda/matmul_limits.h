// SPDX-License-Identifier: Apache-2.0
#pragma once
// Sizes that the plan and the kernels of a matmul share. Plain C++.
#include "kernels/cuda/matmul_pack.h"

namespace millrace::cuda {

// K: the stages of the tiles that one wave leaves, times the blocks that share them, are counted in 32 bits.
inline constexpr int64_t kMaxMatmulInputs = int64_t{1} << 19;

// Rows of the gemv kernel, at most: products of int8 are added up row by row, others on tensor cores.
constexpr int GemvRows(const WeightOnDevice& w) { return w.format == WeightFormat::kInt8 && w.group_size == 0 ? 4 : 8; }

inline constexpr int kSkinnyRows = 64;       // of a pass, of experts too
inline constexpr int kWideSkinnyRows = 128;  // of a pass of the instance that grouped weights have besides
constexpr int SkinnyRows(const WeightOnDevice& w) { return w.group_size != 0 ? kWideSkinnyRows : kSkinnyRows; }
inline constexpr int kMaxSkinnyRows = 2048;  // of all passes
inline constexpr int kSkinnyWarps = 8;
inline constexpr int kSkinnyStageBytes = 128;    // along k, of a row of x
inline constexpr int kManyInt4ChannelTiles = 2;  // of a warp, above 32 rows
inline constexpr int kWideChannelTiles = 2;      // of a warp, above kSkinnyRows
inline constexpr int kWideSumInputs = 32;        // along k, whose products are scaled at once there

inline constexpr int kTileChannelsWide = 128;  // of a block of the tile kernel
inline constexpr int kTileRows = 256;          // at most; blocks of up to half as many rows share a multiprocessor
inline constexpr int kTileStageBytes = 64;     // along k

inline constexpr int kWarpgroupStageBytes = 128;
inline constexpr int kWarpgroupRowStep = 16;  // between the numbers of rows that a pass may have

// Blocks of the warpgroup kernel: wide ones multiply 256 channels, narrow ones half as many by more rows.
struct WarpgroupBlock {
  int num_channels = 0;
  int min_rows = 0;  // multiples of kWarpgroupRowStep
  int max_rows = 0;  // what registers hold of sums, beside unpacked operands of int4
};
inline constexpr int kWarpgroupChannels = 256;
inline constexpr int kWarpgroupNarrowChannels = 128;
constexpr WarpgroupBlock WideBlock(WeightFormat format) {
  return {kWarpgroupChannels, kWarpgroupRowStep, format == WeightFormat::kInt4 ? 176 : 192};
}
constexpr WarpgroupBlock NarrowBlock(WeightFormat format) {
  return {kWarpgroupNarrowChannels, format == WeightFormat::kInt4 ? 192 : 144, 256};
}

// Blocks of the warpgroup kernel that fetch for each other: a grid of rows and channels, whose blocks beside each other
// along the channels multiply the same rows, and those along the rows the same channels.
struct ClusterShape {
  int row_blocks = 1;
  int channel_blocks = 1;
  constexpr int num_blocks() const { return row_blocks * channel_blocks; }
};
inline constexpr ClusterShape kWarpgroupClusters[] = {{1, 1}, {1, 2}, {2, 1}, {2, 2}, {4, 1}};
// int4 weights are few bytes beside the rows, and are not shared.
constexpr bool HasWarpgroupCluster(WeightFormat format, const ClusterShape& shape) {
  if (format == WeightFormat::kInt4 && shape.row_blocks > 1) return false;
  for (const ClusterShape& known : kWarpgroupClusters) {
    if (known.row_blocks == shape.row_blocks && known.channel_blocks == shape.channel_blocks) return true;
  }
  return false;
}

// Clusters of such blocks that a device runs at once. One lies within a GPC, whose multiprocessors need not be a
// multiple of its blocks, so these may be fewer than the multiprocessors have room for. None: that size is not used.
struct ResidentClusters {
  int of_two = 0;
  int of_four = 0;
};

// A block of the skinny kernel for passes of up to some rows.
struct SkinnyBlock {
  int max_rows = 0;  // 8, 16, 32, 64, or 128 where weights are grouped
  int warp_channels = 0;
  int num_channels = 0;
  int blocks_per_processor = 0;
};
SkinnyBlock SkinnyBlockFor(const WeightOnDevice& w, int rows_per_pass);

}  // namespace millrace::cuda
