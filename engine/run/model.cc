// SPDX-License-Identifier: Apache-2.0
#include "engine/run/model.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "engine/load/model_shape.h"
#include "engine/run/rank_group.h"
#include "kernels/check.h"
#include "kernels/status_macros.h"

namespace millrace {
namespace {

constexpr size_t kFloatBytes = sizeof(float);

int64_t QkvCols(const ModelInfo& info) {
  return static_cast<int64_t>(info.num_heads + 2 * info.num_kv_heads) * info.head_dim;
}

int64_t MaxInputs(const ModelInfo& info) {
  return std::max<int64_t>(
      {info.hidden_dim, DenseFfnDim(info), info.experts.ffn_dim, static_cast<int64_t>(info.num_heads) * info.head_dim});
}

int64_t WholeVocab(const ModelInfo& info) { return int64_t{info.vocab_tokens} * info.part.num_ranks; }

}  // namespace

size_t ActivationBytes(const ModelInfo& info, const ModelLimits& limits, DType activation_dtype) {
  const int64_t per_row = 2 * info.hidden_dim + QkvCols(info) + static_cast<int64_t>(info.num_heads) * info.head_dim +
                          3 * static_cast<int64_t>(DenseFfnDim(info));
  const size_t activations = static_cast<size_t>(limits.max_rows * per_row) +
                             static_cast<size_t>(limits.max_logit_rows) * static_cast<size_t>(info.hidden_dim);
  // Of a part: those of all ranks as they are gathered, and side by side.
  const size_t num_copies = info.part.num_ranks > 1 ? 2 : 1;
  const size_t logits = num_copies * static_cast<size_t>(limits.max_logit_rows) * static_cast<size_t>(WholeVocab(info));
  return DTypeBytes(activation_dtype) * activations + kFloatBytes * logits +
         ExpertBlock::NumBytes(info, limits.max_rows, activation_dtype);
}

StepLimits ToStepLimits(const ModelInfo& info, const ModelLimits& limits) {
  return {.max_rows = limits.max_rows,
          .max_logit_rows = limits.max_logit_rows,
          .max_sequences = limits.max_sequences > 0 ? limits.max_sequences : limits.max_rows,
          .max_sequence_pages = (limits.max_positions + limits.page_tokens - 1) / limits.page_tokens,
          .max_inputs = MaxInputs(info),
          .max_outputs = std::max({QkvCols(info), 2 * static_cast<int64_t>(DenseFfnDim(info)),
                                   2 * static_cast<int64_t>(info.experts.ffn_dim),
                                   static_cast<int64_t>(info.hidden_dim), static_cast<int64_t>(info.vocab_tokens)}),
          .vocab_tokens = WholeVocab(info),
          .num_heads = info.num_heads,
          .num_kv_heads = info.num_kv_heads,
          .head_dim = info.head_dim,
          .page_tokens = limits.page_tokens,
          .window_tokens = info.window_tokens,
          .num_expert_choices = info.experts.num_choices,
          .num_layers = info.num_layers};
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
      copies_(device) {}

Model::~Model() = default;

void Model::Lead(std::unique_ptr<RankGroup> followers) { followers_ = std::move(followers); }

absl::StatusOr<std::unique_ptr<Model>> Model::Create(const ModelInfo& info, ModelWeights weights,
                                                     const ModelLimits& limits, Device& device) {
  std::unique_ptr<Model> model(new Model(info, std::move(weights), limits, device));
  RETURN_IF_ERROR(model->PlaceWeights());
  RETURN_IF_ERROR(model->Allocate());
  return model;
}

absl::Status Model::PlaceWeights() {
  ASSIGN_OR_RETURN(embedding_, copies_.Place(weights_.embedding));
  ASSIGN_OR_RETURN(final_norm_, copies_.Place(weights_.final_norm));
  for (const LayerWeights& weights : weights_.layers) {
    Layer layer{.weights = &weights};
    ASSIGN_OR_RETURN(layer.attn_norm, copies_.Place(weights.attn_norm));
    ASSIGN_OR_RETURN(layer.mlp_norm, copies_.Place(weights.mlp_norm));
    ASSIGN_OR_RETURN(layer.q_norm, copies_.Place(weights.q_norm));
    ASSIGN_OR_RETURN(layer.k_norm, copies_.Place(weights.k_norm));
    ASSIGN_OR_RETURN(layer.qkv_bias, copies_.Place(weights.qkv_bias));
    ASSIGN_OR_RETURN(layer.o_bias, copies_.Place(weights.o_bias));
    ASSIGN_OR_RETURN(layer.gate_up_bias, copies_.Place(weights.gate_up_bias));
    ASSIGN_OR_RETURN(layer.down_bias, copies_.Place(weights.down_bias));
    layers_.push_back(layer);
  }
  rope_.emplace(info_.rope, info_.head_dim, limits_.max_positions);
  rope_table_ = rope_->table();
  ASSIGN_OR_RETURN(rope_table_.cos, copies_.Place(rope_->cosines()));
  ASSIGN_OR_RETURN(rope_table_.sin, copies_.Place(rope_->sines()));
  if (!device_.shares_host_memory()) {
    rope_.reset();
    weights_.memory.clear();
  }
  return absl::OkStatus();
}

absl::Status Model::Allocate() {
  const auto allocate = [&](std::unique_ptr<Buffer>& buffer, int64_t rows, int64_t cols, DType dtype) -> absl::Status {
    ASSIGN_OR_RETURN(buffer,
                     device_.Allocate(static_cast<size_t>(rows) * static_cast<size_t>(cols) * DTypeBytes(dtype)));
    return absl::OkStatus();
  };
  const DType dtype = ops_.activation_dtype();
  const int64_t rows = limits_.max_rows;
  RETURN_IF_ERROR(allocate(hidden_, rows, info_.hidden_dim, dtype));
  RETURN_IF_ERROR(allocate(normed_, rows, info_.hidden_dim, dtype));
  RETURN_IF_ERROR(allocate(qkv_, rows, QkvCols(info_), dtype));
  RETURN_IF_ERROR(allocate(attended_, rows, static_cast<int64_t>(info_.num_heads) * info_.head_dim, dtype));
  RETURN_IF_ERROR(allocate(gate_up_, rows, 2 * static_cast<int64_t>(DenseFfnDim(info_)), dtype));
  RETURN_IF_ERROR(allocate(ffn_, rows, DenseFfnDim(info_), dtype));
  RETURN_IF_ERROR(allocate(gathered_, limits_.max_logit_rows, info_.hidden_dim, dtype));
  RETURN_IF_ERROR(allocate(logits_, limits_.max_logit_rows, WholeVocab(info_), DType::kF32));
  if (info_.part.num_ranks > 1) {
    RETURN_IF_ERROR(allocate(gathered_logits_, limits_.max_logit_rows, WholeVocab(info_), DType::kF32));
  }
  ASSIGN_OR_RETURN(experts_, ExpertBlock::Create(info_, rows, device_));
  for (Layer& layer : layers_) {
    ASSIGN_OR_RETURN(layer.kv, AllocateKv());
  }
  return ops_.ReserveWorkspace(ToStepLimits(info_, limits_));
}

absl::StatusOr<KvLayer> Model::AllocateKv() {
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
  const size_t token_heads = static_cast<size_t>(limits_.num_pages) * static_cast<size_t>(limits_.page_tokens) *
                             static_cast<size_t>(info_.num_kv_heads);
  const size_t value_bytes = token_heads * static_cast<size_t>(info_.head_dim) * DTypeBytes(limits_.kv_dtype);
  ASSIGN_OR_RETURN(layer.keys, kv_memory(value_bytes));
  ASSIGN_OR_RETURN(layer.values, kv_memory(value_bytes));
  if (limits_.kv_dtype == DType::kI8) {
    ASSIGN_OR_RETURN(void* key_scales, kv_memory(token_heads * kFloatBytes));
    ASSIGN_OR_RETURN(void* value_scales, kv_memory(token_heads * kFloatBytes));
    layer.key_scales = static_cast<float*>(key_scales);
    layer.value_scales = static_cast<float*>(value_scales);
  }
  return layer;
}

Matrix Model::View(Buffer& buffer, int64_t rows, int64_t cols) const {
  return {.data = buffer.data(), .dtype = ops_.activation_dtype(), .rows = rows, .cols = cols, .stride = cols};
}

void Model::AttentionBlock(const Layer& layer, const StepInputs& inputs, int64_t num_rows) {
  const int64_t q_cols = static_cast<int64_t>(info_.num_heads) * info_.head_dim;
  const Matrix hidden = View(*hidden_, num_rows, info_.hidden_dim);
  const Matrix normed = View(*normed_, num_rows, info_.hidden_dim);
  const Matrix qkv = View(*qkv_, num_rows, QkvCols(info_));
  const Matrix attended = View(*attended_, num_rows, q_cols);
  const LayerWeights& weights = *layer.weights;
  ops_.RmsNorm(
      {.x = hidden, .weight = layer.attn_norm, .eps = info_.norm_eps, .out = normed, .reader = weights.qkv.get()});
  ops_.Matmul({.x = normed, .w = weights.qkv.get(), .bias = layer.qkv_bias, .out = qkv});
  ops_.RopeAppend({.qkv = qkv,
                   .num_heads = info_.num_heads,
                   .q_norm = layer.q_norm,
                   .k_norm = layer.k_norm,
                   .norm_eps = info_.norm_eps,
                   .rope = rope_table_,
                   .positions = inputs.positions,
                   .slots = inputs.slots,
                   .kv = layer.kv});
  ops_.Attention({.q = {.data = qkv.data, .dtype = qkv.dtype, .rows = num_rows, .cols = q_cols, .stride = qkv.stride},
                  .num_heads = info_.num_heads,
                  .kv = layer.kv,
                  .sequences = inputs.sequences,
                  .scale = 1.0f / std::sqrt(static_cast<float>(info_.head_dim)),
                  .window_tokens = info_.window_tokens,
                  .out = attended});
  ops_.Matmul({.x = attended, .w = weights.o.get(), .bias = layer.o_bias, .out = hidden, .residual = Residual(hidden)});
  SumOverRanks(hidden);
}

void Model::FfnBlock(const Layer& layer, int64_t num_rows) {
  const Matrix hidden = View(*hidden_, num_rows, info_.hidden_dim);
  const Matrix normed = View(*normed_, num_rows, info_.hidden_dim);
  const Matrix gate_up = View(*gate_up_, num_rows, 2 * static_cast<int64_t>(info_.ffn_dim));
  const Matrix ffn = View(*ffn_, num_rows, info_.ffn_dim);
  const LayerWeights& weights = *layer.weights;
  ops_.RmsNorm(
      {.x = hidden, .weight = layer.mlp_norm, .eps = info_.norm_eps, .out = normed, .reader = weights.gate_up.get()});
  ops_.Matmul({.x = normed, .w = weights.gate_up.get(), .bias = layer.gate_up_bias, .out = gate_up});
  ops_.SwiGlu({.gate_up = gate_up, .out = ffn, .reader = weights.down.get()});
  ops_.Matmul(
      {.x = ffn, .w = weights.down.get(), .bias = layer.down_bias, .out = hidden, .residual = Residual(hidden)});
  SumOverRanks(hidden);
}

absl::Status Model::RecordSteps() {
  // Every rank records on its own device; what is recorded has them meet.
  if (followers_ != nullptr) {
    followers_->Start(
        [](Model& model) {
          if (absl::Status status = model.RecordSteps(); !status.ok()) model.ranks_->Abort(status);
        },
        RankGroup::Then::kGoOn);
  }
  absl::Status status = ops_.RecordSteps([this](const StepInputs& inputs) { ComputeLayers(inputs); });
  if (ranks_ == nullptr) return status;
  if (!status.ok()) ranks_->Abort(status);
  if (followers_ != nullptr) followers_->Finish();
  return status.ok() ? ranks_->status() : status;
}

void Model::ExpertsOrFfn(const Layer& layer, int64_t num_rows) {
  if (layer.weights->router == nullptr) return FfnBlock(layer, num_rows);
  const Matrix hidden = View(*hidden_, num_rows, info_.hidden_dim);
  const Matrix normed = View(*normed_, num_rows, info_.hidden_dim);
  ops_.RmsNorm({.x = hidden, .weight = layer.mlp_norm, .eps = info_.norm_eps, .out = normed});
  experts_->Forward(*layer.weights, normed, hidden, Residual(hidden));
  SumOverRanks(hidden);
}

void Model::Forward(const StepInputs& inputs) {
  MILLRACE_CHECK(!inputs.tokens.empty() && static_cast<int64_t>(inputs.tokens.size()) <= limits_.max_rows,
                 "a step's rows exceed what was reserved");
  if (followers_ != nullptr) {
    followers_->Start([&inputs](Model& model) { model.Forward(inputs); }, RankGroup::Then::kGoOn);
  }
  ComputeLayers(inputs);
  // The inputs are the caller's again.
  if (followers_ != nullptr) followers_->Finish();
}

void Model::ComputeLayers(const StepInputs& inputs) {
  ops_.BeginStep(inputs);
  ops_.Replay([&](int64_t num_rows) {
    const Matrix hidden = View(*hidden_, num_rows, info_.hidden_dim);
    ops_.Embed({.table = embedding_,
                .tokens = inputs.tokens,
                .out = hidden,
                .first_token = info_.part.rank * info_.vocab_tokens,
                .whole_tokens = static_cast<int32_t>(WholeVocab(info_))});
    SumOverRanks(hidden);
    for (const Layer& layer : layers_) {
      AttentionBlock(layer, inputs, num_rows);
      ExpertsOrFfn(layer, num_rows);
    }
  });
}

void Model::EndStep() {
  if (followers_ != nullptr) followers_->Start([](Model& model) { model.EndStep(); }, RankGroup::Then::kGoOn);
  ops_.EndStep();
}

absl::Status Model::CollectStep() {
  if (followers_ != nullptr) {
    followers_->Start([](Model& model) { static_cast<void>(model.CollectStep()); }, RankGroup::Then::kWait);
  }
  absl::Status status = ops_.CollectStep();
  if (ranks_ == nullptr) return status;
  if (!status.ok()) ranks_->Abort(status);
  if (info_.part.rank > 0) return status;
  absl::Status waited = Wait();
  return status.ok() ? waited : status;
}

void Model::SumOverRanks(const Matrix& hidden) {
  if (ranks_ != nullptr) ranks_->AllReduceSum(hidden);
}

absl::Status Model::Wait() {
  if (followers_ != nullptr) followers_->Settle();
  absl::Status status = device_.Wait();
  if (ranks_ == nullptr) return status;
  if (!status.ok()) ranks_->Abort(status);
  if (followers_ != nullptr) followers_->Finish();
  return status.ok() ? ranks_->status() : status;
}

Matrix Model::FinalHidden(absl::Span<const int32_t> rows) { return FinalNorm(rows, nullptr); }

Matrix Model::FinalNorm(absl::Span<const int32_t> rows, const PackedWeight* reader) {
  MILLRACE_CHECK(!rows.empty() && rows.size() <= static_cast<size_t>(limits_.max_logit_rows),
                 "more rows asked for than were reserved");
  const Matrix gathered = View(*gathered_, static_cast<int64_t>(rows.size()), info_.hidden_dim);
  ops_.GatherRows({.x = View(*hidden_, limits_.max_rows, info_.hidden_dim), .rows = rows, .out = gathered});
  ops_.RmsNorm({.x = gathered, .weight = final_norm_, .eps = info_.norm_eps, .out = gathered, .reader = reader});
  return gathered;
}

Matrix Model::Logits(absl::Span<const int32_t> rows) {
  if (followers_ != nullptr) {
    followers_->Start([rows = std::vector<int32_t>(rows.begin(), rows.end())](Model& model) { model.Logits(rows); },
                      RankGroup::Then::kGoOn);
  }
  const Matrix hidden = FinalNorm(rows, weights_.lm_head.get());
  const int64_t num_rows = hidden.rows;
  Matrix parts = View(*logits_, info_.part.num_ranks * num_rows, info_.vocab_tokens);
  parts.dtype = DType::kF32;
  Matrix logits = parts;
  logits.data = static_cast<float*>(parts.data) + info_.part.rank * num_rows * parts.stride;
  logits.rows = num_rows;
  ops_.Matmul({.x = hidden, .w = weights_.lm_head.get(), .out = logits});
  if (ranks_ == nullptr) return logits;
  Matrix gathered = View(*gathered_logits_, num_rows, WholeVocab(info_));
  gathered.dtype = DType::kF32;
  ranks_->GatherColumns(parts, gathered);
  return gathered;
}

}  // namespace millrace
