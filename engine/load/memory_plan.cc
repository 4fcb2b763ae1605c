// SPDX-License-Identifier: Apache-2.0
#include "engine/load/memory_plan.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "engine/load/weight_plan.h"
#include "engine/run/model.h"
#include "kernels/status_macros.h"

namespace millrace {
namespace {

// Logits are computed for at most this many rows at a time: a step with more is computed in parts.
constexpr int32_t kMaxLogitRows = 64;

std::string Bytes(size_t num_bytes) {
  if (num_bytes >= (size_t{1} << 30)) return absl::StrFormat("%.2f GiB", static_cast<double>(num_bytes) / (1 << 30));
  return absl::StrFormat("%.1f MiB", static_cast<double>(num_bytes) / (1 << 20));
}

absl::StatusOr<DType> ParseKvDtype(const std::string& name) {
  if (name == "auto" || name == "bfloat16" || name == "bf16") return DType::kBF16;
  if (name == "float32" || name == "fp32") return DType::kF32;
  if (name == "float16" || name == "fp16") return DType::kF16;
  if (name == "int8") return DType::kI8;
  if (name == "fp8" || name == "fp8_e4m3") return DType::kF8E4M3;
  return absl::InvalidArgumentError(
      absl::StrCat("--kv-cache-dtype ", name, " is not one of auto, float32, float16, bfloat16, int8, fp8"));
}

absl::Status TooLittle(const MemoryPlan& plan, size_t needed_kv_bytes) {
  return absl::ResourceExhaustedError(absl::StrCat(
      "the model does not fit: weights ", Bytes(plan.weight_bytes), ", activations and workspace ",
      Bytes(plan.activation_bytes + plan.workspace_bytes), ", RoPE tables ", Bytes(plan.rope_bytes),
      ", KV cache at least ", Bytes(needed_kv_bytes), "; may be used: ", Bytes(plan.budget_bytes), " of ",
      Bytes(plan.available_bytes),
      " available. Lower --max-model-len or --max-num-batched-tokens, choose --quantization int8 or int4, or raise "
      "--gpu-memory-utilization"));
}

// How many pages, and how long a sequence they and its tables allow. Enters with the length that is wanted.
absl::Status FitPages(const ModelInfo& info, const MemoryPlanOptions& options, MemoryPlan& plan) {
  const size_t fixed = plan.weight_bytes + plan.activation_bytes + plan.workspace_bytes;
  const size_t left = plan.budget_bytes > fixed ? plan.budget_bytes - fixed : 0;
  const int64_t pages_a_sequence = (plan.max_model_tokens + plan.page_tokens - 1) / plan.page_tokens;
  // A length nobody asked for shrinks to what fits, and its tables with it; one that was asked for is a promise.
  const bool may_shrink = options.max_model_tokens == 0;
  int64_t affordable =
      left > plan.rope_bytes ? static_cast<int64_t>((left - plan.rope_bytes) / plan.page_bytes) : int64_t{0};
  if (may_shrink && affordable < pages_a_sequence) {
    affordable = static_cast<int64_t>(left / (plan.page_bytes + RopeTableBytes(info.head_dim, plan.page_tokens)));
  }
  int64_t pages = std::min(affordable, pages_a_sequence * options.max_sequences);
  if (options.kv_cache_bytes > 0) {
    pages = options.kv_cache_bytes / static_cast<int64_t>(plan.page_bytes);
    if (pages > affordable || pages < 1) return TooLittle(plan, static_cast<size_t>(options.kv_cache_bytes));
  }
  if (pages < pages_a_sequence) {
    if (!may_shrink || pages < 2) return TooLittle(plan, static_cast<size_t>(pages_a_sequence) * plan.page_bytes);
    plan.max_model_tokens = static_cast<int32_t>(pages) * plan.page_tokens;
    plan.rope_bytes = RopeTableBytes(info.head_dim, plan.max_model_tokens);
  }
  plan.num_pages = static_cast<int32_t>(std::min<int64_t>(pages, INT32_MAX / plan.page_tokens));
  plan.kv_bytes = static_cast<size_t>(plan.num_pages) * plan.page_bytes;
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<MemoryPlan> PlanMemory(const ModelInfo& info, const LoadOptions& load, const MemoryPlanOptions& options,
                                      const Ops& ops) {
  MemoryPlan plan{.available_bytes = options.available_bytes,
                  .page_tokens = options.page_tokens,
                  .max_step_tokens = options.max_step_tokens,
                  .max_sequences = options.max_sequences,
                  .num_ranks = info.part.num_ranks};
  ASSIGN_OR_RETURN(const WeightMemory weights, PlanWeights(info, load, ops));
  ASSIGN_OR_RETURN(plan.kv_dtype, ParseKvDtype(options.kv_cache_dtype));
  if (!ops.takes_kv_dtype(plan.kv_dtype)) {
    return absl::InvalidArgumentError(
        absl::StrCat("--kv-cache-dtype ", options.kv_cache_dtype, " is not available on this device"));
  }
  plan.budget_bytes = static_cast<size_t>(static_cast<double>(options.available_bytes) * options.utilization);
  plan.max_logit_rows = std::min(kMaxLogitRows, options.max_step_tokens);
  plan.weight_bytes = weights.num_bytes;
  plan.scratch_bytes = weights.largest_bytes;
  plan.num_requantized = weights.num_requantized;
  plan.page_bytes = KvPageBytes(info, plan.page_tokens, plan.kv_dtype);
  const int32_t wanted_tokens = options.max_model_tokens > 0 ? options.max_model_tokens : info.max_positions;
  if (wanted_tokens > info.max_positions) {
    return absl::InvalidArgumentError(absl::StrCat("--max-model-len ", wanted_tokens, " exceeds the ",
                                                   info.max_positions, " positions the model was made for"));
  }
  plan.max_model_tokens = wanted_tokens;
  const ModelLimits limits = ToModelLimits(plan);
  plan.activation_bytes = ActivationBytes(info, limits, ops.activation_dtype());
  plan.workspace_bytes = ops.WorkspaceBytes(ToStepLimits(info, limits));

  plan.rope_bytes = RopeTableBytes(info.head_dim, plan.max_model_tokens);
  // Pages are allocated after the weights, so that what building them took is free again by then.
  if (plan.weight_bytes + plan.scratch_bytes > plan.budget_bytes) return TooLittle(plan, plan.page_bytes);
  RETURN_IF_ERROR(FitPages(info, options, plan));
  return plan;
}

std::string FormatMemoryPlan(const MemoryPlan& plan) {
  const int64_t kv_tokens = static_cast<int64_t>(plan.num_pages) * plan.page_tokens;
  return absl::StrCat(
      plan.num_ranks > 1 ? absl::StrCat("memory plan of each of ", plan.num_ranks, " ranks\n") : "memory plan\n",
      "  weights      ", Bytes(plan.weight_bytes), "\n", "  KV cache     ", Bytes(plan.kv_bytes), "  (", plan.num_pages,
      " pages of ", plan.page_tokens, " tokens, ", std::string(DTypeName(plan.kv_dtype)), ": ", kv_tokens, " tokens; ",
      kv_tokens / plan.max_model_tokens, " sequences of ", plan.max_model_tokens, ")\n", "  activations  ",
      Bytes(plan.activation_bytes), "  (", plan.max_step_tokens, " tokens a step)\n", "  workspace    ",
      Bytes(plan.workspace_bytes), "\n", "  RoPE tables  ", Bytes(plan.rope_bytes), "\n", "  total        ",
      Bytes(plan.total_bytes()), " of ", Bytes(plan.budget_bytes), " allowed, ", Bytes(plan.available_bytes),
      " available\n",
      plan.num_requantized > 0 ? absl::StrCat("  note: ", plan.num_requantized,
                                              " matrices cannot be kept as the checkpoint stores them (activation "
                                              "order or odd groups) and become int8\n")
                               : std::string());
}

ModelLimits ToModelLimits(const MemoryPlan& plan) {
  return {.max_rows = plan.max_step_tokens,
          .max_logit_rows = plan.max_logit_rows,
          .max_sequences = plan.max_sequences,
          .max_positions = plan.max_model_tokens,
          .num_pages = plan.num_pages,
          .page_tokens = plan.page_tokens,
          .kv_dtype = plan.kv_dtype};
}

}  // namespace millrace
