// SPDX-License-Identifier: Apache-2.0
#pragma once
// Which kernel serves a matmul: every candidate with the reason it is out, or how it would run and what that costs.
// The cost is a model, not a measurement: clocks of the slowest of memory, L2, tensor cores and shared memory, plus
// what starting costs; it ranks the candidates and grows smoothly with the rows. Plain C++, stateless, any thread.
#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>

#include "kernels/cuda/matmul_limits.h"
#include "kernels/cuda/matmul_pack.h"
#include "kernels/tensor.h"

namespace millrace::cuda {

enum class MatmulKernel : uint8_t { kPlain, kGemv, kSkinny, kTile, kExpandTile, kWarpgroup };
inline constexpr int kNumMatmulKernels = 6;
const char* MatmulKernelName(MatmulKernel kernel);

struct MatmulProblem {
  int64_t num_rows = 0;
  WeightOnDevice w;  // pointers are not looked at
  DType x_dtype = DType::kBF16;
  bool is_aligned = true;  // rows of x, in the type multiplied, start at 16 bytes
  int num_multiprocessors = 0;
  bool has_warpgroups = false;  // sm_90
  size_t partial_bytes = 0;     // of the workspace
  size_t scratch_bytes = 0;     // for expanded weights
  // Of the device; where it was not asked, what is likely.
  std::optional<ResidentClusters> resident_clusters;
};

struct MatmulCandidate {
  MatmulKernel kernel = MatmulKernel::kPlain;
  const char* skip_reason = nullptr;  // null: it can run
  int rows_per_pass = 0;
  int num_blocks = 0;  // as matmul_schedule.h says; of clusters, where they are of more blocks than one
  int num_split_blocks = 0;
  // Of the warpgroup kernel.
  int block_channels = 0;
  ClusterShape cluster;
  double cost_clocks = 0;
};

// All candidates, in the order of MatmulKernel.
std::array<MatmulCandidate, kNumMatmulKernels> MatmulCandidates(const MatmulProblem& problem);

// The cheapest that can run. The plain kernel takes whatever the launcher does.
MatmulCandidate PlanMatmul(const MatmulProblem& problem);

// Channels whose expanded rows fit the scratch at once: a multiple of 128, or 0.
int64_t ExpandedChannels(const WeightOnDevice& w, size_t scratch_bytes);

}  // namespace millrace::cuda
