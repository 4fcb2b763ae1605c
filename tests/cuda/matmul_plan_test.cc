// SPDX-License-Identifier: Apache-2.0
// What the plan and the packing of a matmul promise; nothing here needs a GPU.
#include "kernels/cuda/matmul_plan.h"

#include <cstdint>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "kernels/cuda/matmul_limits.h"
#include "kernels/cuda/matmul_pack.h"
#include "tests/cuda/harness.h"

namespace millrace::cuda_test {
namespace {

using cuda::MatmulCandidate;
using cuda::MatmulKernel;
using cuda::MatmulProblem;
using cuda::ResidentClusters;

struct Layer {
  const char* name;
  int64_t n;
  int64_t k;
  bool is_head;
};

// Llama 3.1 8B and Qwen3 8B.
constexpr Layer kLayers[] = {
    {"qkv", 6144, 4096, false},         {"o", 4096, 4096, false},           {"llama gate_up", 28672, 4096, false},
    {"llama down", 4096, 14336, false}, {"llama head", 128256, 4096, true}, {"qwen gate_up", 24576, 4096, false},
    {"qwen down", 4096, 12288, false},  {"qwen head", 151936, 4096, true}};

MatmulProblem ProblemOf(const Layer& layer, WeightFormat format, int group_size) {
  return {.w = {.format = format, .n = layer.n, .k = layer.k, .group_size = group_size},
          .num_multiprocessors = 132,
          .partial_bytes = size_t{48} << 20,
          .scratch_bytes = size_t{64} << 20};
}

// From one row to the next by at most kMaxJump; above 256 rows perhaps by more.
constexpr double kMaxJump = 1.15;

void ExpectSmoothCostHere(const Layer& layer, MatmulProblem problem, double max_jump_of_many = kMaxJump) {
  double last = 0;
  for (int m = 1; m <= 4096; ++m) {
    problem.num_rows = m;
    const MatmulCandidate plan = cuda::PlanMatmul(problem);
    EXPECT(last == 0 || plan.cost_clocks <= (m <= 256 ? kMaxJump : max_jump_of_many) * last)
        << layer.name << "m" << m << cuda::MatmulKernelName(plan.kernel) << plan.rows_per_pass << "cost"
        << plan.cost_clocks << "after" << last;
    EXPECT(plan.kernel != MatmulKernel::kPlain) << layer.name << "m" << m;
    last = plan.cost_clocks;
  }
}

void ExpectSmoothCost(const Layer& layer, MatmulProblem problem) {
  for (const int num_multiprocessors : {78, 108, 114, 132, 142, 144}) {
    problem.num_multiprocessors = num_multiprocessors;
    ExpectSmoothCostHere(layer, problem);
  }
}

KERNEL_TEST("matmul plan: the cost grows by at most 15 % from one row to the next") {
  for (const Layer& layer : kLayers) {
    ExpectSmoothCost(layer, ProblemOf(layer, WeightFormat::kDense, 0));
    ExpectSmoothCost(layer, ProblemOf(layer, WeightFormat::kInt8, 0));
  }
}

KERNEL_TEST("matmul plan: nor by more where weights are grouped") {
  for (const Layer& layer : kLayers) {
    for (const int group_size : {32, 128}) {
      ExpectSmoothCost(layer, ProblemOf(layer, WeightFormat::kInt8, group_size));
      for (const bool has_zeros : {false, true}) {
        MatmulProblem problem = ProblemOf(layer, WeightFormat::kInt4, group_size);
        problem.w.has_zeros = has_zeros;
        ExpectSmoothCost(layer, problem);
      }
    }
  }
}

KERNEL_TEST("matmul plan: up to 128 rows read the grouped weights of a head once, few rows by blocks of few") {
  for (const Layer& layer : kLayers) {
    if (!layer.is_head) continue;
    for (const WeightFormat format : {WeightFormat::kInt8, WeightFormat::kInt4}) {
      MatmulProblem problem = ProblemOf(layer, format, 32);
      for (int m = 9; m <= 128; ++m) {
        problem.num_rows = m;
        const MatmulCandidate plan = cuda::PlanMatmul(problem);
        EXPECT(plan.kernel == MatmulKernel::kSkinny && plan.rows_per_pass >= m) << layer.name << "m" << m;
        EXPECT(m > 32 || plan.rows_per_pass <= 32) << layer.name << "m" << m;
      }
    }
  }
}

KERNEL_TEST("matmul plan: nor by warpgroups where weights are int4") {
  for (const Layer& layer : kLayers) {
    for (const int group_size : {32, 128}) {
      MatmulProblem problem = ProblemOf(layer, WeightFormat::kInt4, group_size);
      problem.w.has_zeros = group_size == 32;
      problem.has_warpgroups = true;
      ExpectSmoothCost(layer, problem);
    }
  }
}

// What devices of 132 multiprocessors may have room for, by how their GPCs are made: of 16 and 18 each, or some of 14.
constexpr ResidentClusters kResident[] = {{66, 33}, {66, 32}, {66, 31}, {66, 30}, {64, 28}};

KERNEL_TEST("matmul plan: nor by warpgroups where weights are int8, on a device that runs 32 clusters of four") {
  for (const Layer& layer : kLayers) {
    MatmulProblem problem = ProblemOf(layer, WeightFormat::kInt8, 0);
    problem.has_warpgroups = true;
    for (const ResidentClusters& resident : {kResident[0], kResident[1]}) {
      problem.resident_clusters = resident;
      ExpectSmoothCostHere(layer, problem);
    }
    problem.resident_clusters.reset();
    for (const int num_multiprocessors : {114, 144}) {
      problem.num_multiprocessors = num_multiprocessors;
      ExpectSmoothCostHere(layer, problem);
    }
  }
}

// Where tiles come out as one wave of all clusters of two, what comes next costs somewhat more than that.
KERNEL_TEST("matmul plan: by at most 20 % where clusters of four are fewer, and only above 256 rows by more than 15") {
  constexpr double kMaxJumpOfMany = 1.2;
  for (const Layer& layer : kLayers) {
    MatmulProblem problem = ProblemOf(layer, WeightFormat::kInt8, 0);
    problem.has_warpgroups = true;
    for (const ResidentClusters& resident : {kResident[2], kResident[3], kResident[4], ResidentClusters{66, 0}}) {
      problem.resident_clusters = resident;
      ExpectSmoothCostHere(layer, problem, kMaxJumpOfMany);
    }
    problem.resident_clusters.reset();
    for (const int num_multiprocessors : {78, 108, 142}) {
      problem.num_multiprocessors = num_multiprocessors;
      ExpectSmoothCostHere(layer, problem, kMaxJumpOfMany);
    }
  }
}

KERNEL_TEST("matmul plan: warpgroups are chosen for many rows, not for few, and never cost more than without") {
  for (const Layer& layer : kLayers) {
    for (const WeightFormat format : {WeightFormat::kInt8, WeightFormat::kInt4}) {
      MatmulProblem problem = ProblemOf(layer, format, format == WeightFormat::kInt4 ? 128 : 0);
      for (int m = 1; m <= 4096; ++m) {
        problem.num_rows = m;
        problem.has_warpgroups = false;
        const MatmulCandidate without = cuda::PlanMatmul(problem);
        problem.has_warpgroups = true;
        const MatmulCandidate with = cuda::PlanMatmul(problem);
        EXPECT(with.cost_clocks <= without.cost_clocks) << layer.name << "m" << m;
        EXPECT(m > 16 || with.kernel != MatmulKernel::kWarpgroup) << layer.name << "m" << m;
        EXPECT(m % 512 != 0 || with.kernel == MatmulKernel::kWarpgroup) << layer.name << "m" << m;
        EXPECT(m != 256 || format != WeightFormat::kInt8 || with.cluster.num_blocks() > 1)
            << layer.name << "L2 feeds it";
      }
    }
  }
}

KERNEL_TEST("matmul plan: clusters are no more than the device runs at once, and more of them never cost more") {
  for (const Layer& layer : kLayers) {
    MatmulProblem problem = ProblemOf(layer, WeightFormat::kInt8, 0);
    problem.has_warpgroups = true;
    int num_of_four = 0;
    for (int m = 17; m <= 2048; m += 3) {
      problem.num_rows = m;
      problem.resident_clusters = ResidentClusters{};
      const MatmulCandidate alone = cuda::PlanMatmul(problem);
      EXPECT(alone.cluster.num_blocks() == 1) << layer.name << m << "nothing else was told";
      problem.resident_clusters->of_two = 66;
      const MatmulCandidate pairs = cuda::PlanMatmul(problem);
      EXPECT(pairs.cluster.num_blocks() <= 2 && pairs.cost_clocks <= alone.cost_clocks) << layer.name << m;
      for (const ResidentClusters& resident : kResident) {
        problem.resident_clusters = resident;
        const MatmulCandidate plan = cuda::PlanMatmul(problem);
        EXPECT(plan.cost_clocks <= alone.cost_clocks) << layer.name << m;
        EXPECT(resident.of_two < 66 || plan.cost_clocks <= pairs.cost_clocks) << layer.name << m;
        EXPECT(plan.cluster.num_blocks() != 2 || plan.num_blocks <= resident.of_two) << layer.name << m;
        EXPECT(plan.cluster.num_blocks() != 4 || plan.num_blocks <= resident.of_four) << layer.name << m;
        num_of_four += plan.cluster.num_blocks() == 4 ? 1 : 0;
      }
    }
    EXPECT(num_of_four > 0) << layer.name;
  }
}

KERNEL_TEST("matmul plan: nobody told how many clusters there are, or too many, or an error's number") {
  MatmulProblem problem = ProblemOf(kLayers[1], WeightFormat::kInt8, 0);
  problem.has_warpgroups = true;
  problem.num_rows = 512;
  const MatmulCandidate likely = cuda::PlanMatmul(problem);
  EXPECT(likely.cluster.num_blocks() == 4 && likely.num_blocks == 32)
      << likely.cluster.num_blocks() << likely.num_blocks;
  problem.resident_clusters = {.of_two = 1000, .of_four = 1000};
  const MatmulCandidate most = cuda::PlanMatmul(problem);
  EXPECT(most.cluster.num_blocks() * most.num_blocks <= 132) << most.cluster.num_blocks() << most.num_blocks;
  problem.resident_clusters = {.of_two = -1, .of_four = -1};
  EXPECT(cuda::PlanMatmul(problem).cluster.num_blocks() == 1);
  problem.num_multiprocessors = 3;
  problem.resident_clusters.reset();
  EXPECT(cuda::PlanMatmul(problem).cluster.num_blocks() <= 2) << "no room for four";
}

KERNEL_TEST("matmul plan: blocks cover the tiles, and what they share fits the workspace") {
  for (const Layer& layer : kLayers) {
    for (const auto& [format, group_size] : {std::pair(WeightFormat::kInt8, 0), std::pair(WeightFormat::kInt8, 128),
                                             std::pair(WeightFormat::kInt4, 128)}) {
      for (int m = 1; m <= 1100; m += 7) {
        MatmulProblem problem = ProblemOf(layer, format, group_size);
        problem.num_rows = m;
        problem.has_warpgroups = true;
        for (const MatmulCandidate& plan : cuda::MatmulCandidates(problem)) {
          if (plan.skip_reason != nullptr || plan.kernel == MatmulKernel::kPlain) continue;
          if (plan.kernel == MatmulKernel::kGemv) {
            EXPECT(plan.num_blocks == (layer.n + 15) / 16 && m <= cuda::GemvRows(problem.w)) << layer.name << m;
            continue;
          }
          EXPECT(plan.num_blocks >= 1 && plan.num_split_blocks <= plan.num_blocks) << layer.name << m;
          EXPECT(plan.num_blocks <= 2 * problem.num_multiprocessors) << layer.name << m;
          if (plan.kernel == MatmulKernel::kWarpgroup) {
            EXPECT(plan.rows_per_pass % cuda::kWarpgroupRowStep == 0 && plan.rows_per_pass >= 1) << layer.name << m;
            const bool is_wide = plan.block_channels == cuda::kWarpgroupChannels;
            const cuda::WarpgroupBlock block = is_wide ? cuda::WideBlock(format) : cuda::NarrowBlock(format);
            EXPECT(plan.block_channels == block.num_channels) << layer.name << m;
            EXPECT(plan.rows_per_pass >= block.min_rows && plan.rows_per_pass <= block.max_rows) << layer.name << m;
            EXPECT(cuda::HasWarpgroupCluster(format, plan.cluster)) << layer.name << m;
            EXPECT(plan.num_blocks * plan.cluster.num_blocks() <= problem.num_multiprocessors) << layer.name << m;
            const int64_t tile_rows = int64_t{1} * plan.rows_per_pass * plan.cluster.row_blocks;
            const int64_t tile_channels = int64_t{1} * plan.block_channels * plan.cluster.channel_blocks;
            const int64_t slot_bytes = 4 * tile_channels * tile_rows;
            const int64_t num_tiles = (layer.n + tile_channels - 1) / tile_channels * ((m + tile_rows - 1) / tile_rows);
            const int num_clusters =
                plan.cluster.num_blocks() == 4 ? 32 : problem.num_multiprocessors / plan.cluster.num_blocks();
            if (plan.num_split_blocks == num_tiles % num_clusters) continue;  // nothing is shared
            EXPECT(plan.num_split_blocks * 2 * slot_bytes <= int64_t{48} << 20) << layer.name << m;
            continue;
          }
          const bool is_skinny = plan.kernel == MatmulKernel::kSkinny;
          EXPECT(plan.rows_per_pass % (is_skinny ? 8 : 16) == 0 && plan.rows_per_pass >= 1);
          EXPECT(plan.rows_per_pass <= (is_skinny ? cuda::SkinnyRows(problem.w) : cuda::kTileRows)) << layer.name << m;
        }
      }
    }
  }
}

KERNEL_TEST("matmul plan: tiles that are left are shared by as many blocks as the workspace has room for") {
  MatmulProblem problem = ProblemOf(kLayers[4], WeightFormat::kInt4, 128);
  problem.has_warpgroups = true;
  problem.num_multiprocessors = 142;
  problem.num_rows = 176;
  const MatmulCandidate plan = cuda::PlanMatmul(problem);
  EXPECT(plan.kernel == MatmulKernel::kWarpgroup && plan.rows_per_pass == 176) << plan.rows_per_pass;
  EXPECT(plan.cluster.num_blocks() == 2) << "251 tiles of 512 channels for 71 clusters: three waves and 38";
  EXPECT(plan.num_split_blocks == (size_t{48} << 20) / (2 * 4 * 512 * 176)) << plan.num_split_blocks;
}

KERNEL_TEST("matmul plan: a kernel that cannot run says why") {
  MatmulProblem problem = ProblemOf(kLayers[0], WeightFormat::kDense, 0);
  problem.num_rows = 4;
  problem.x_dtype = DType::kF16;
  for (const MatmulCandidate& candidate : cuda::MatmulCandidates(problem)) {
    EXPECT((candidate.skip_reason == nullptr) == (candidate.kernel == MatmulKernel::kPlain));
  }
  problem = ProblemOf(kLayers[0], WeightFormat::kInt8, 0);
  problem.num_rows = 4096;
  EXPECT(cuda::PlanMatmul(problem).kernel == MatmulKernel::kTile) << "no warpgroups";
  problem = ProblemOf(kLayers[0], WeightFormat::kInt8, 32);
  problem.num_rows = 64;
  problem.has_warpgroups = true;
  const auto grouped = cuda::MatmulCandidates(problem)[static_cast<size_t>(MatmulKernel::kWarpgroup)];
  EXPECT(grouped.skip_reason != nullptr) << "int8 with groups";
  problem = ProblemOf(kLayers[0], WeightFormat::kDense, 0);
  problem.num_rows = 4;
  problem.x_dtype = DType::kBF16;
  problem.is_aligned = false;
  EXPECT(cuda::PlanMatmul(problem).kernel == MatmulKernel::kPlain);
  problem.is_aligned = true;
  problem.w.k = 4097;
  EXPECT(cuda::PlanMatmul(problem).kernel == MatmulKernel::kPlain);
}

KERNEL_TEST("matmul pack: every nibble of an int4 tile has its own place") {
  constexpr int kChannels = 16;
  constexpr int kInputs = 64;
  std::set<int> places;
  for (int channel = 0; channel < kChannels; ++channel) {
    for (int k = 0; k < kInputs; ++k) {
      std::vector<uint8_t> values(kChannels * kInputs / 2, 0);
      const int index = channel * kInputs + k;
      values[index / 2] = static_cast<uint8_t>(15 << (index % 2 * 4));
      const std::vector<float> scales(kChannels, 1.0f);
      std::vector<uint32_t> words(kChannels * kInputs / 8);
      std::vector<uint16_t> packed_scales(kChannels);
      const WeightSource source = {.format = WeightFormat::kInt4,
                                   .n = kChannels,
                                   .k = kInputs,
                                   .values = values.data(),
                                   .group_size = kInputs,
                                   .scales = scales.data()};
      cuda::PackWeight(source, {words.data(), packed_scales.data(), nullptr});
      int num_set = 0;
      for (int place = 0; place < kChannels * kInputs; ++place) {
        const uint32_t nibble = words[place / 8] >> (place % 8 * 4) & 15u;
        EXPECT(nibble == 0 || nibble == 15);
        if (nibble == 0) continue;
        ++num_set;
        places.insert(place);
      }
      EXPECT(num_set == 1) << channel << k;
    }
  }
  EXPECT(places.size() == size_t{kChannels} * kInputs) << places.size();
}

}  // namespace
}  // namespace millrace::cuda_test
