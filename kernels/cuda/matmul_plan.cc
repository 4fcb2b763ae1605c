// SPDX-License-Identifier: Apache-2.0
#include "kernels/cuda/matmul_plan.h"

#include <algorithm>

#include "kernels/cuda/matmul_limits.h"

namespace millrace::cuda {
namespace {

// What a multiprocessor does in a clock: rounded from data sheets of sm_80 to sm_90, so that no shape of one card
// decides. Only ratios matter.
constexpr double kMemoryBytes = 16;
constexpr double kL2Bytes = 32;
constexpr double kSharedBytes = 128;
constexpr double kProducts = 1024;    // of 16-bit numbers on tensor cores; twice of int8
constexpr double kProductsOfDot = 4;  // that a product outside of tensor cores costs
constexpr double kWarpgroupGain = 2;  // of products straight from shared memory, on the one architecture that has them
constexpr double kUnpackedInputs = 40;  // grouped weights to 16 bits: of nvcc's loops, 90 instructions for 32 lanes' 32
constexpr double kScaledInputs = 25;    // and spread along k, and times their scales
constexpr double kSumOperations = 128;  // a group's sum times its scale, or a zero in its place
constexpr double kShownShare = 0.2;     // of what hides behind the slowest
constexpr double kPlainProducts = 2;
constexpr double kStartClocks = 4000;   // a launch, and the first bytes of a block
constexpr double kSplitClocks = 1500;   // partial sums: out, a fence, and back
constexpr double kClusterClocks = 500;  // blocks wait for each other at the start and at the end
constexpr int kMinSegmentStages = 4;
constexpr int kMorePasses = 2;  // tried beyond those that half-filled tiles would need

int64_t CeilDiv(int64_t a, int64_t b) { return (a + b - 1) / b; }
int64_t RoundUp(int64_t a, int64_t b) { return CeilDiv(a, b) * b; }

int XBytes(const WeightOnDevice& w) { return w.format == WeightFormat::kInt8 && w.group_size == 0 ? 1 : 2; }

double WeightBytes(const WeightOnDevice& w) {
  const double count = static_cast<double>(w.n) * static_cast<double>(w.k);
  if (w.format == WeightFormat::kDense) return count * static_cast<double>(DTypeBytes(w.dtype));
  const double item = w.format == WeightFormat::kInt8 ? 1.0 : 0.5;
  return count * (item + (w.group_size != 0 ? (w.has_zeros ? 3.0 : 2.0) / w.group_size : 0.0));
}

const char* OperandFault(const MatmulProblem& problem) {
  const WeightOnDevice& w = problem.w;
  if (!problem.is_aligned) return "rows of x are not 16-byte aligned";
  if (w.k * XBytes(w) % 16 != 0) return "K is not a multiple of 16 bytes";
  if (w.format == WeightFormat::kDense && w.dtype != problem.x_dtype) return "x and W differ in type";
  return nullptr;
}

// A kernel's work on a problem, in units of the whole device except where said.
struct Work {
  double memory_bytes = 0;
  double l2_bytes = 0;
  double shared_bytes = 0;
  double products = 0;  // 16-bit
  double unpacked_inputs = 0;
  double sum_operations = 0;
  int64_t num_tiles = 0;   // of a block, or of a cluster
  int64_t num_stages = 0;  // of a tile
  int64_t tile_sums = 0;   // of a tile
  int64_t slot_sums = 0;   // a block has room for
  int blocks_per_processor = 2;
  int cluster_blocks = 1;
  int num_clusters = 0;  // that run at once; asked for where they are of more blocks than one
};

// The slowest of memory, L2, tensor cores (or the shared memory that feeds them) and arithmetic; the others hide behind
// it for the most part only.
double WorkClocks(const Work& work, int num_processors) {
  const double memory = work.memory_bytes / kMemoryBytes;
  const double l2 = work.l2_bytes / kL2Bytes;
  const double tensor = std::max(work.shared_bytes / kSharedBytes, work.products / kProducts);
  const double unpacking = work.unpacked_inputs / kUnpackedInputs + work.sum_operations / kSumOperations;
  const double slowest = std::max({memory, l2, tensor, unpacking});
  return (slowest + kShownShare * (memory + l2 + tensor + unpacking - slowest)) / num_processors;
}

// Decides how blocks share the tiles: whole waves, then the tiles left cut among as many blocks as pay for the partial
// sums they write and read.
void ChooseBlocks(const Work& work, const MatmulProblem& problem, MatmulCandidate& candidate) {
  const bool has_clusters = work.cluster_blocks > 1;
  const int64_t num_slots =
      has_clusters ? work.num_clusters : static_cast<int64_t>(problem.num_multiprocessors) * work.blocks_per_processor;
  const int num_processors = has_clusters ? work.num_clusters * work.cluster_blocks : problem.num_multiprocessors;
  const int64_t num_waves = work.num_tiles / num_slots;
  const int64_t num_left = work.num_tiles - num_waves * num_slots;
  const double tile_clocks = WorkClocks(work, num_processors) * static_cast<double>(num_slots) /
                             static_cast<double>(work.num_tiles);  // of a block among a full device's
  const double start_clocks = kStartClocks + (has_clusters ? kClusterClocks : 0);
  const double wave_clocks = start_clocks + static_cast<double>(num_waves) * tile_clocks;
  candidate.num_blocks = static_cast<int>(num_slots);
  candidate.num_split_blocks = static_cast<int>(num_left);
  candidate.cost_clocks = wave_clocks + (num_left > 0 ? tile_clocks : 0);
  const double tile_bytes = 4.0 * static_cast<double>(work.tile_sums * work.cluster_blocks);
  const double slot_bytes = 4.0 * static_cast<double>(work.slot_sums * work.cluster_blocks);
  const int64_t room_blocks = static_cast<int64_t>(static_cast<double>(problem.partial_bytes) / (2 * slot_bytes));
  const int64_t most_blocks = std::min(num_slots, room_blocks);
  for (int64_t blocks = 2 * num_left; num_left > 0; blocks += num_left) {
    blocks = std::min(blocks, most_blocks);
    if (blocks <= num_left) break;
    if (num_left * work.num_stages < blocks * kMinSegmentStages) break;
    const double segments =
        static_cast<double>(blocks) + (blocks % num_left == 0 ? 0.0 : static_cast<double>(num_left));
    // Written and read; of integers the last block of a tile keeps its own.
    const double num_moved = 2 * segments - (XBytes(problem.w) == 1 ? static_cast<double>(num_left) : 0.0);
    const double cost = wave_clocks + tile_clocks * static_cast<double>(num_left) / static_cast<double>(blocks) +
                        kSplitClocks + num_moved * tile_bytes / kL2Bytes / num_processors;
    if (cost < candidate.cost_clocks) {
      candidate.cost_clocks = cost;
      candidate.num_split_blocks = static_cast<int>(blocks);
    }
    if (blocks == most_blocks) break;
  }
  if (num_waves == 0) candidate.num_blocks = candidate.num_split_blocks;
}

Work SkinnyWork(const MatmulProblem& problem, int64_t num_passes, int rows_per_pass) {
  const WeightOnDevice& w = problem.w;
  const double k_bytes = static_cast<double>(w.k) * XBytes(w);
  const double num_rows = static_cast<double>(RoundUp(problem.num_rows, 8));
  const SkinnyBlock block = SkinnyBlockFor(w, rows_per_pass);
  const int64_t channel_tiles = CeilDiv(w.n, block.num_channels);
  const double padded_n = static_cast<double>(channel_tiles * block.num_channels);
  Work work;
  work.num_tiles = channel_tiles * num_passes;
  work.memory_bytes =
      WeightBytes(w) + static_cast<double>(problem.num_rows) * (k_bytes + 2.0 * static_cast<double>(w.n));
  work.l2_bytes =
      static_cast<double>(num_passes) * WeightBytes(w) + static_cast<double>(channel_tiles) * num_rows * k_bytes;
  // Every warp reads its weights and all rows.
  work.shared_bytes =
      static_cast<double>(num_passes) * WeightBytes(w) + padded_n / block.warp_channels * num_rows * k_bytes;
  work.products = num_rows * padded_n * k_bytes / 2;
  if (w.group_size != 0) {
    const auto k = static_cast<double>(w.k);
    work.unpacked_inputs = static_cast<double>(num_passes) * padded_n * k;
    // With every group, and the sum begins anew; the wide instance's products of half a stage begin at zero anyway.
    const double operations = block.max_rows > kSkinnyRows ? k / kWideSumInputs : 2 * k / w.group_size;
    work.sum_operations = num_rows * padded_n * operations;
  }
  work.num_stages = CeilDiv(w.k * XBytes(w), kSkinnyStageBytes);
  work.tile_sums = block.num_channels * std::min<int64_t>(rows_per_pass, RoundUp(problem.num_rows, 8));
  work.slot_sums = static_cast<int64_t>(block.num_channels) * block.max_rows;
  work.blocks_per_processor = block.blocks_per_processor;
  return work;
}

// A block has all of its channels' K, so that whoever has one block more than others takes longer.
MatmulCandidate PlanGemv(const MatmulProblem& problem) {
  MatmulCandidate candidate = {.kernel = MatmulKernel::kGemv, .skip_reason = OperandFault(problem)};
  const WeightOnDevice& w = problem.w;
  if (w.k * XBytes(w) % kSkinnyStageBytes != 0) candidate.skip_reason = "K is not a multiple of 128 bytes";
  if (problem.num_rows > GemvRows(w)) candidate.skip_reason = "more rows than a product has columns";
  if (candidate.skip_reason != nullptr) return candidate;
  const double k_bytes = static_cast<double>(w.k) * XBytes(w);
  const auto num_rows = static_cast<double>(problem.num_rows);
  const auto num_inputs = static_cast<double>(RoundUp(w.n, kTileChannels) * w.k);
  const int64_t num_tiles = CeilDiv(w.n, kTileChannels);
  Work work;
  work.memory_bytes = WeightBytes(w) + num_rows * (k_bytes + 2.0 * static_cast<double>(w.n));
  work.l2_bytes = WeightBytes(w) + static_cast<double>(num_tiles) * num_rows * k_bytes;
  work.products = XBytes(w) == 1 ? num_rows * num_inputs * kProductsOfDot : 8 * num_inputs;
  if (w.group_size != 0) {
    work.unpacked_inputs = num_inputs;
    work.sum_operations = 8 * 2 * num_inputs / std::min(w.group_size, kTileInputs);  // with every stage at least
  }
  const int64_t most_tiles = CeilDiv(num_tiles, problem.num_multiprocessors);
  const double busiest = static_cast<double>(most_tiles * problem.num_multiprocessors) / static_cast<double>(num_tiles);
  candidate.rows_per_pass = static_cast<int>(problem.num_rows);
  candidate.num_blocks = static_cast<int>(num_tiles);
  candidate.cost_clocks = kStartClocks + busiest * WorkClocks(work, problem.num_multiprocessors);
  return candidate;
}

void TrySkinny(const MatmulProblem& problem, int64_t rows_per_pass, MatmulCandidate& best) {
  MatmulCandidate candidate = {.kernel = MatmulKernel::kSkinny, .rows_per_pass = static_cast<int>(rows_per_pass)};
  const int64_t num_passes = CeilDiv(problem.num_rows, rows_per_pass);
  ChooseBlocks(SkinnyWork(problem, num_passes, candidate.rows_per_pass), problem, candidate);
  if (best.cost_clocks < 0 || candidate.cost_clocks < best.cost_clocks) best = candidate;
}

MatmulCandidate PlanSkinny(const MatmulProblem& problem) {
  MatmulCandidate best = {.kernel = MatmulKernel::kSkinny, .skip_reason = OperandFault(problem)};
  if (best.skip_reason != nullptr) return best;
  if (problem.num_rows > kMaxSkinnyRows) {
    best.skip_reason = "more rows than its passes are good for";
    return best;
  }
  best.cost_clocks = -1;
  const int max_rows = SkinnyRows(problem.w);
  const int64_t max_passes = CeilDiv(problem.num_rows, kSkinnyRows) + kMorePasses;
  for (int64_t passes = CeilDiv(problem.num_rows, max_rows); passes <= max_passes; ++passes) {
    TrySkinny(problem, RoundUp(CeilDiv(problem.num_rows, passes), 8), best);
  }
  // The wide instance serves somewhat fewer rows too: more channels share what its warps read of them.
  if (max_rows > kSkinnyRows && problem.num_rows > kSkinnyRows / 2) TrySkinny(problem, kSkinnyRows + 8, best);
  return best;
}

Work TileWork(const MatmulProblem& problem, int64_t num_channels, int rows_per_pass) {
  const double k_bytes = static_cast<double>(problem.w.k) * XBytes(problem.w);
  const int64_t row_tiles = CeilDiv(problem.num_rows, rows_per_pass);
  const int64_t channel_tiles = CeilDiv(num_channels, kTileChannelsWide);
  const double num_rows = static_cast<double>(RoundUp(problem.num_rows, 16));
  const double padded_n = static_cast<double>(channel_tiles * kTileChannelsWide);
  Work work;
  work.num_tiles = row_tiles * channel_tiles;
  work.memory_bytes = padded_n * k_bytes + static_cast<double>(problem.num_rows) * (k_bytes + 2.0 * padded_n);
  work.l2_bytes = (static_cast<double>(row_tiles) * padded_n + static_cast<double>(channel_tiles) * num_rows) * k_bytes;
  // Rows are read by the 4 warps beside each other, channels by the 2 above each other.
  work.shared_bytes =
      (4.0 * static_cast<double>(channel_tiles) * num_rows + 2.0 * static_cast<double>(row_tiles) * padded_n) * k_bytes;
  work.products = num_rows * padded_n * k_bytes / 2;
  work.num_stages = CeilDiv(problem.w.k * XBytes(problem.w), kTileStageBytes);
  const bool is_small = rows_per_pass <= kTileRows / 2;
  work.tile_sums = static_cast<int64_t>(kTileChannelsWide) * rows_per_pass;
  work.slot_sums = static_cast<int64_t>(kTileChannelsWide) * (is_small ? kTileRows / 2 : kTileRows);
  work.blocks_per_processor = is_small ? 2 : 1;
  return work;
}

MatmulCandidate PlanTile(const MatmulProblem& problem, int64_t num_channels) {
  MatmulCandidate best = {.kernel = MatmulKernel::kTile, .skip_reason = OperandFault(problem)};
  if (best.skip_reason != nullptr) return best;
  best.cost_clocks = -1;
  const int64_t min_passes = CeilDiv(problem.num_rows, kTileRows);
  for (int64_t passes = min_passes; passes <= 2 * min_passes + kMorePasses; ++passes) {
    MatmulCandidate candidate = {.kernel = MatmulKernel::kTile};
    candidate.rows_per_pass = static_cast<int>(RoundUp(CeilDiv(problem.num_rows, passes), 16));
    ChooseBlocks(TileWork(problem, num_channels, candidate.rows_per_pass), problem, candidate);
    if (best.cost_clocks < 0 || candidate.cost_clocks < best.cost_clocks) best = candidate;
  }
  return best;
}

MatmulCandidate PlanTileOnly(const MatmulProblem& problem) {
  if (problem.w.group_size != 0) return {.kernel = MatmulKernel::kTile, .skip_reason = "grouped weights"};
  return PlanTile(problem, problem.w.n);
}

MatmulCandidate PlanExpandTile(const MatmulProblem& problem) {
  if (problem.w.group_size == 0) return {.kernel = MatmulKernel::kExpandTile, .skip_reason = "nothing to expand"};
  const int64_t chunk = std::min(ExpandedChannels(problem.w, problem.scratch_bytes), problem.w.n);
  if (chunk == 0) return {.kernel = MatmulKernel::kExpandTile, .skip_reason = "no scratch for expanded weights"};
  MatmulCandidate candidate = PlanTile(problem, chunk);
  candidate.kernel = MatmulKernel::kExpandTile;
  const double num_chunks = static_cast<double>(problem.w.n) / static_cast<double>(chunk);
  const double dense_bytes = 2.0 * static_cast<double>(problem.w.n) * static_cast<double>(problem.w.k);
  candidate.cost_clocks = num_chunks * (candidate.cost_clocks + kStartClocks) +
                          (WeightBytes(problem.w) + dense_bytes) / kMemoryBytes / problem.num_multiprocessors;
  return candidate;
}

// Those that run at once, a multiprocessor for each block.
int CountClusters(const MatmulProblem& problem, int cluster_blocks) {
  constexpr int kLikelyGpcProcessors = 16;  // or two more
  const int most = problem.num_multiprocessors / cluster_blocks;
  if (cluster_blocks == 1) return most;
  const ResidentClusters likely = {
      .of_two = most, .of_four = problem.num_multiprocessors / kLikelyGpcProcessors * (kLikelyGpcProcessors / 4)};
  const ResidentClusters resident = problem.resident_clusters.value_or(likely);
  return std::min(most, cluster_blocks == 2 ? resident.of_two : resident.of_four);
}

// A cluster's blocks ask L2 once for what several of them multiply.
Work WarpgroupWork(const MatmulProblem& problem, const MatmulCandidate& candidate) {
  const ClusterShape& cluster = candidate.cluster;
  const double k_bytes = static_cast<double>(problem.w.k) * XBytes(problem.w);
  const int64_t cluster_rows = CeilDiv(problem.num_rows, int64_t{candidate.rows_per_pass} * cluster.row_blocks);
  const int64_t cluster_channels = CeilDiv(problem.w.n, int64_t{candidate.block_channels} * cluster.channel_blocks);
  const int64_t row_tiles = cluster_rows * cluster.row_blocks;
  const auto num_rows = static_cast<double>(row_tiles * candidate.rows_per_pass);
  const auto padded_n = static_cast<double>(cluster_channels * cluster.channel_blocks * candidate.block_channels);
  const double weight_bytes = WeightBytes(problem.w) * padded_n / static_cast<double>(problem.w.n);
  Work work;
  work.num_tiles = cluster_rows * cluster_channels;
  work.cluster_blocks = cluster.num_blocks();
  work.num_clusters = CountClusters(problem, cluster.num_blocks());
  work.memory_bytes =
      weight_bytes + static_cast<double>(problem.num_rows) * (k_bytes + 2.0 * static_cast<double>(problem.w.n));
  work.l2_bytes =
      static_cast<double>(cluster_rows) * weight_bytes + static_cast<double>(cluster_channels) * num_rows * k_bytes;
  // Rows are read by every 64 channels; of int4 weights what is unpacked stays in registers.
  work.shared_bytes = static_cast<double>(row_tiles) * weight_bytes + padded_n / 64 * num_rows * k_bytes;
  work.products = num_rows * padded_n * k_bytes / 2 / kWarpgroupGain;
  if (problem.w.group_size != 0) {
    work.unpacked_inputs = static_cast<double>(row_tiles) * padded_n * static_cast<double>(problem.w.k) *
                           (kUnpackedInputs / kScaledInputs);
  }
  work.num_stages = CeilDiv(problem.w.k * XBytes(problem.w), kWarpgroupStageBytes);
  work.tile_sums = work.slot_sums = int64_t{candidate.block_channels} * candidate.rows_per_pass;
  work.blocks_per_processor = 1;
  return work;
}

// With as many passes as pay, of at least the rows that there is a kernel for.
void TryWarpgroup(const MatmulProblem& problem, const WarpgroupBlock& block, const ClusterShape& cluster,
                  MatmulCandidate& best) {
  const int64_t fewest = RoundUp(CeilDiv(problem.num_rows, block.max_rows), cluster.row_blocks);
  for (int64_t more = 0; more <= kMorePasses; ++more) {
    const int64_t passes = fewest + more * cluster.row_blocks;
    MatmulCandidate candidate = {
        .kernel = MatmulKernel::kWarpgroup, .block_channels = block.num_channels, .cluster = cluster};
    candidate.rows_per_pass = static_cast<int>(RoundUp(CeilDiv(problem.num_rows, passes), kWarpgroupRowStep));
    if (candidate.rows_per_pass < block.min_rows) return;
    ChooseBlocks(WarpgroupWork(problem, candidate), problem, candidate);
    if (best.cost_clocks < 0 || candidate.cost_clocks < best.cost_clocks) best = candidate;
  }
}

MatmulCandidate PlanWarpgroup(const MatmulProblem& problem) {
  MatmulCandidate best = {.kernel = MatmulKernel::kWarpgroup, .skip_reason = OperandFault(problem)};
  const WeightFormat format = problem.w.format;
  const bool is_int8 = format == WeightFormat::kInt8 && problem.w.group_size == 0;
  const bool is_int4 = format == WeightFormat::kInt4 && problem.x_dtype == DType::kBF16;
  if (!is_int8 && !is_int4) best.skip_reason = "neither int4 by bfloat16 nor int8 with a scale per channel";
  if (problem.num_rows <= kWarpgroupRowStep) best.skip_reason = "rows for the skinny kernel";
  if (!problem.has_warpgroups) best.skip_reason = "the device does not multiply by warpgroups";
  if (best.skip_reason != nullptr) return best;
  best.cost_clocks = -1;
  for (const ClusterShape& cluster : kWarpgroupClusters) {
    if (!HasWarpgroupCluster(format, cluster) || CountClusters(problem, cluster.num_blocks()) < 1) continue;
    for (const WarpgroupBlock& block : {WideBlock(format), NarrowBlock(format)}) {
      TryWarpgroup(problem, block, cluster, best);
    }
  }
  return best;
}

MatmulCandidate PlanPlain(const MatmulProblem& problem) {
  const double products =
      static_cast<double>(problem.num_rows) * static_cast<double>(problem.w.n) * static_cast<double>(problem.w.k);
  return {.kernel = MatmulKernel::kPlain,
          .cost_clocks = kStartClocks + products / kPlainProducts / problem.num_multiprocessors};
}

}  // namespace

const char* MatmulKernelName(MatmulKernel kernel) {
  switch (kernel) {
    case MatmulKernel::kPlain:
      return "plain";
    case MatmulKernel::kGemv:
      return "gemv";
    case MatmulKernel::kSkinny:
      return "skinny";
    case MatmulKernel::kTile:
      return "tile";
    case MatmulKernel::kExpandTile:
      return "expand and tile";
    case MatmulKernel::kWarpgroup:
      return "warpgroup";
  }
  return "";
}

SkinnyBlock SkinnyBlockFor(const WeightOnDevice& w, int rows_per_pass) {
  SkinnyBlock block = {.max_rows = 8, .warp_channels = 16};
  while (block.max_rows < rows_per_pass) block.max_rows *= 2;
  if (block.max_rows > kSkinnyRows) {
    block.warp_channels *= kWideChannelTiles;
  } else if (w.format == WeightFormat::kInt4 && block.max_rows > 32) {
    block.warp_channels *= kManyInt4ChannelTiles;
  }
  block.num_channels = kSkinnyWarps * block.warp_channels;
  block.blocks_per_processor = block.warp_channels * block.max_rows > 16 * 64 ? 1 : 2;
  return block;
}

int64_t ExpandedChannels(const WeightOnDevice& w, size_t scratch_bytes) {
  const int64_t rows = static_cast<int64_t>(scratch_bytes) / (2 * RoundUp(w.k, 8));
  return rows / kTileChannelsWide * kTileChannelsWide;
}

std::array<MatmulCandidate, kNumMatmulKernels> MatmulCandidates(const MatmulProblem& problem) {
  return {PlanPlain(problem),    PlanGemv(problem),       PlanSkinny(problem),
          PlanTileOnly(problem), PlanExpandTile(problem), PlanWarpgroup(problem)};
}

MatmulCandidate PlanMatmul(const MatmulProblem& problem) {
  const auto candidates = MatmulCandidates(problem);
  MatmulCandidate best = candidates[0];
  for (const MatmulCandidate& candidate : candidates) {
    if (candidate.skip_reason == nullptr && candidate.cost_clocks < best.cost_clocks) best = candidate;
  }
  return best;
}

}  // namespace millrace::cuda
