// SPDX-License-Identifier: Apache-2.0
#pragma once
// The choice of experts and the order of all choices (kernels/expert_routes.h), on the device alone: what follows is
// launched for the worst case and finds its sizes there. Launched on a stream; allocates nothing, waits for nothing.
#include <cuda_runtime_api.h>

#include "kernels/expert_routes.h"
#include "kernels/tensor.h"

namespace millrace::cuda {

struct ExpertRouteLaunch {
  Matrix logits;              // [T, E] F32
  bool is_normalized = true;  // a row's weights are divided by their sum
  // [T] a row with a negative one is padding and asks nobody: its choices are -1 and stand nowhere, and as many of
  // `routes.rows`' last are -1. Null: there is no padding.
  const int64_t* slots = nullptr;
  ExpertRoutes routes;  // filled
  bool is_dependent = false;
};

// REQUIRES: 1 <= k <= E, k <= kMaxExpertChoices, E <= kMaxExperts.
cudaError_t LaunchExpertRoute(const ExpertRouteLaunch& launch, cudaStream_t stream);

}  // namespace millrace::cuda
