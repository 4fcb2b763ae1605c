// SPDX-License-Identifier: Apache-2.0
// The matmul by warpgroups against a double reference: wide and narrow blocks, alone and in clusters that share
// weights, rows or both, on shapes around every edge of tiles and clusters.
#include "kernels/cuda/matmul_kernels.h"
#include "tests/cuda/harness.h"
#include "tests/cuda/matmul_case.h"
#include "tests/cuda/matmul_sharing.h"

namespace millrace::cuda_test {
namespace {

void RunWarpgroup(const Format& format, const Size& size, const Sharing& sharing) {
  MatmulCase matmul(ShapeOf(format, size), static_cast<uint32_t>(size.m * 1000 + size.n));
  RunShared(matmul, sharing, cuda::LaunchWarpgroupMatmul, "warpgroup", WarpgroupRounding(format));
}

KERNEL_TEST("matmul warpgroup: int8, rows, channels and K around the edges of tiles") {
  if (!HasWarpgroups()) return;
  RunWarpgroup(kInt8, {1, 1, 16}, {16, 1, 1});
  RunWarpgroup(kInt8, {64, 255, 144}, {64, 1, 1});
  RunWarpgroup(kInt8, {65, 40, 112}, {80, 1, 1});
  RunWarpgroup(kInt8, {127, 257, 640}, {128, 2, 2});
  RunWarpgroup(kInt8, {129, 128, 128}, {80, 2, 2});
}

KERNEL_TEST("matmul warpgroup: int4, rows, channels and K around the edges of tiles, groups of every size") {
  if (!HasWarpgroups()) return;
  RunWarpgroup(kInt4, {1, 1, 128}, {16, 1, 1});
  RunWarpgroup(kInt4Zeros, {17, 255, 96}, {32, 1, 1});  // the last stage is half of one
  RunWarpgroup(kInt4Half, {64, 257, 64}, {64, 2, 2});
  RunWarpgroup(kInt4Zeros, {66, 144, 32}, {80, 1, 1});
  RunWarpgroup(kInt4, {127, 130, 640}, {128, 1, 1});
  RunWarpgroup(kInt4Half, {131, 40, 192}, {80, 2, 2});
}

KERNEL_TEST("matmul warpgroup: every number of rows that a pass may have") {
  if (!HasWarpgroups()) return;
  for (const Format& format : {kInt8, kInt4}) {
    for (const cuda::WarpgroupBlock& block : {cuda::WideBlock(format.format), cuda::NarrowBlock(format.format)}) {
      for (int rows = block.min_rows; rows <= block.max_rows; rows += cuda::kWarpgroupRowStep) {
        RunWarpgroup(format, {rows, 20, 128}, {rows, 1, 1, {}, block.num_channels});
      }
    }
  }
}

KERNEL_TEST("matmul warpgroup: a launch for which there is no kernel is an error") {
  if (!HasWarpgroups()) return;
  for (const Format& format : {kInt8, kInt4}) {
    MatmulCase matmul(ShapeOf(format, {8, 20, 128}), 1);
    const auto launch = [&](int rows_per_pass, int block_channels, const ClusterShape& cluster) {
      MatmulTask task = matmul.Task();
      task.num_blocks = 1;
      task.rows_per_pass = rows_per_pass, task.block_channels = block_channels, task.cluster = cluster;
      return cuda::LaunchWarpgroupMatmul(task, nullptr);
    };
    for (const int block_channels : {cuda::kWarpgroupChannels, cuda::kWarpgroupNarrowChannels}) {
      for (const int rows : {8, 272}) EXPECT(launch(rows, block_channels, {}) == cudaErrorInvalidValue) << rows;
      for (const ClusterShape& cluster : {ClusterShape{3, 1}, {8, 1}, {1, 4}, {4, 2}, {0, 1}, {1, 0}}) {
        EXPECT(launch(192, block_channels, cluster) == cudaErrorInvalidValue) << cluster.row_blocks;
      }
    }
    EXPECT(launch(64, 64, {}) == cudaErrorInvalidValue) << "no blocks of so many channels";
    if (format.format == WeightFormat::kInt4) {
      EXPECT(launch(32, cuda::kWarpgroupChannels, {2, 1}) == cudaErrorInvalidValue) << "int4 weights are not shared";
    }
  }
}

KERNEL_TEST("matmul warpgroup: blocks that share tiles, more tiles than blocks") {
  if (!HasWarpgroups()) return;
  RunWarpgroup(kInt8, {100, 100, 1152}, {112, 3, 3});    // one tile in three
  RunWarpgroup(kInt8, {50, 700, 1024}, {64, 2, 2});      // a wave, then one tile for two
  RunWarpgroup(kInt8, {200, 300, 256}, {112, 3, 1});     // a wave, then one tile for one; the last rows are fewer
  RunWarpgroup(kInt4, {20, 100, 1152}, {32, 3, 3});      // blocks end inside groups
  RunWarpgroup(kInt4Zeros, {90, 600, 480}, {48, 4, 4});  // a wave, then two tiles for four
  RunWarpgroup(kInt4Half, {40, 700, 320}, {48, 2, 2});   // a wave, then one tile for two
}

KERNEL_TEST("matmul warpgroup: two blocks that fetch weights for each other, also where one has no rows") {
  if (!HasWarpgroups()) return;
  RunWarpgroup(kInt8, {20, 20, 128 * 9}, {16, 1, 1, {2, 1}});
  RunWarpgroup(kInt8, {16, 255, 144}, {16, 1, 1, {2, 1}});   // the second block has no rows
  RunWarpgroup(kInt8, {150, 300, 640}, {80, 2, 2, {2, 1}});  // a tile for each cluster
  RunWarpgroup(kInt8, {70, 600, 1152}, {32, 2, 2, {2, 1}});  // six tiles, the second row of tiles has one block's rows
  RunWarpgroup(kInt8, {60, 300, 640}, {32, 3, 3, {2, 1}});   // two tiles for three clusters
  RunWarpgroup(kInt8, {33, 700, 1024}, {32, 2, 2, {2, 1}});  // a wave, then one tile for two
}

KERNEL_TEST("matmul warpgroup: four blocks that fetch weights for each other, with rows for one of them up to all") {
  if (!HasWarpgroups()) return;
  for (const int m : {1, 16, 17, 32, 33, 47, 48, 49, 63, 64, 65}) {
    RunWarpgroup(kInt8, {m, 20, 128 * 5}, {16, 1, 1, {4, 1}});  // of 65 rows a second tile has one
  }
  RunWarpgroup(kInt8, {150, 255, 144}, {48, 1, 1, {4, 1}});  // the last block has 6 rows
  RunWarpgroup(kInt8, {580, 20, 80}, {192, 1, 1, {4, 1}});
}

KERNEL_TEST("matmul warpgroup: clusters of four that share tiles, more tiles than clusters") {
  if (!HasWarpgroups()) return;
  RunWarpgroup(kInt8, {70, 600, 1152}, {16, 2, 2, {4, 1}});  // six tiles, the second row of tiles has one block's rows
  RunWarpgroup(kInt8, {60, 300, 640}, {16, 3, 3, {4, 1}});   // two tiles for three clusters
  RunWarpgroup(kInt8, {33, 700, 1024}, {16, 2, 2, {4, 1}});  // a wave, then one tile for two
  RunWarpgroup(kInt8, {20, 20, 128 * 9}, {16, 4, 4, {4, 1}});  // one tile in four, of which two blocks have rows
}

KERNEL_TEST("matmul warpgroup: blocks that fetch rows for each other, also where one has no channels") {
  if (!HasWarpgroups()) return;
  for (const Format& format : {kInt8, kInt4Zeros}) {
    RunWarpgroup(format, {20, 300, 64 * 9}, {32, 1, 1, {1, 2}});
    RunWarpgroup(format, {16, 40, 96}, {16, 1, 1, {1, 2}});     // the second block has no channels
    RunWarpgroup(format, {70, 700, 256}, {48, 2, 2, {1, 2}});   // four tiles, two of which end in the first block
    RunWarpgroup(format, {60, 300, 640}, {32, 3, 3, {1, 2}});   // two tiles for three clusters
    RunWarpgroup(format, {33, 1100, 256}, {48, 2, 2, {1, 2}});  // a wave, then one tile for two
    RunWarpgroup(format, {200, 270, 192}, {208, 1, 1, {1, 2}, cuda::kWarpgroupNarrowChannels});
  }
}

KERNEL_TEST("matmul warpgroup: squares of blocks that fetch weights and rows for each other") {
  if (!HasWarpgroups()) return;
  for (const int n : {40, 270, 520}) {
    for (const int m : {1, 17, 33}) RunWarpgroup(kInt8, {m, n, 128 * 5}, {16, 1, 1, {2, 2}});
  }
  RunWarpgroup(kInt8, {70, 600, 384}, {32, 2, 2, {2, 2}});   // four tiles: two waves
  RunWarpgroup(kInt8, {60, 700, 640}, {32, 3, 3, {2, 2}});   // two tiles for three clusters
  RunWarpgroup(kInt8, {33, 1300, 384}, {32, 2, 2, {2, 2}});  // a wave, then one tile for two
}

KERNEL_TEST("matmul warpgroup: narrow blocks, alone and in clusters") {
  if (!HasWarpgroups()) return;
  constexpr int kNarrow = cuda::kWarpgroupNarrowChannels;
  for (const ClusterShape& cluster : cuda::kWarpgroupClusters) {
    RunWarpgroup(kInt8, {150, 130, 144}, {144, 1, 1, cluster, kNarrow});
    RunWarpgroup(kInt8, {180, 260, 384}, {160, 3, 3, cluster, kNarrow});
    if (cluster.row_blocks > 1) continue;
    RunWarpgroup(kInt4Zeros, {200, 130, 64}, {208, 1, 1, cluster, kNarrow});
    RunWarpgroup(kInt4Half, {200, 260, 192}, {192, 3, 3, cluster, kNarrow});
  }
}

}  // namespace
}  // namespace millrace::cuda_test
