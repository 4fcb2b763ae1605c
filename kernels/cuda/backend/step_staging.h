// SPDX-License-Identifier: Apache-2.0
#pragma once
// A step's inputs on the device, at addresses that never change, so that a recorded graph reads each step's own. One
// copy a step. Owned by CudaOps; engine thread.
#include <cstdint>

#include "absl/status/status.h"
#include "absl/types/span.h"
#include "kernels/cuda/attention.h"
#include "kernels/cuda/backend/cuda_memory.h"
#include "kernels/ops.h"

namespace millrace::cuda {

class StepStaging {
 public:
  static size_t NumBytes(const StepLimits& limits);
  absl::Status Reserve(const StepLimits& limits, CudaStream& stream);

  // A new step, laid out on this side of the host's memory. REQUIRES: what was laid out there before is copied.
  void BeginStep(int side);
  // Padded to num_rows rows and, in a step of single rows, as many sequences: padding stores nothing and attends to
  // nothing. REQUIRES: within the limits.
  void Upload(const StepInputs& inputs, int64_t num_rows, CudaStream& stream);
  // For one GatherRows; valid until the next call. Waits only if more rows are gathered than the step can have.
  const int32_t* UploadRows(absl::Span<const int32_t> rows, CudaStream& stream);

  const int32_t* tokens() const { return memory_.device<int32_t>(layout_.tokens); }
  const int32_t* positions() const { return memory_.device<int32_t>(layout_.positions); }
  const int64_t* slots() const { return memory_.device<int64_t>(layout_.slots); }
  const DeviceSequence* sequences() const { return memory_.device<DeviceSequence>(layout_.sequences); }
  const int32_t* pages() const { return memory_.device<int32_t>(layout_.pages); }

 private:
  struct Layout {
    Layout() = default;
    explicit Layout(const StepLimits& limits);
    size_t max_gathered = 0;
    size_t gathered = 0, tokens = 0, positions = 0, slots = 0, sequences = 0, pages = 0, num_bytes = 0;
  };
  // Returns how many pages they have together.
  int64_t LayOutSequences(absl::Span<const AttentionSequence> sequences, int64_t num_padded);

  StepLimits limits_;
  Layout layout_;
  StagedMemory memory_;
  size_t num_gathered_ = 0;  // rows of the step, so far
};

}  // namespace millrace::cuda
