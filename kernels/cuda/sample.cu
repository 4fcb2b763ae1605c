// SPDX-License-Identifier: Apache-2.0
// The launcher of sampling; the kernels are in sample_passes.cu.
#include "kernels/check.h"
#include "kernels/cuda/sample.h"
#include "kernels/cuda/sample_passes.h"
#include "kernels/cuda/sample_rows.h"

namespace millrace::cuda {

size_t SampleWorkspaceBytes(int64_t max_rows, int64_t vocab, int64_t num_tokens) {
  SamplePass pass = {};
  pass.vocab = static_cast<int32_t>(vocab);
  return CarveWorkspace(nullptr, max_rows, pass) + static_cast<size_t>(num_tokens) * sizeof(float);
}

cudaError_t LaunchSample(const SampleLaunch& launch, cudaStream_t stream) {
  MILLRACE_CHECK(launch.logits.dtype == DType::kF32, "logits are float32");
  MILLRACE_CHECK(launch.logits.cols > 0 && launch.logits.cols <= kMaxSampledVocab, "the vocabulary is too large");
  SamplePass pass = {};
  pass.logits = static_cast<float*>(launch.logits.data);
  pass.stride = launch.logits.stride;
  pass.vocab = static_cast<int32_t>(launch.logits.cols);
  pass.rows = launch.rows;
  pass.tokens = launch.tokens;
  pass.biases = launch.biases;
  pass.masks = launch.masks;
  pass.results = launch.results;
  pass.top = launch.top;
  pass.has_filters = launch.features.has_filters ? 1 : 0;
  CarveWorkspace(launch.workspace, launch.num_rows, pass);
  const cudaError_t error = RunDraw(
      pass,
      {.num_rows = launch.num_rows, .has_filters = launch.features.has_filters, .is_dependent = launch.is_dependent},
      stream);
  if (error != cudaSuccess || !launch.features.has_logprobs) return error;
  return RunLogprobs(pass, {.num_rows = launch.num_rows, .has_filters = true, .is_dependent = launch.is_dependent},
                     stream);
}

}  // namespace millrace::cuda
