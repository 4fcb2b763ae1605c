// SPDX-License-Identifier: Apache-2.0
#pragma once
// Lays out what sampling asks for, launches it and hands the results to the host when the step is collected. Owned by
// CudaOps; engine thread. Everything is allocated by Reserve: a step whose token lists do not fit together waits for
// those before.
#include <array>
#include <cstdint>
#include <memory>
#include <vector>

#include "absl/status/status.h"
#include "kernels/cuda/backend/cuda_memory.h"
#include "kernels/cuda/sample.h"
#include "kernels/ops.h"

namespace millrace::cuda {

class Sampler {
 public:
  static size_t NumBytes(const StepLimits& limits);
  absl::Status Reserve(const StepLimits& limits, CudaStream& stream);

  // A new step, laid out on this side of the host's memory. REQUIRES: the step that was there before is collected.
  void BeginStep(int side);
  void Sample(const SampleArgs& args, CudaStream& stream);
  void Logprobs(const LogprobsArgs& args, CudaStream& stream);
  // Fills the results of the step on this side. REQUIRES: its work is done; a fault leaves is_failed in all of them.
  void Collect(int side, const CudaStream& stream);

  // What the latest step has drawn, row by row over its calls of Sample.
  const DeviceSampleResult* drawn() const { return memory_.device<DeviceSampleResult>(layout_.results); }

 private:
  struct Layout {
    Layout() = default;
    explicit Layout(const StepLimits& limits);
    int64_t max_drawn = 0, max_told = 0;  // results of Sample, then of Logprobs
    int64_t max_list_tokens = 0, max_biases = 0, mask_words = 0;
    size_t rows = 0, tokens = 0, biases = 0, masks = 0, results = 0, top = 0, num_bytes = 0;
    size_t workspace_bytes = 0;
  };
  // How much of each array the step has filled.
  struct Filled {
    int64_t num_rows = 0, num_tokens = 0, num_biases = 0, num_masks = 0;
  };
  // Results that were asked for, until they are collected.
  struct Pending {
    absl::Span<SampleResult> results;
    int64_t first = 0;
  };
  bool Add(const SampleRow& row, SampleFeatures& features);
  void AppendTokens(absl::Span<const int32_t> tokens);
  // Once everything laid out so far is copied, lists begin anew.
  void Restart(CudaStream& stream);
  // Of the rows laid out since `begin`.
  void Launch(const SampleArgs& args, const Filled& begin, SampleFeatures features, CudaStream& stream);
  void ClearTop(int64_t first, int64_t count, CudaStream& stream);
  void Download(absl::Span<SampleResult> results, int64_t first, CudaStream& stream);

  StepLimits limits_;
  Layout layout_;
  StagedMemory memory_;
  std::unique_ptr<DeviceMemory> workspace_;
  Filled filled_;
  int64_t num_drawn_ = 0, num_told_ = 0;  // results of the step so far
  int side_ = 0;
  std::array<std::vector<Pending>, 2> pending_;
};

}  // namespace millrace::cuda
