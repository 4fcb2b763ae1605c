// SPDX-License-Identifier: Apache-2.0
#pragma once
// Sizes that the plan and the kernels of a matmul share. Plain C++.
#include "kernels/cuda/matmul_pack.h"

namespace millrace::cuda {

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

inline constexpr int kWarpgroupChannels = 256;  // of a block of the warpgroup kernel
inline constexpr int kWarpgroupStageBytes = 128;
inline constexpr int kWarpgroupRowStep = 16;  // between the numbers of rows that a pass may have
// At most; what registers hold of sums beside unpacked operands of int4.
constexpr int WarpgroupRows(WeightFormat format) { return format == WeightFormat::kInt4 ? 176 : 192; }
// Blocks that may fetch weights for each other, at most; a power of two.
constexpr int WarpgroupClusterBlocks(WeightFormat format) { return format == WeightFormat::kInt4 ? 1 : 4; }

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
