// SPDX-License-Identifier: Apache-2.0
#include "engine/run/model.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "kernels/check.h"
#include "kernels/status_macros.h"

namespace millrace {
namespace {

constexpr size_t kFloatBytes = sizeof(float);

int64_t QkvCols(const ModelInfo& info) {
  return static_cast<int64_t>(info.num_heads + 2 * info.num_kv_heads) * info.head_dim;
}

int64_t MaxInputs(const ModelInfo& info) {
  return std::max<int64_t>({info.hidden_dim, info.ffn_dim, static_cast<int64_t>(info.num_heads) * info.head_dim});
}

const float* DataOrNull(const std::vector<float>& values) { return values.empty() ? nullptr : values.data(); }

}  // namespace

size_t ActivationBytes(const ModelInfo& info, const ModelLimits& limits) {
  const int64_t per_row = 2 * info.hidden_dim + QkvCols(info) + static_cast<int64_t>(info.num_heads) * info.head_dim +
                          3 * static_cast<int64_t>(info.ffn_dim);
  const int64_t per_logit_row = static_cast<int64_t>(info.hidden_dim) + info.vocab_tokens;
  return kFloatBytes * static_cast<size_t>(limits.max_rows * per_row + limits.max_logit_rows * per_logit_row);
}

size_t KvPageBytes(const ModelInfo& info, int32_t page_tokens, DType kv_dtype) {
  const size_t token_heads = static_cast<size_t>(page_tokens) * static_cast<size_t>(info.num_kv_heads);
  const size_t scale_bytes = kv_dtype == DType::kI8 ? kFloatBytes : 0;
  return 2 * static_cast<size_t>(info.num_layers) * token_heads *
         (static_cast<size_t>(info.head_dim) * DTypeBytes(kv_dtype) + scale_bytes);
}

Model::Model(const ModelInfo& info, ModelWeights weights, const ModelLimits& limits, Device& device)
    : info_(info),
      weights_(std::move(weights)),
      limits_(limits),
      device_(device),
      ops_(device.ops()),
      rope_(info.rope, info.head_dim, limits.max_positions) {}

absl::StatusOr<std::unique_ptr<Model>> Model::Create(const ModelInfo& info, ModelWeights weights,
                                                     const ModelLimits& limits, Device& device) {
  std::unique_ptr<Model> model(new Model(info, std::move(weights), limits, device));
  RETURN_IF_ERROR(model->Allocate());
  return model;
}

absl::Status Model::Allocate() {
  const auto allocate = [&](std::unique_ptr<Buffer>& buffer, int64_t rows, int64_t cols) -> absl::Status {
    ASSIGN_OR_RETURN(buffer, device_.Allocate(static_cast<size_t>(rows) * static_cast<size_t>(cols) * kFloatBytes));
    return absl::OkStatus();
  };
  const int64_t rows = limits_.max_rows;
  RETURN_IF_ERROR(allocate(hidden_, rows, info_.hidden_dim));
  RETURN_IF_ERROR(allocate(normed_, rows, info_.hidden_dim));
  RETURN_IF_ERROR(allocate(qkv_, rows, QkvCols(info_)));
  RETURN_IF_ERROR(allocate(attended_, rows, static_cast<int64_t>(info_.num_heads) * info_.head_dim));
  RETURN_IF_ERROR(allocate(gate_up_, rows, 2 * static_cast<int64_t>(info_.ffn_dim)));
  RETURN_IF_ERROR(allocate(ffn_, rows, info_.ffn_dim));
  RETURN_IF_ERROR(allocate(gathered_, limits_.max_logit_rows, info_.hidden_dim));
  RETURN_IF_ERROR(allocate(logits_, limits_.max_logit_rows, info_.vocab_tokens));
  RETURN_IF_ERROR(
      ops_.ReserveWorkspace(std::max(rows, static_cast<int64_t>(limits_.max_logit_rows)), MaxInputs(info_)));

  const size_t token_heads = static_cast<size_t>(limits_.num_pages) * static_cast<size_t>(limits_.page_tokens) *
                             static_cast<size_t>(info_.num_kv_heads);
  for (int32_t i = 0; i < info_.num_layers; ++i) {
    KvLayer layer{.dtype = limits_.kv_dtype,
                  .num_pages = limits_.num_pages,
                  .page_tokens = limits_.page_tokens,
                  .num_kv_heads = info_.num_kv_heads,
                  .head_dim = info_.head_dim};
    const auto kv_memory = [&](size_t num_bytes) -> absl::StatusOr<void*> {
      ASSIGN_OR_RETURN(std::unique_ptr<Buffer> buffer, device_.Allocate(num_bytes));
      kv_buffers_.push_back(std::move(buffer));
      return kv_buffers_.back()->data();
    };
    const size_t value_bytes = token_heads * static_cast<size_t>(info_.head_dim) * DTypeBytes(limits_.kv_dtype);
    ASSIGN_OR_RETURN(layer.keys, kv_memory(value_bytes));
    ASSIGN_OR_RETURN(layer.values, kv_memory(value_bytes));
    if (limits_.kv_dtype == DType::kI8) {
      ASSIGN_OR_RETURN(void* key_scales, kv_memory(token_heads * kFloatBytes));
      ASSIGN_OR_RETURN(void* value_scales, kv_memory(token_heads * kFloatBytes));
      layer.key_scales = static_cast<float*>(key_scales);
      layer.value_scales = static_cast<float*>(value_scales);
    }
    kv_.push_back(layer);
  }
  return absl::OkStatus();
}

Matrix Model::View(Buffer& buffer, int64_t rows, int64_t cols) const {
  return {.data = buffer.data(), .dtype = DType::kF32, .rows = rows, .cols = cols, .stride = cols};
}

void Model::AttentionBlock(const LayerWeights& layer, const KvLayer& kv, const StepBatch& batch) {
  const int64_t rows = static_cast<int64_t>(batch.tokens.size());
  const int64_t q_cols = static_cast<int64_t>(info_.num_heads) * info_.head_dim;
  const Matrix hidden = View(*hidden_, rows, info_.hidden_dim);
  const Matrix normed = View(*normed_, rows, info_.hidden_dim);
  const Matrix qkv = View(*qkv_, rows, QkvCols(info_));
  const Matrix attended = View(*attended_, rows, q_cols);
  ops_.RmsNorm({.x = hidden, .weight = layer.attn_norm.data(), .eps = info_.norm_eps, .out = normed});
  ops_.Matmul({.x = normed, .w = layer.qkv.get(), .bias = DataOrNull(layer.qkv_bias), .out = qkv});
  ops_.RopeAppend({.qkv = qkv,
                   .num_heads = info_.num_heads,
                   .q_norm = DataOrNull(layer.q_norm),
                   .k_norm = DataOrNull(layer.k_norm),
                   .norm_eps = info_.norm_eps,
                   .rope = rope_.table(),
                   .positions = batch.positions,
                   .slots = batch.slots,
                   .kv = kv});
  ops_.Attention({.q = {.data = qkv.data, .dtype = qkv.dtype, .rows = rows, .cols = q_cols, .stride = qkv.stride},
                  .num_heads = info_.num_heads,
                  .kv = kv,
                  .sequences = batch.sequences,
                  .scale = 1.0f / std::sqrt(static_cast<float>(info_.head_dim)),
                  .window_tokens = info_.window_tokens,
                  .out = attended});
  ops_.Matmul({.x = attended,
               .w = layer.o.get(),
               .bias = DataOrNull(layer.o_bias),
               .out = hidden,
               .residual = static_cast<const float*>(hidden.data)});
}

void Model::FfnBlock(const LayerWeights& layer, int64_t num_rows) {
  const Matrix hidden = View(*hidden_, num_rows, info_.hidden_dim);
  const Matrix normed = View(*normed_, num_rows, info_.hidden_dim);
  const Matrix gate_up = View(*gate_up_, num_rows, 2 * static_cast<int64_t>(info_.ffn_dim));
  const Matrix ffn = View(*ffn_, num_rows, info_.ffn_dim);
  ops_.RmsNorm({.x = hidden, .weight = layer.mlp_norm.data(), .eps = info_.norm_eps, .out = normed});
  ops_.Matmul({.x = normed, .w = layer.gate_up.get(), .bias = DataOrNull(layer.gate_up_bias), .out = gate_up});
  ops_.SwiGlu({.gate_up = gate_up, .out = ffn});
  ops_.Matmul({.x = ffn,
               .w = layer.down.get(),
               .bias = DataOrNull(layer.down_bias),
               .out = hidden,
               .residual = static_cast<const float*>(hidden.data)});
}

void Model::Forward(const StepBatch& batch) {
  const int64_t rows = static_cast<int64_t>(batch.tokens.size());
  MILLRACE_CHECK(rows > 0 && rows <= limits_.max_rows, "a step's rows exceed what was reserved");
  ops_.Embed({.table = weights_.embedding, .tokens = batch.tokens, .out = View(*hidden_, rows, info_.hidden_dim)});
  for (size_t i = 0; i < weights_.layers.size(); ++i) {
    AttentionBlock(weights_.layers[i], kv_[i], batch);
    FfnBlock(weights_.layers[i], rows);
  }
}

Matrix Model::FinalHidden(absl::Span<const int32_t> rows) {
  MILLRACE_CHECK(!rows.empty() && rows.size() <= static_cast<size_t>(limits_.max_logit_rows),
                 "more rows asked for than were reserved");
  const Matrix gathered = View(*gathered_, static_cast<int64_t>(rows.size()), info_.hidden_dim);
  ops_.GatherRows({.x = View(*hidden_, limits_.max_rows, info_.hidden_dim), .rows = rows, .out = gathered});
  ops_.RmsNorm({.x = gathered, .weight = weights_.final_norm.data(), .eps = info_.norm_eps, .out = gathered});
  return gathered;
}

Matrix Model::Logits(absl::Span<const int32_t> rows) {
  const Matrix hidden = FinalHidden(rows);
  const Matrix logits = View(*logits_, hidden.rows, info_.vocab_tokens);
  ops_.Matmul({.x = hidden, .w = weights_.lm_head.get(), .out = logits});
  return logits;
}

}  // namespace millrace
