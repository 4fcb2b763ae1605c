// SPDX-License-Identifier: Apache-2.0
#pragma once
// Lays out what sampling asks for, launches it, waits, and hands the results to the host. Owned by CudaOps; engine
// thread. Everything is allocated by Reserve: rows whose token lists do not fit together are drawn in several launches.
#include <cstdint>
#include <memory>

#include "absl/status/status.h"
#include "kernels/cuda/backend/cuda_memory.h"
#include "kernels/cuda/sample.h"
#include "kernels/ops.h"

namespace millrace::cuda {

class Sampler {
 public:
  static size_t NumBytes(const StepLimits& limits);
  absl::Status Reserve(const StepLimits& limits, CudaStream& stream);

  // A fault leaves is_failed in the results and its status in the stream.
  void Sample(const SampleArgs& args, CudaStream& stream);
  void Logprobs(const LogprobsArgs& args, CudaStream& stream);

 private:
  struct Layout {
    Layout() = default;
    explicit Layout(const StepLimits& limits);
    int64_t max_list_tokens = 0, max_biases = 0, mask_words = 0;
    size_t rows = 0, tokens = 0, biases = 0, masks = 0, results = 0, top = 0, num_bytes = 0;
    size_t workspace_bytes = 0;
  };
  // What rows of one launch hold so far.
  struct Filled {
    int num_rows = 0;
    int64_t num_tokens = 0, num_biases = 0;
    int num_masks = 0;
    SampleFeatures features;
  };
  bool Add(const SampleRow& row, Filled& filled);
  void AppendTokens(absl::Span<const int32_t> tokens, Filled& filled);
  void Launch(const SampleArgs& args, const Filled& filled, CudaStream& stream);
  void Collect(absl::Span<SampleResult> results, CudaStream& stream);

  StepLimits limits_;
  Layout layout_;
  StagedMemory memory_;
  std::unique_ptr<DeviceMemory> workspace_;
};

}  // namespace millrace::cuda
