// SPDX-License-Identifier: Apache-2.0
#include "engine/load/assemble.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "engine/load/weight_formats.h"
#include "engine/load/weight_plan.h"
#include "kernels/status_macros.h"

namespace millrace {
namespace {

class Assembler {
 public:
  Assembler(const ModelInfo& info, const LoadOptions& options, const WeightFormats& formats, TensorSource& source,
            Device& device)
      : info_(info), options_(options), formats_(formats), source_(source), device_(device) {}

  absl::StatusOr<ModelWeights> Assemble() {
    RETURN_IF_ERROR(CheckTensors(info_, source_));
    ModelWeights weights;
    RETURN_IF_ERROR(Embedding(weights));
    ASSIGN_OR_RETURN(weights.final_norm, source_.Vector("model.norm.weight", info_.hidden_dim));
    ASSIGN_OR_RETURN(weights.lm_head, Linear(HeadSpecOf(info_), formats_.lm_head));
    Report(0);
    for (int32_t i = 0; i < info_.num_layers; ++i) {
      ASSIGN_OR_RETURN(LayerWeights layer, Layer(LayerSpecOf(info_, i)));
      weights.layers.push_back(std::move(layer));
      source_.Release();
      Report(i + 1);
    }
    return weights;
  }

 private:
  // The embedding and the head count as one layer.
  void Report(int32_t num_layers) const {
    if (options_.on_progress) options_.on_progress("loading weights", (num_layers + 1.0) / (info_.num_layers + 1.0));
  }

  absl::Status Embedding(ModelWeights& weights) {
    const std::string name = "model.embed_tokens.weight";
    ASSIGN_OR_RETURN(const MatrixRows rows, source_.Matrix(name, info_.vocab_tokens, info_.hidden_dim));
    ASSIGN_OR_RETURN(std::shared_ptr<BuiltWeight> table, BuildWeight(rows, {.dtype = formats_.embedding}));
    weights.embedding = {.data = table->values.data(),
                         .dtype = formats_.embedding,
                         .rows = info_.vocab_tokens,
                         .cols = info_.hidden_dim,
                         .stride = info_.hidden_dim};
    weights.memory.push_back(std::move(table));
    return absl::OkStatus();
  }

  absl::StatusOr<LayerWeights> Layer(const LayerSpec& spec) {
    LayerWeights layer;
    ASSIGN_OR_RETURN(layer.attn_norm, source_.Vector(spec.attn_norm, info_.hidden_dim));
    ASSIGN_OR_RETURN(layer.mlp_norm, source_.Vector(spec.mlp_norm, info_.hidden_dim));
    if (info_.has_qk_norm) {
      ASSIGN_OR_RETURN(layer.q_norm, source_.Vector(spec.q_norm, info_.head_dim));
      ASSIGN_OR_RETURN(layer.k_norm, source_.Vector(spec.k_norm, info_.head_dim));
    }
    ASSIGN_OR_RETURN(layer.qkv, Linear(spec.qkv, formats_.linear));
    ASSIGN_OR_RETURN(layer.o, Linear(spec.o, formats_.linear));
    ASSIGN_OR_RETURN(layer.qkv_bias, Bias(spec.qkv));
    ASSIGN_OR_RETURN(layer.o_bias, Bias(spec.o));
    if (!spec.router.parts.empty()) {
      ASSIGN_OR_RETURN(layer.router, Router(spec.router));
      ASSIGN_OR_RETURN(layer.expert_gate_up, Experts(spec.expert_gate_ups));
      ASSIGN_OR_RETURN(layer.expert_down, Experts(spec.expert_downs));
      return layer;
    }
    ASSIGN_OR_RETURN(layer.gate_up, Linear(spec.gate_up, formats_.linear));
    ASSIGN_OR_RETURN(layer.down, Linear(spec.down, formats_.linear));
    ASSIGN_OR_RETURN(layer.gate_up_bias, Bias(spec.gate_up));
    ASSIGN_OR_RETURN(layer.down_bias, Bias(spec.down));
    return layer;
  }

  absl::StatusOr<std::unique_ptr<PackedWeight>> Linear(const LinearSpec& spec, const WeightKind& wanted) {
    ASSIGN_OR_RETURN(const LinearPlan plan, PlanLinear(spec, wanted, formats_.may_keep_stored, source_));
    absl::StatusOr<std::unique_ptr<PackedWeight>> packed =
        plan.is_stored ? PackStored(spec) : PackFloats(spec, plan.kind);
    if (packed.ok()) return packed;
    return Explain(spec, packed.status());
  }

  absl::StatusOr<std::unique_ptr<PackedWeight>> Router(const LinearSpec& spec) {
    absl::StatusOr<std::unique_ptr<PackedWeight>> packed = PackFloats(spec, {.dtype = formats_.embedding});
    if (packed.ok()) return packed;
    return Explain(spec, packed.status());
  }

  absl::StatusOr<std::unique_ptr<PackedExperts>> Experts(const std::vector<LinearSpec>& specs) {
    ASSIGN_OR_RETURN(const LinearPlan plan, PlanExperts(specs, formats_.linear, formats_.may_keep_stored, source_));
    std::unique_ptr<BuiltWeight> built;
    return device_.ops().experts().Pack(static_cast<int>(specs.size()), [&](int e) -> absl::StatusOr<WeightSource> {
      const LinearSpec& spec = specs[static_cast<size_t>(e)];
      built.reset();
      absl::StatusOr<std::unique_ptr<BuiltWeight>> weight =
          plan.is_stored ? JoinStored(spec) : BuildFloats(spec, plan.kind);
      if (!weight.ok()) return Explain(spec, weight.status());
      built = *std::move(weight);
      return built->source;
    });
  }

  static absl::Status Explain(const LinearSpec& spec, const absl::Status& status) {
    return absl::Status(status.code(), absl::StrCat(spec.parts[0].name, ": ", status.message()));
  }

  absl::StatusOr<std::unique_ptr<PackedWeight>> PackStored(const LinearSpec& spec) {
    ASSIGN_OR_RETURN(const std::unique_ptr<BuiltWeight> stored, JoinStored(spec));
    return device_.ops().Pack(stored->source);
  }

  absl::StatusOr<std::unique_ptr<BuiltWeight>> JoinStored(const LinearSpec& spec) {
    std::vector<std::unique_ptr<BuiltWeight>> parts;
    for (const LinearSpec::Part& part : spec.parts) {
      ASSIGN_OR_RETURN(std::unique_ptr<BuiltWeight> stored, source_.Stored(part.name, part.n, spec.k));
      parts.push_back(std::move(stored));
    }
    return JoinWeights(std::move(parts));
  }

  absl::StatusOr<std::unique_ptr<PackedWeight>> PackFloats(const LinearSpec& spec, const WeightKind& kind) {
    ASSIGN_OR_RETURN(const MatrixRows rows, FloatRows(spec));
    return PackRows(rows, kind, device_.ops());
  }

  absl::StatusOr<std::unique_ptr<BuiltWeight>> BuildFloats(const LinearSpec& spec, const WeightKind& kind) {
    ASSIGN_OR_RETURN(const MatrixRows rows, FloatRows(spec));
    return BuildWeight(rows, kind);
  }

  absl::StatusOr<MatrixRows> FloatRows(const LinearSpec& spec) {
    std::vector<MatrixRows> parts;
    for (const LinearSpec::Part& part : spec.parts) {
      ASSIGN_OR_RETURN(MatrixRows rows, source_.Matrix(part.name + ".weight", part.n, spec.k));
      parts.push_back(std::move(rows));
    }
    return ConcatRows(std::move(parts));
  }

  absl::StatusOr<std::vector<float>> Bias(const LinearSpec& spec) {
    std::vector<float> bias;
    if (!spec.has_bias) return bias;
    for (const LinearSpec::Part& part : spec.parts) {
      ASSIGN_OR_RETURN(const std::vector<float> values, source_.Vector(part.name + ".bias", part.n));
      bias.insert(bias.end(), values.begin(), values.end());
    }
    return bias;
  }

  const ModelInfo& info_;
  const LoadOptions& options_;
  const WeightFormats& formats_;
  TensorSource& source_;
  Device& device_;
};

}  // namespace

absl::StatusOr<ModelWeights> AssembleWeights(const ModelInfo& info, const LoadOptions& options, TensorSource& source,
                                             Device& device) {
  ASSIGN_OR_RETURN(const WeightFormats formats, ChooseWeightFormats(info, options));
  return Assembler(info, options, formats, source, device).Assemble();
}

}  // namespace millrace
