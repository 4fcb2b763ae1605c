// SPDX-License-Identifier: Apache-2.0
// Mistakes planted in the warpgroup kernels of the matmul, at every place where they wait, fence or copy: the emulator
// reports each, or the result is another, in some order of threads.
#include <optional>
#include <string>
#include <vector>

#include "kernels/cuda/matmul_kernels.h"
#include "tests/cuda/harness.h"
#include "tests/cuda/matmul_case.h"
#include "tests/simt/emulator/faults.h"

namespace millrace::cuda_test {
namespace {

using simt::Call;
using simt::FaultKind;

constexpr int kMostSeeds = 8;
constexpr int kBlocks = 2;
constexpr int kMostClusterBlocks = 4;

// Two blocks, or clusters of blocks, share a tile, and either fills its stages several times.
class SharedTile {
 public:
  SharedTile(const MatmulShape& shape, const cuda::ClusterShape& cluster) : matmul_(shape, 3), task_(matmul_.Task()) {
    task_.rows_per_pass = 32;
    task_.block_channels = cuda::kWarpgroupChannels;
    task_.cluster = cluster;
    task_.num_blocks = task_.num_split_blocks = kBlocks;
    task_.partials = partials_.data();
  }
  // Nothing: a report ended the launch.
  std::optional<std::vector<unsigned char>> Multiply() {
    DeviceArray<int32_t> counters(std::vector<int32_t>(kBlocks * kMostClusterBlocks, 0));
    task_.counters = counters.data();
    matmul_.Poison();
    const cudaError_t error = cuda::LaunchWarpgroupMatmul(task_, nullptr);
    simt::TakeReport();
    cudaGetLastError();
    return error == cudaSuccess ? std::optional(matmul_.Output()) : std::nullopt;
  }

 private:
  MatmulCase matmul_;
  cuda::MatmulTask task_;
  DeviceArray<float> partials_{size_t{2} * kBlocks * kMostClusterBlocks * 256 * 32};
};

bool IsFound(SharedTile& tile, const std::vector<unsigned char>& right, const Call& call, FaultKind kind) {
  bool is_found = false;
  simt::PlantFault({call, kind});
  for (int seed = 0; seed < kMostSeeds && !is_found; ++seed) {
    simt::SetSeed(static_cast<uint64_t>(seed));
    is_found = tile.Multiply() != right;
  }
  simt::TakeOutFault();
  simt::SetSeed(0);
  return is_found;
}

void ExpectAllFound(const MatmulShape& shape, int num_tensors, const cuda::ClusterShape& cluster = {}) {
  SharedTile tile(shape, cluster);
  simt::RecordCalls();
  const std::optional<std::vector<unsigned char>> right = tile.Multiply();
  const std::vector<Call> calls = simt::TakeCalls();
  EXPECT(right.has_value());
  const simt::QuietReports quiet;
  for (const Call& call : calls) {
    const std::string what = std::string(call.wrapper) + " at " + std::to_string(call.place);
    if (call.wrapper == "TensorCopy") {
      --num_tensors;
      EXPECT(IsFound(tile, *right, call, FaultKind::kNextBox)) << what;
      continue;
    }
    if (call.wrapper == "MbarrierInit") {
      EXPECT(IsFound(tile, *right, call, FaultKind::kHalfTheArrivals)) << what;
      continue;
    }
    EXPECT(IsFound(tile, *right, call, FaultKind::kSkipped)) << what;
    if (call.wrapper != "MbarrierWait") continue;
    EXPECT(IsFound(tile, *right, call, FaultKind::kOtherPhase)) << what;
  }
  EXPECT(num_tensors == 0) << "every operand is copied";
}

KERNEL_TEST("matmul warpgroup: int8, a wait, a fence, a phase or a box that is wrong anywhere is found") {
  ExpectAllFound({.format = WeightFormat::kInt8, .m = 20, .n = 20, .k = 128 * 18}, 2);
}

KERNEL_TEST("matmul warpgroup: int4, a wait, a fence, a phase or a box that is wrong anywhere is found") {
  ExpectAllFound({.format = WeightFormat::kInt4, .group_size = 32, .has_zeros = true, .m = 20, .n = 20, .k = 64 * 34},
                 4);
}

KERNEL_TEST("matmul warpgroup: in clusters, what one block does not tell or wait for of the other is found as well") {
  ExpectAllFound({.format = WeightFormat::kInt8, .m = 50, .n = 20, .k = 128 * 18}, 2, {2, 1});
}

KERNEL_TEST("matmul warpgroup: in clusters of four, what one block does not tell or wait for of the others is found") {
  ExpectAllFound({.format = WeightFormat::kInt8, .m = 100, .n = 20, .k = 128 * 18}, 2, {4, 1});
}

KERNEL_TEST("matmul warpgroup: in squares of blocks, what one does not tell or wait for of the others is found") {
  ExpectAllFound({.format = WeightFormat::kInt8, .m = 50, .n = 300, .k = 128 * 18}, 2, {2, 2});
}

KERNEL_TEST("matmul warpgroup: blocks that share rows of int4's, what one does not tell or wait for is found") {
  ExpectAllFound({.format = WeightFormat::kInt4, .group_size = 32, .has_zeros = true, .m = 20, .n = 300, .k = 64 * 34},
                 4, {1, 2});
}

}  // namespace
}  // namespace millrace::cuda_test
