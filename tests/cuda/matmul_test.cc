// SPDX-License-Identifier: Apache-2.0
// Every matmul kernel against a double reference: shapes around every tile edge, outputs poisoned, rows of x padded
// with NaN, blocks that share tiles in every way the schedule has.
#include "kernels/cuda/matmul.h"

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "kernels/cuda/matmul_kernels.h"
#include "kernels/cuda/matmul_plan.h"
#include "tests/cuda/harness.h"
#include "tests/cuda/matmul_case.h"
#include "tests/cuda/matmul_sharing.h"
#ifdef MILLRACE_SIMT
#include <simt_core.h>
#endif

namespace millrace::cuda_test {
namespace {

void RunSkinny(const Format& format, const Size& size, const Sharing& sharing) {
  MatmulCase matmul(ShapeOf(format, size), static_cast<uint32_t>(size.m * 1000 + size.n));
  RunShared(matmul, sharing, cuda::LaunchSkinnyMatmul, "skinny");
}

void RunGemv(const Format& format, const Size& size) {
  MatmulCase matmul(ShapeOf(format, size), static_cast<uint32_t>(size.m * 1000 + size.n));
  EXPECT(cuda::LaunchGemvMatmul(matmul.Task(), nullptr) == cudaSuccess) << Describe(matmul.shape());
  matmul.Check("gemv");
  const std::vector<unsigned char> first = matmul.Output();
  matmul.Poison();
  EXPECT(cuda::LaunchGemvMatmul(matmul.Task(), nullptr) == cudaSuccess);
  EXPECT(matmul.Output() == first) << "gemv" << Describe(matmul.shape()) << "differs when run again";
}

void RunTile(const Format& format, const Size& size, const Sharing& sharing) {
  MatmulCase matmul(ShapeOf(format, size), static_cast<uint32_t>(size.m * 1000 + size.n));
  RunShared(matmul, sharing, cuda::LaunchTileMatmul, "tile");
}

void RunPlain(const MatmulShape& shape) {
  MatmulCase matmul(shape, 7);
  EXPECT(cuda::LaunchPlainMatmul(matmul.Task(), nullptr) == cudaSuccess);
  matmul.Check("plain");
}

KERNEL_TEST("matmul plain: every format and shape agrees with the double reference") {
  for (const Size& size : {Size{1, 1, 1}, Size{3, 33, 7}, Size{9, 31, 19}, Size{2, 5, 67}}) {
    for (const Format& format : {kDenseBf16, kDenseF16, kInt8}) RunPlain(ShapeOf(format, size));
  }
  for (const int k : {128, 384}) {
    for (const Format& format : {kInt8Grouped, kInt8GroupedF16, kInt4, kInt4Zeros, kInt4F16}) {
      RunPlain(ShapeOf(format, {3, 19, k}));
    }
  }
  RunPlain(ShapeOf(kInt4Zeros, {2, 16, 32}));
}

KERNEL_TEST("matmul plain: bias, residual, float32 outputs and weights of another type") {
  for (const DType out : {DType::kF32, DType::kBF16, DType::kF16}) {
    for (const DType w : {DType::kF32, DType::kF16, DType::kBF16}) {
      RunPlain({.w_dtype = w, .m = 2, .n = 35, .k = 13, .out_dtype = out, .has_bias = true, .has_residual = true});
    }
  }
}

KERNEL_TEST("matmul gemv: every format, rows and channels around the edges of tiles, stages around those of warps") {
  RunGemv(kInt4, {1, 1, 128});
  RunGemv(kInt4Half, {3, 17, 64});  // one stage: seven warps have nothing
  RunGemv(kInt4Zeros, {8, 15, 64 * 9});
  RunGemv(kInt4Zeros, {2, 33, 64 * 75});  // more stages of a warp than are fetched ahead
  RunGemv(kInt4, {5, 16, 64 * 130});
  RunGemv(kInt4F16, {4, 31, 64 * 7});
  RunGemv(kInt4Half, {7, 40, 64 * 66});
  RunGemv(kInt8Grouped, {1, 20, 64 * 8});
  RunGemv(kInt8Grouped, {8, 5, 64 * 35});
  RunGemv(kInt8GroupedF16, {3, 47, 64 * 40});
  RunGemv(kDenseBf16, {1, 16, 64});
  RunGemv(kDenseF16, {8, 33, 64 * 19});
  RunGemv(kDenseBf16, {3, 9, 64 * 33});
  for (int rows = 1; rows <= 4; ++rows) {
    RunGemv(kInt8, {rows, 17 * rows, 128 * 3});
    RunGemv(kInt8, {rows, 15, 128 * 19});
  }
}

KERNEL_TEST("matmul gemv: int8 has the bits of the skinny kernel, and what it cannot take is refused") {
  for (int rows = 1; rows <= 4; ++rows) {
    MatmulShape shape = ShapeOf(kInt8, {rows, 45, 128 * 11});
    shape.has_bias = true, shape.has_residual = true;
    MatmulCase matmul(shape, 6);
    EXPECT(cuda::LaunchGemvMatmul(matmul.Task(), nullptr) == cudaSuccess);
    matmul.Check("gemv");
    const std::vector<unsigned char> gemv = matmul.Output();
    matmul.Poison();
    RunShared(matmul, {8, 1, 1}, cuda::LaunchSkinnyMatmul, "skinny");
    EXPECT(matmul.Output() == gemv) << rows << "rows";
  }
  for (const auto& [format, size] : {std::pair(kInt8, Size{5, 16, 128}), std::pair(kInt4, Size{9, 16, 128}),
                                     std::pair(kInt8, Size{1, 16, 144}), std::pair(kInt4Zeros, Size{1, 16, 96})}) {
    MatmulCase matmul(ShapeOf(format, size), 6);
    EXPECT(cuda::LaunchGemvMatmul(matmul.Task(), nullptr) == cudaErrorInvalidValue) << Describe(matmul.shape());
  }
}

KERNEL_TEST("matmul skinny: 16-bit weights, rows and channels around the edges of tiles") {
  RunSkinny(kDenseBf16, {1, 1, 8}, {8, 1, 1});
  RunSkinny(kDenseBf16, {7, 17, 64}, {8, 1, 1});
  RunSkinny(kDenseF16, {8, 127, 72}, {8, 1, 1});
  RunSkinny(kDenseBf16, {9, 129, 136}, {16, 2, 2});
  RunSkinny(kDenseF16, {17, 128, 640}, {24, 1, 1});
  RunSkinny(kDenseBf16, {33, 40, 192}, {40, 1, 1});
  RunSkinny(kDenseF16, {64, 16, 120}, {64, 1, 1});
}

KERNEL_TEST("matmul skinny: int8 with a scale per channel") {
  RunSkinny(kInt8, {1, 3, 16}, {8, 1, 1});
  RunSkinny(kInt8, {5, 130, 144}, {8, 2, 2});
  RunSkinny(kInt8, {16, 64, 1024}, {16, 1, 1});
  RunSkinny(kInt8, {31, 33, 272}, {32, 1, 1});
  RunSkinny(kInt8, {57, 20, 112}, {64, 1, 1});
}

KERNEL_TEST("matmul skinny: int4 with groups of every size, with and without zero points") {
  RunSkinny(kInt4, {1, 1, 128}, {8, 1, 1});
  RunSkinny(kInt4Zeros, {4, 129, 96}, {8, 2, 2});
  RunSkinny(kInt4F16, {8, 127, 64}, {8, 1, 1});
  RunSkinny(kInt4Zeros, {13, 47, 32}, {16, 1, 1});
  RunSkinny(kInt4, {16, 64, 640}, {16, 1, 1});
  RunSkinny(kInt4F16, {25, 130, 192}, {32, 2, 2});
  RunSkinny(kInt4, {33, 257, 256}, {40, 2, 2});
  RunSkinny(kInt4Zeros, {61, 30, 160}, {64, 1, 1});
}

KERNEL_TEST("matmul skinny: int8 with a scale per group") {
  RunSkinny(kInt8Grouped, {1, 5, 32}, {8, 1, 1});
  RunSkinny(kInt8Grouped, {9, 130, 96}, {16, 2, 2});
  RunSkinny(kInt8GroupedF16, {32, 17, 384}, {32, 1, 1});
  RunSkinny(kInt8GroupedF16, {40, 48, 128}, {40, 1, 1});
}

KERNEL_TEST("matmul skinny: passes of up to 128 rows by grouped weights") {
  for (const Format& format : {kInt4, kInt4Zeros, kInt4Half, kInt4F16, kInt8Grouped, kInt8Half, kInt8GroupedF16}) {
    const int k = format.group_size == 32 ? 160 : format.group_size * 3;
    RunSkinny(format, {65, 257, k}, {72, 2, 2});  // nine tiles of rows: the last one is alone
    RunSkinny(format, {127, 30, format.group_size}, {128, 1, 1});
  }
  RunSkinny(kInt4, {128, 129, 384}, {128, 1, 1});
  RunSkinny(kInt4Zeros, {1, 40, 96}, {72, 1, 1});
  RunSkinny(kInt8Grouped, {33, 300, 480}, {72, 3, 3});
  RunSkinny(kInt4, {72, 100, 1152}, {72, 5, 5});         // one tile in five
  RunSkinny(kInt4Half, {90, 300, 640}, {96, 3, 3});      // two tiles in three: ranges cross tiles
  RunSkinny(kInt8Grouped, {139, 40, 480}, {128, 3, 3});  // two passes, the last one short
  RunSkinny(kInt4Zeros, {200, 300, 96}, {104, 3, 3});    // a wave, then one tile for three
  RunSkinny(kInt8GroupedF16, {150, 520, 128}, {80, 4, 2});
  for (const Format& format : {kDenseBf16, kInt8, kInt4, kInt8Grouped}) {
    MatmulCase matmul(ShapeOf(format, {8, 20, 128}), 1);
    MatmulTask task = matmul.Task();
    task.rows_per_pass = cuda::SkinnyRows(task.w) + 8, task.num_blocks = 1;
    EXPECT(cuda::LaunchSkinnyMatmul(task, nullptr) == cudaErrorInvalidValue) << "there is no such kernel";
  }
}

KERNEL_TEST("matmul skinny: blocks that share tiles, more tiles than blocks, several passes") {
  RunSkinny(kDenseBf16, {3, 100, 1024}, {8, 5, 5});   // one tile in five
  RunSkinny(kInt8, {3, 300, 1280}, {8, 7, 7});        // three tiles in seven: ranges cross tiles
  RunSkinny(kInt4, {3, 300, 1152}, {8, 4, 4});        // slices end inside groups
  RunSkinny(kInt4Zeros, {70, 40, 480}, {40, 3, 3});   // two passes, the last one short
  RunSkinny(kDenseF16, {20, 650, 96}, {24, 2, 2});    // three waves of two blocks
  RunSkinny(kInt8Grouped, {2, 650, 256}, {8, 4, 4});  // a wave, then two tiles for four
  RunSkinny(kDenseBf16, {10, 400, 256}, {16, 3, 1});  // a wave, then one tile for one
}

KERNEL_TEST("matmul tile: rows and channels around the edges of tiles") {
  RunTile(kDenseBf16, {1, 1, 8}, {16, 1, 1});
  RunTile(kDenseBf16, {65, 127, 40}, {80, 1, 1});
  RunTile(kDenseF16, {128, 129, 256}, {128, 2, 2});
  RunTile(kInt8, {33, 20, 80}, {48, 1, 1});
  RunTile(kInt8, {130, 64, 192}, {144, 1, 1});
  RunTile(kDenseF16, {255, 33, 72}, {256, 1, 1});
}

KERNEL_TEST("matmul tile: blocks that share tiles, more tiles than blocks") {
  RunTile(kDenseBf16, {40, 100, 512}, {48, 3, 3});
  RunTile(kInt8, {200, 140, 640}, {112, 3, 3});  // four tiles: a wave, one shared by three
  RunTile(kDenseF16, {150, 40, 320}, {160, 4, 4});
  RunTile(kDenseBf16, {300, 20, 64}, {32, 2, 2});  // ten tiles of rows: two groups
}

KERNEL_TEST("matmul: bias, residual and float32 outputs in every kernel") {
  for (const DType out : {DType::kF32, DType::kF16}) {
    for (const Format& format : {kDenseF16, kInt8, kInt4F16, kInt4Half, kInt8GroupedF16}) {
      for (const int n : {37, 41}) {
        MatmulShape shape = ShapeOf(format, {18, n, 256});
        shape.out_dtype = out;
        shape.has_bias = true;
        shape.has_residual = true;
        MatmulCase skinny(shape, 3);
        RunShared(skinny, {24, 2, 2}, cuda::LaunchSkinnyMatmul, "skinny");
        const bool is_grouped = format.group_size != 0;
        if (is_grouped) {
          MatmulCase wide(shape, 3);
          RunShared(wide, {72, 2, 2}, cuda::LaunchSkinnyMatmul, "skinny, long passes");
        } else {
          MatmulCase tile(shape, 4);
          RunShared(tile, {32, 2, 2}, cuda::LaunchTileMatmul, "tile");
        }
        const bool is_int4 = format.format == WeightFormat::kInt4 && format.dtype == DType::kBF16;
        if (!HasWarpgroups() || (!is_int4 && (is_grouped || format.format != WeightFormat::kInt8))) continue;
        MatmulCase warpgroup(shape, 4);
        RunShared(warpgroup, {32, 2, 2}, cuda::LaunchWarpgroupMatmul, "warpgroup", WarpgroupRounding(format));
        for (const ClusterShape& cluster : cuda::kWarpgroupClusters) {
          if (!cuda::HasWarpgroupCluster(format.format, cluster)) continue;
          RunShared(warpgroup, {16, 2, 2, cluster}, cuda::LaunchWarpgroupMatmul, "warpgroup clusters",
                    WarpgroupRounding(format));
        }
      }
    }
  }
}

KERNEL_TEST("matmul: an expanded weight is its dense rows, rounded once") {
  for (const Format& format : {kInt4, kInt4Zeros, kInt4F16, kInt8Grouped, kInt8GroupedF16}) {
    const int k = format.group_size * 3;
    MatmulCase matmul(ShapeOf(format, {3, 37, k}), 11);
    const MatmulTask task = matmul.Task();
    const int stride = (k + 7) / 8 * 8;
    DeviceArray<uint16_t> rows(static_cast<size_t>(37 - 16) * stride);
    const Matrix out = {rows.data(), format.dtype, 37 - 16, k, stride};
    EXPECT(cuda::LaunchExpandWeight({.w = task.w, .first_channel = 16, .num_channels = 21, .out = out}, nullptr) ==
           cudaSuccess);
    const std::vector<uint16_t> got = rows.Download();
    for (int n = 0; n < 21; ++n) {
      for (int i = 0; i < k; ++i) {
        const uint16_t bits = got[static_cast<size_t>(n) * stride + i];
        const double want = matmul.Weight(16 + n, i);
        const bool is_bf16 = format.dtype == DType::kBF16;
        EXPECT_NEAR(is_bf16 ? FloatFromBf16(bits) : FloatFromHalf(bits), want,
                    std::fabs(want) * (is_bf16 ? 0x1.01p-8 : 0x1.01p-11), "channel " + std::to_string(16 + n));
      }
    }
  }
}

KERNEL_TEST("matmul: the launcher serves every format with whatever kernel it plans") {
  const size_t bytes = cuda::MatmulWorkspaceBytes(2050, 300, 512);
  DeviceArray<unsigned char> workspace(std::vector<unsigned char>(bytes + 256, 0));
  void* aligned = workspace.data() + (256 - reinterpret_cast<uintptr_t>(workspace.data()) % 256) % 256;
  const auto run = [&](const MatmulShape& shape, WeightRounding rounding) {
    MatmulCase matmul(shape, 5);
    cuda::MatmulLaunch launch = matmul.Launch();
    launch.workspace = aligned;
    launch.workspace_bytes = bytes;
    launch.num_multiprocessors = 2;
    for (const bool has_warpgroups : {false, HasWarpgroups()}) {
      launch.has_warpgroups = has_warpgroups;
      matmul.Poison();
      EXPECT(cuda::LaunchMatmul(launch, nullptr) == cudaSuccess) << Describe(shape);
      matmul.Check("launcher", rounding);
    }
  };
  for (const Format& format : {kDenseBf16, kDenseF16, kInt8, kInt4, kInt4Zeros, kInt8Grouped}) {
    for (const int m : {1, 20, 140}) run(ShapeOf(format, {m, 200, 256}), WeightRounding::kToActivations);
  }
  for (const int k : {256, 19}) {
    MatmulShape shape = ShapeOf(kInt8, {5, 30, k});
    shape.quantizes_x = true;
    run(shape, WeightRounding::kExact);
  }
  // More rows than the skinny kernel takes: weights are expanded.
  for (const Format& format : {kInt4Zeros, kInt8GroupedF16})
    run(ShapeOf(format, {2050, 24, 128}), WeightRounding::kToActivations);
  run(ShapeOf(kDenseBf16, {3, 20, 37}), WeightRounding::kExact);  // K of no kernel but the plain one
  MatmulShape mixed = ShapeOf(kDenseBf16, {3, 20, 64});
  mixed.w_dtype = DType::kF16;
  run(mixed, WeightRounding::kExact);
}

// Of the launches since the last call; a GPU does not tell.
int TakeClusterBlocks([[maybe_unused]] int want) {
#ifdef MILLRACE_SIMT
  return simt::TakeClusterBlocks();
#else
  return want;
#endif
}

KERNEL_TEST("matmul: the launcher has clusters of the sizes that the device runs, and of no other") {
  if (!HasWarpgroups()) return;
  const size_t bytes = cuda::MatmulWorkspaceBytes(80, 256, 512);
  DeviceArray<unsigned char> workspace(std::vector<unsigned char>(bytes + 256, 0));
  MatmulCase matmul(ShapeOf(kInt8, {80, 256, 512}), 5);
  cuda::MatmulLaunch launch = matmul.Launch();
  launch.workspace = workspace.data() + (256 - reinterpret_cast<uintptr_t>(workspace.data()) % 256) % 256;
  launch.workspace_bytes = bytes;
  launch.num_multiprocessors = 4;
  launch.has_warpgroups = true;
  const auto run = [&](int want) {
    matmul.Poison();
    TakeClusterBlocks(0);
    EXPECT(cuda::LaunchMatmul(launch, nullptr) == cudaSuccess);
    matmul.Check("launcher");
    EXPECT(TakeClusterBlocks(want) == want) << want;
  };
  run(2);  // nobody asked
  launch.resident_clusters = cuda::ResidentClusters{};
  run(1);
  launch.resident_clusters->of_two = 2;
  run(2);
  launch.resident_clusters->of_four = 1;
  run(4);
}

KERNEL_TEST("matmul: a device with warpgroups runs clusters of two and of four, each block on its multiprocessor") {
  if (!HasWarpgroups()) return;
  int num_multiprocessors = 0;
  EXPECT(cudaDeviceGetAttribute(&num_multiprocessors, cudaDevAttrMultiProcessorCount, 0) == cudaSuccess);
  const cuda::ResidentClusters resident = cuda::FindResidentClusters();
  EXPECT(resident.of_two >= 1 && 2 * resident.of_two <= num_multiprocessors) << resident.of_two;
  EXPECT(resident.of_four >= 1 && 4 * resident.of_four <= num_multiprocessors) << resident.of_four;
}

KERNEL_TEST("matmul: a launch that makes no sense is refused") {
  MatmulCase matmul(ShapeOf(kDenseBf16, {1, 8, 64}), 5);
  cuda::MatmulLaunch launch = matmul.Launch();
  launch.num_multiprocessors = 2;
  EXPECT(cuda::LaunchMatmul(launch, nullptr) == cudaErrorInvalidValue) << "no workspace";
  DeviceArray<unsigned char> workspace(std::vector<unsigned char>(cuda::MatmulWorkspaceBytes(1, 8, 64) + 256, 0));
  launch.workspace = workspace.data() + (256 - reinterpret_cast<uintptr_t>(workspace.data()) % 256) % 256;
  launch.workspace_bytes = cuda::MatmulWorkspaceBytes(1, 8, 64);
  for (const cuda::MatmulKernel kernel :
       {cuda::MatmulKernel::kGemv, cuda::MatmulKernel::kSkinny, cuda::MatmulKernel::kPlain}) {
    launch.kernel = kernel;
    matmul.Poison();
    EXPECT(cuda::LaunchMatmul(launch, nullptr) == cudaSuccess) << cuda::MatmulKernelName(kernel);
    matmul.Check(cuda::MatmulKernelName(kernel));
  }
  launch.kernel = cuda::MatmulKernel::kWarpgroup;
  EXPECT(cuda::LaunchMatmul(launch, nullptr) == cudaErrorInvalidValue) << "a kernel that does not take the weights";
  launch.kernel.reset();
  launch.w.k = launch.x.cols = cuda::kMaxMatmulInputs + 64;
  EXPECT(cuda::LaunchMatmul(launch, nullptr) == cudaErrorInvalidValue) << "more than the schedule counts";
}

}  // namespace
}  // namespace millrace::cuda_test
