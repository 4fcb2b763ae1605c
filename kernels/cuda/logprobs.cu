// SPDX-License-Identifier: Apache-2.0
// The launcher of log-probabilities of given tokens; the kernels are in sample_passes.cu.
#include "kernels/check.h"
#include "kernels/cuda/logprobs.h"
#include "kernels/cuda/sample_passes.h"
#include "kernels/cuda/sample_rows.h"

namespace millrace::cuda {

cudaError_t LaunchLogprobs(const LogprobsLaunch& launch, cudaStream_t stream) {
  MILLRACE_CHECK(launch.logits.dtype == DType::kF32, "logits are float32");
  MILLRACE_CHECK(launch.logits.cols > 0 && launch.logits.cols <= kMaxSampledVocab, "the vocabulary is too large");
  SamplePass pass = {};
  pass.logits = static_cast<float*>(launch.logits.data);
  pass.stride = launch.logits.stride;
  pass.vocab = static_cast<int32_t>(launch.logits.cols);
  pass.targets = launch.targets;
  pass.num_top = launch.num_top;
  pass.results = launch.results;
  pass.top = launch.top;
  CarveWorkspace(launch.workspace, launch.logits.rows, pass);
  return RunLogprobs(pass,
                     {.num_rows = static_cast<int>(launch.logits.rows),
                      .has_filters = launch.num_top > 0,
                      .is_dependent = launch.is_dependent},
                     stream);
}

}  // namespace millrace::cuda
