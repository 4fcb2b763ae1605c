// SPDX-License-Identifier: Apache-2.0
#pragma once
// The order in which the passes of sampling and of log-probabilities are launched, and their workspace. Used by
// sample.cu and logprobs.cu.
#include <cuda_runtime_api.h>

#include <cstddef>
#include <cstdint>

namespace millrace::cuda {

struct SamplePass;

struct PassOptions {
  int num_rows = 0;
  bool has_filters = false;  // a row needs more than the first pass
  bool is_dependent = false;
};

// Points the pass at its parts of a workspace; bytes they take, up to the last one, the saved logits.
// REQUIRES: pass.vocab is set.
size_t CarveWorkspace(void* workspace, int64_t num_rows, SamplePass& pass);

// Draws tokens: edits the logits as the rows' lists say, then scans, and filters where it must.
cudaError_t RunDraw(const SamplePass& pass, const PassOptions& options, cudaStream_t stream);
// Log-probabilities of pass.targets, or of the tokens drawn, of the logits as they were before the draw's edits.
cudaError_t RunLogprobs(const SamplePass& pass, const PassOptions& options, cudaStream_t stream);

}  // namespace millrace::cuda
