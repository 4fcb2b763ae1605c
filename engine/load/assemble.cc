// SPDX-License-Identifier: Apache-2.0
#include "engine/load/assemble.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "engine/load/weight_formats.h"
#include "kernels/status_macros.h"

namespace millrace {
namespace {

// One of the matrices that a fused weight consists of.
struct Part {
  std::string name;  // without ".weight"
  int64_t n;
};

class Assembler {
 public:
  Assembler(const ModelInfo& info, const LoadOptions& options, const WeightFormats& formats, TensorSource& source,
            Device& device)
      : info_(info), options_(options), formats_(formats), source_(source), device_(device) {}

  absl::StatusOr<ModelWeights> Assemble() {
    ModelWeights weights;
    RETURN_IF_ERROR(Embedding(weights));
    ASSIGN_OR_RETURN(weights.final_norm, source_.Vector("model.norm.weight", info_.hidden_dim));
    const std::string head = info_.has_tied_embeddings ? "model.embed_tokens" : "lm_head";
    ASSIGN_OR_RETURN(weights.lm_head, Linear({{head, info_.vocab_tokens}}, info_.hidden_dim, formats_.lm_head));
    for (int32_t i = 0; i < info_.num_layers; ++i) {
      ASSIGN_OR_RETURN(LayerWeights layer, Layer(absl::StrCat("model.layers.", i, ".")));
      weights.layers.push_back(std::move(layer));
      source_.Release();
      if (options_.on_progress) options_.on_progress("loading weights", static_cast<double>(i + 1) / info_.num_layers);
    }
    return weights;
  }

 private:
  absl::Status Embedding(ModelWeights& weights) {
    ASSIGN_OR_RETURN(const MatrixRows rows,
                     source_.Matrix("model.embed_tokens.weight", info_.vocab_tokens, info_.hidden_dim));
    std::shared_ptr<BuiltWeight> table =
        BuildWeight(rows, {.format = WeightFormat::kDense, .dtype = formats_.embedding});
    weights.embedding = {.data = table->values.data(),
                         .dtype = formats_.embedding,
                         .rows = info_.vocab_tokens,
                         .cols = info_.hidden_dim,
                         .stride = info_.hidden_dim};
    weights.memory.push_back(std::move(table));
    return absl::OkStatus();
  }

  absl::StatusOr<LayerWeights> Layer(const std::string& prefix) {
    LayerWeights layer;
    const int64_t c = info_.hidden_dim, f = info_.ffn_dim;
    const int64_t q = int64_t{info_.num_heads} * info_.head_dim, kv = int64_t{info_.num_kv_heads} * info_.head_dim;
    const std::string attn = prefix + "self_attn.", mlp = prefix + "mlp.";
    ASSIGN_OR_RETURN(layer.attn_norm, source_.Vector(prefix + "input_layernorm.weight", c));
    ASSIGN_OR_RETURN(layer.mlp_norm, source_.Vector(prefix + "post_attention_layernorm.weight", c));
    if (info_.has_qk_norm) {
      ASSIGN_OR_RETURN(layer.q_norm, source_.Vector(attn + "q_norm.weight", info_.head_dim));
      ASSIGN_OR_RETURN(layer.k_norm, source_.Vector(attn + "k_norm.weight", info_.head_dim));
    }
    const std::vector<Part> qkv = {{attn + "q_proj", q}, {attn + "k_proj", kv}, {attn + "v_proj", kv}};
    const std::vector<Part> o = {{attn + "o_proj", c}};
    const std::vector<Part> gate_up = {{mlp + "gate_proj", f}, {mlp + "up_proj", f}};
    const std::vector<Part> down = {{mlp + "down_proj", c}};
    ASSIGN_OR_RETURN(layer.qkv, Linear(qkv, c, formats_.linear));
    ASSIGN_OR_RETURN(layer.o, Linear(o, q, formats_.linear));
    ASSIGN_OR_RETURN(layer.gate_up, Linear(gate_up, c, formats_.linear));
    ASSIGN_OR_RETURN(layer.down, Linear(down, f, formats_.linear));
    if (info_.has_qkv_bias) {
      ASSIGN_OR_RETURN(layer.qkv_bias, Bias(qkv));
    }
    if (info_.has_o_bias) {
      ASSIGN_OR_RETURN(layer.o_bias, Bias(o));
    }
    if (info_.has_mlp_bias) {
      ASSIGN_OR_RETURN(layer.gate_up_bias, Bias(gate_up));
      ASSIGN_OR_RETURN(layer.down_bias, Bias(down));
    }
    return layer;
  }

  absl::StatusOr<std::unique_ptr<PackedWeight>> Linear(const std::vector<Part>& parts, int64_t k,
                                                       const WeightKind& kind) {
    std::vector<std::unique_ptr<BuiltWeight>> stored;
    std::vector<MatrixRows> rows;
    for (const Part& part : parts) {
      ASSIGN_OR_RETURN(std::unique_ptr<BuiltWeight> built, source_.Stored(part.name, part.n, k));
      if (built != nullptr) {
        stored.push_back(std::move(built));
        continue;
      }
      ASSIGN_OR_RETURN(MatrixRows part_rows, source_.Matrix(part.name + ".weight", part.n, k));
      rows.push_back(std::move(part_rows));
    }
    if (stored.empty()) return PackRows(ConcatRows(std::move(rows)), kind, device_.ops());
    if (!rows.empty()) {
      return absl::UnimplementedError(absl::StrCat(parts[0].name, ": fused with a matrix that is stored differently"));
    }
    ASSIGN_OR_RETURN(const std::unique_ptr<BuiltWeight> joined, JoinStored(std::move(stored), parts[0].name));
    return device_.ops().Pack(joined->source);
  }

  absl::StatusOr<std::vector<float>> Bias(const std::vector<Part>& parts) {
    std::vector<float> bias;
    for (const Part& part : parts) {
      ASSIGN_OR_RETURN(const std::vector<float> values, source_.Vector(part.name + ".bias", part.n));
      bias.insert(bias.end(), values.begin(), values.end());
    }
    return bias;
  }

  static absl::StatusOr<std::unique_ptr<BuiltWeight>> JoinStored(std::vector<std::unique_ptr<BuiltWeight>> parts,
                                                                 const std::string& name) {
    std::unique_ptr<BuiltWeight> joined = std::move(parts[0]);
    for (size_t i = 1; i < parts.size(); ++i) {
      const BuiltWeight& part = *parts[i];
      if (part.source.format != joined->source.format || part.source.group_size != joined->source.group_size ||
          part.zeros.empty() != joined->zeros.empty()) {
        return absl::UnimplementedError(absl::StrCat(name, ": the matrices fused with it are quantised differently"));
      }
      joined->values.insert(joined->values.end(), part.values.begin(), part.values.end());
      joined->scales.insert(joined->scales.end(), part.scales.begin(), part.scales.end());
      joined->zeros.insert(joined->zeros.end(), part.zeros.begin(), part.zeros.end());
      joined->source.n += part.source.n;
    }
    joined->source.values = joined->values.data();
    joined->source.scales = joined->scales.data();
    joined->source.zeros = joined->zeros.empty() ? nullptr : joined->zeros.data();
    return joined;
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
