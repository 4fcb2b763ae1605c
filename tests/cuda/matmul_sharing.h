// SPDX-License-Identifier: Apache-2.0
#pragma once
// A matmul kernel run on a case with the tiles shared among blocks as a test says, twice: it agrees with the reference,
// gives the same bits again, and leaves its counters as it found them.
#include <cstdint>
#include <string>
#include <vector>

#include "kernels/cuda/matmul_kernels.h"
#include "tests/cuda/harness.h"
#include "tests/cuda/matmul_case.h"

namespace millrace::cuda_test {

using cuda::ClusterShape;
using cuda::MatmulTask;

struct Format {
  WeightFormat format;
  DType dtype;  // of x, and of dense weights
  int group_size;
  bool has_zeros;
};

inline constexpr Format kDenseBf16 = {WeightFormat::kDense, DType::kBF16, 0, false};
inline constexpr Format kDenseF16 = {WeightFormat::kDense, DType::kF16, 0, false};
inline constexpr Format kInt8 = {WeightFormat::kInt8, DType::kBF16, 0, false};
inline constexpr Format kInt8Grouped = {WeightFormat::kInt8, DType::kBF16, 32, false};
inline constexpr Format kInt8Half = {WeightFormat::kInt8, DType::kBF16, 64, false};
inline constexpr Format kInt8GroupedF16 = {WeightFormat::kInt8, DType::kF16, 128, false};
inline constexpr Format kInt4 = {WeightFormat::kInt4, DType::kBF16, 128, false};
inline constexpr Format kInt4Zeros = {WeightFormat::kInt4, DType::kBF16, 32, true};
inline constexpr Format kInt4Half = {WeightFormat::kInt4, DType::kBF16, 64, true};
inline constexpr Format kInt4F16 = {WeightFormat::kInt4, DType::kF16, 64, true};

struct Size {
  int m;
  int n;
  int k;
};

inline MatmulShape ShapeOf(const Format& format, const Size& size) {
  return {.format = format.format,
          .w_dtype = format.dtype,
          .group_size = format.group_size,
          .has_zeros = format.has_zeros,
          .m = size.m,
          .n = size.n,
          .k = size.k,
          .x_dtype = format.dtype,
          .out_dtype = format.dtype};
}

// How blocks share tiles: as in MatmulTask.
struct Sharing {
  int rows_per_pass;
  int num_blocks;
  int num_split_blocks;
  ClusterShape cluster;
  int block_channels = cuda::kWarpgroupChannels;
};

inline bool HasWarpgroups() {
  int major = 0;
  cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, 0);
  return major == 9;
}

inline constexpr size_t kPartialSums = size_t{256} * 192 * 2;  // of a block, for the largest tile, twice

inline void RunShared(MatmulCase& matmul, const Sharing& sharing,
                      cudaError_t (*launch)(const MatmulTask&, cudaStream_t), const std::string& name,
                      WeightRounding rounding = WeightRounding::kExact) {
  MatmulTask task = matmul.Task();
  const int num_slots = (sharing.num_split_blocks + 1) * sharing.cluster.num_blocks();
  DeviceArray<float> partials(kPartialSums * num_slots);
  DeviceArray<int32_t> counters(std::vector<int32_t>(num_slots, 0));
  task.rows_per_pass = sharing.rows_per_pass;
  task.num_blocks = sharing.num_blocks;
  task.num_split_blocks = sharing.num_split_blocks;
  task.block_channels = sharing.block_channels;
  task.cluster = sharing.cluster;
  task.partials = partials.data();
  task.counters = counters.data();
  EXPECT(launch(task, nullptr) == cudaSuccess) << name << Describe(matmul.shape());
  matmul.Check(name, rounding);
  const std::vector<unsigned char> first = matmul.Output();
  for (const int32_t counter : counters.Download()) EXPECT(counter == 0) << name << "a counter is left";
  matmul.Poison();
  EXPECT(launch(task, nullptr) == cudaSuccess) << name;
  EXPECT(matmul.Output() == first) << name << Describe(matmul.shape()) << "differs when run again";
}

inline WeightRounding WarpgroupRounding(const Format& format) {
  return format.format == WeightFormat::kInt4 ? WeightRounding::kOnce : WeightRounding::kExact;
}

}  // namespace millrace::cuda_test
