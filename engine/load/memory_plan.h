// SPDX-License-Identifier: Apache-2.0
#pragma once
// What a model will take of memory, computed before anything is loaded, printed, and kept. Plain functions.
#include <cstdint>
#include <string>

#include "absl/status/statusor.h"
#include "engine/load/model_info.h"
#include "engine/load/model_weights.h"
#include "kernels/ops.h"

namespace millrace {

struct ModelLimits;

struct MemoryPlanOptions {
  size_t available_bytes = 0;           // of the device, before loading; where there are several ranks, for each
  double utilization = 0.9;             // share of it that may be used
  int64_t kv_cache_bytes = 0;           // 0: what is left, at most what max_sequences * max_model_tokens can use
  std::string kv_cache_dtype = "auto";  // auto (bfloat16), float32, float16, bfloat16, int8, fp8
  int32_t page_tokens = 16;
  int32_t max_model_tokens = 0;  // 0: the model's, shrunk to what the KV memory holds
  int32_t max_sequences = 256;
  int32_t max_step_tokens = 2048;
};

struct MemoryPlan {
  size_t weight_bytes = 0;
  size_t kv_bytes = 0;
  size_t activation_bytes = 0;
  size_t workspace_bytes = 0;
  size_t rope_bytes = 0;     // cosines and sines of every position
  size_t scratch_bytes = 0;  // while loading only, before the KV cache exists
  size_t available_bytes = 0;
  size_t budget_bytes = 0;  // utilization * available
  size_t page_bytes = 0;
  int32_t num_pages = 0;
  int32_t page_tokens = 0;
  int32_t max_model_tokens = 0;
  int32_t max_step_tokens = 0;
  int32_t max_logit_rows = 0;
  int32_t max_sequences = 0;
  int32_t num_ranks = 1;        // each of them takes all this
  int32_t num_requantized = 0;  // matrices that become int8 because their stored form cannot be kept
  DType kv_dtype = DType::kBF16;
  size_t total_bytes() const { return weight_bytes + kv_bytes + activation_bytes + workspace_bytes + rope_bytes; }
};

// ResourceExhausted, with what is needed, what there is and which flag helps, when the plan does not fit.
absl::StatusOr<MemoryPlan> PlanMemory(const ModelInfo& info, const LoadOptions& load, const MemoryPlanOptions& options,
                                      const Ops& ops);
std::string FormatMemoryPlan(const MemoryPlan& plan);  // a table, one line a part
ModelLimits ToModelLimits(const MemoryPlan& plan);     // engine/run/model.h

}  // namespace millrace
