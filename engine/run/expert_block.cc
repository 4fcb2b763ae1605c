// SPDX-License-Identifier: Apache-2.0
#include "engine/run/expert_block.h"

#include "kernels/status_macros.h"

namespace millrace {
namespace {

// How many elements each buffer has.
struct Sizes {
  int64_t logits = 0;  // float32
  int64_t routes = 0;  // 4 bytes
  int64_t sorted = 0, gate_up = 0, ffn = 0;
};

Sizes SizesOf(const ModelInfo& info, int64_t max_rows) {
  const ExpertParams& experts = info.experts;
  const int64_t choices = max_rows * experts.num_choices;
  return {.logits = max_rows * experts.num_experts,
          .routes = 4 * choices + experts.num_experts + 1,
          .sorted = choices * info.hidden_dim,
          .gate_up = choices * 2 * experts.ffn_dim,
          .ffn = choices * experts.ffn_dim};
}

}  // namespace

size_t ExpertBlock::NumBytes(const ModelInfo& info, int64_t max_rows, DType activation_dtype) {
  if (info.experts.num_experts == 0) return 0;
  const Sizes sizes = SizesOf(info, max_rows);
  return static_cast<size_t>(sizes.logits + sizes.routes) * sizeof(float) +
         static_cast<size_t>(sizes.sorted + sizes.gate_up + sizes.ffn) * DTypeBytes(activation_dtype);
}

absl::StatusOr<std::unique_ptr<ExpertBlock>> ExpertBlock::Create(const ModelInfo& info, int64_t max_rows,
                                                                 Device& device) {
  if (info.experts.num_experts == 0) return nullptr;
  std::unique_ptr<ExpertBlock> block(new ExpertBlock(info, device));
  const Sizes sizes = SizesOf(info, max_rows);
  const DType dtype = device.ops().activation_dtype();
  const auto allocate = [&](std::unique_ptr<Buffer>& buffer, int64_t count, DType type) -> absl::Status {
    ASSIGN_OR_RETURN(buffer, device.Allocate(static_cast<size_t>(count) * DTypeBytes(type)));
    return absl::OkStatus();
  };
  block->max_choices_ = max_rows * info.experts.num_choices;
  RETURN_IF_ERROR(allocate(block->logits_, sizes.logits, DType::kF32));
  RETURN_IF_ERROR(allocate(block->routes_, sizes.routes, DType::kI32));
  RETURN_IF_ERROR(allocate(block->sorted_, sizes.sorted, dtype));
  RETURN_IF_ERROR(allocate(block->gate_up_, sizes.gate_up, dtype));
  RETURN_IF_ERROR(allocate(block->ffn_, sizes.ffn, dtype));
  return block;
}

ExpertRoutes ExpertBlock::Routes() const {
  int32_t* const memory = static_cast<int32_t*>(routes_->data());
  return {.num_experts = info_.experts.num_experts,
          .num_choices = info_.experts.num_choices,
          .experts = memory,
          .weights = reinterpret_cast<float*>(memory + max_choices_),
          .places = memory + 2 * max_choices_,
          .rows = memory + 3 * max_choices_,
          .starts = memory + 4 * max_choices_};
}

Matrix ExpertBlock::View(Buffer& buffer, int64_t rows, int64_t cols) const {
  return {.data = buffer.data(), .dtype = ops_.activation_dtype(), .rows = rows, .cols = cols, .stride = cols};
}

void ExpertBlock::Forward(const LayerWeights& layer, const Matrix& normed, const Matrix& hidden, const void* residual) {
  const ExpertParams& params = info_.experts;
  const ExpertRoutes routes = Routes();
  const int64_t num_choices = normed.rows * params.num_choices;
  Matrix logits = View(*logits_, normed.rows, params.num_experts);
  logits.dtype = DType::kF32;
  const Matrix sorted = View(*sorted_, num_choices, info_.hidden_dim);
  const Matrix gate_up = View(*gate_up_, num_choices, 2 * int64_t{params.ffn_dim});
  const Matrix ffn = View(*ffn_, num_choices, params.ffn_dim);
  ExpertOps& experts = ops_.experts();
  ops_.Matmul({.x = normed, .w = layer.router.get(), .out = logits});
  experts.Route({.logits = logits, .is_normalized = params.is_normalized, .routes = routes});
  experts.Dispatch({.x = normed, .routes = routes, .out = sorted});
  experts.Matmul({.x = sorted, .w = layer.expert_gate_up.get(), .routes = routes, .out = gate_up});
  ops_.SwiGlu({.gate_up = gate_up, .out = ffn});
  experts.Matmul({.x = ffn, .w = layer.expert_down.get(), .routes = routes, .out = sorted});
  experts.Combine({.x = sorted, .routes = routes, .out = hidden, .residual = residual});
}

}  // namespace millrace
