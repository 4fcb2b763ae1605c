// SPDX-License-Identifier: Apache-2.0
#include "engine/load/weight_plan.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "engine/load/model_shape.h"
#include "kernels/status_macros.h"

namespace millrace {
namespace {

constexpr size_t kMaxListed = 8;

size_t BuiltBytes(const WeightKind& kind, int64_t n, int64_t k) {
  const size_t count = static_cast<size_t>(n) * static_cast<size_t>(k);
  if (kind.format == WeightFormat::kDense) return count * DTypeBytes(kind.dtype);
  const size_t num_groups =
      kind.GroupFor(k) > 0 ? count / static_cast<size_t>(kind.GroupFor(k)) : static_cast<size_t>(n);
  return (kind.format == WeightFormat::kInt8 ? count : count / 2) + num_groups * (sizeof(float) + 1);
}

class MemoryCounter {
 public:
  MemoryCounter(const WeightFormats& formats, const Ops& ops, TensorSource& source, int num_ranks)
      : formats_(formats), ops_(ops), source_(source), num_ranks_(num_ranks) {}

  absl::Status Add(const LinearSpec& spec, const WeightKind& wanted) {
    ASSIGN_OR_RETURN(const LinearPlan plan, PlanLinear(spec, wanted, formats_.may_keep_stored, source_));
    return AddPlanned(spec, plan);
  }
  absl::Status AddExperts(const std::vector<LinearSpec>& specs, const WeightKind& wanted) {
    if (specs.empty()) return absl::OkStatus();
    ASSIGN_OR_RETURN(const LinearPlan plan, PlanExperts(specs, wanted, formats_.may_keep_stored, source_));
    for (const LinearSpec& spec : specs) RETURN_IF_ERROR(AddPlanned(spec, plan));
    return absl::OkStatus();
  }
  void AddRouter(const LinearSpec& spec) {
    if (spec.parts.empty()) return;
    AddBytes(ops_.PackedBytes(WeightFormat::kDense, formats_.embedding, spec.n(), spec.k, 0));
  }
  void AddBytes(size_t num_bytes) { memory_.num_bytes += num_bytes; }
  const WeightMemory& memory() const { return memory_; }

 private:
  absl::Status AddPlanned(const LinearSpec& spec, const LinearPlan& plan) {
    const int64_t n = spec.n();
    const WeightKind& kind = plan.kind;
    memory_.num_bytes += ops_.PackedBytes(kind.format, kind.dtype, n, spec.k, kind.GroupFor(spec.k));
    if (spec.has_bias) memory_.num_bytes += static_cast<size_t>(n) * sizeof(float);
    // A rank's part of a stored matrix is cut from the whole.
    const size_t num_cut_from = plan.is_stored && num_ranks_ > 1 ? static_cast<size_t>(num_ranks_) : 0;
    memory_.largest_bytes = std::max(memory_.largest_bytes, (1 + num_cut_from) * BuiltBytes(kind, n, spec.k));
    if (formats_.may_keep_stored && !plan.is_stored) {
      ASSIGN_OR_RETURN(const auto form, source_.FormOf(spec.parts[0].name, spec.parts[0].n, spec.k));
      if (form.has_value()) ++memory_.num_requantized;
    }
    return absl::OkStatus();
  }

  const WeightFormats& formats_;
  const Ops& ops_;
  TensorSource& source_;
  const int num_ranks_;
  WeightMemory memory_;
};

void ListTensors(const LinearSpec& spec, std::vector<std::string>& names) {
  for (const LinearSpec::Part& part : spec.parts) {
    names.push_back(part.name + ".weight");
    if (spec.has_bias) names.push_back(part.name + ".bias");
  }
}

// Mixtral numbers what the others name.
void AddExperts(const ModelInfo& info, const std::string& prefix, LayerSpec& spec) {
  const int64_t c = info.hidden_dim, f = info.experts.ffn_dim;
  const bool is_mixtral = info.architecture == Architecture::kMixtral;
  const std::string moe = prefix + (is_mixtral ? "block_sparse_moe." : "mlp.");
  const char* const gate = is_mixtral ? "w1" : "gate_proj";
  const char* const up = is_mixtral ? "w3" : "up_proj";
  const char* const down = is_mixtral ? "w2" : "down_proj";
  spec.router = {{{moe + "gate", info.experts.num_experts}}, c, false};
  for (int32_t e = 0; e < info.experts.num_experts; ++e) {
    const std::string expert = absl::StrCat(moe, "experts.", e, ".");
    spec.expert_gate_ups.push_back({{{expert + gate, f}, {expert + up, f}}, c, false});
    spec.expert_downs.push_back({{{expert + down, c}}, f, false});
  }
}

}  // namespace

int64_t LinearSpec::n() const {
  int64_t rows = 0;
  for (const Part& part : parts) rows += part.n;
  return rows;
}

std::vector<const LinearSpec*> LayerSpec::Linears() const {
  std::vector<const LinearSpec*> linears = {&qkv, &o};
  if (!gate_up.parts.empty()) linears.insert(linears.end(), {&gate_up, &down});
  for (const auto* experts : {&expert_gate_ups, &expert_downs}) {
    for (const LinearSpec& expert : *experts) linears.push_back(&expert);
  }
  return linears;
}

LayerSpec LayerSpecOf(const ModelInfo& info, int32_t layer) {
  const int64_t c = info.hidden_dim, f = info.ffn_dim;
  const int64_t q = int64_t{info.num_heads} * info.head_dim, kv = int64_t{info.num_kv_heads} * info.head_dim;
  const std::string prefix = absl::StrCat("model.layers.", layer, ".");
  const std::string attn = prefix + "self_attn.", mlp = prefix + "mlp.";
  LayerSpec spec;
  spec.attn_norm = prefix + "input_layernorm.weight";
  spec.mlp_norm = prefix + "post_attention_layernorm.weight";
  if (info.has_qk_norm) {
    spec.q_norm = attn + "q_norm.weight";
    spec.k_norm = attn + "k_norm.weight";
  }
  spec.qkv = {{{attn + "q_proj", q}, {attn + "k_proj", kv}, {attn + "v_proj", kv}}, c, info.has_qkv_bias};
  spec.o = {{{attn + "o_proj", c}}, q, info.has_o_bias};
  if (HasExperts(info, layer)) {
    AddExperts(info, prefix, spec);
    return spec;
  }
  spec.gate_up = {{{mlp + "gate_proj", f}, {mlp + "up_proj", f}}, c, info.has_mlp_bias};
  spec.down = {{{mlp + "down_proj", c}}, f, info.has_mlp_bias};
  return spec;
}

LinearSpec HeadSpecOf(const ModelInfo& info) {
  return {{{info.has_tied_embeddings ? "model.embed_tokens" : "lm_head", info.vocab_tokens}}, info.hidden_dim, false};
}

absl::StatusOr<LinearPlan> PlanLinear(const LinearSpec& spec, const WeightKind& wanted, bool may_keep_stored,
                                      TensorSource& source) {
  if (!may_keep_stored) return LinearPlan{.kind = wanted};
  std::vector<StoredForm> forms;
  for (const LinearSpec::Part& part : spec.parts) {
    ASSIGN_OR_RETURN(const std::optional<StoredForm> form, source.FormOf(part.name, part.n, spec.k));
    if (!form.has_value()) return LinearPlan{.kind = wanted};
    forms.push_back(*form);
  }
  bool are_alike = true, are_exact = true;
  for (const StoredForm& form : forms) {
    are_alike &= form.kind.format == forms[0].kind.format && form.kind.group_size == forms[0].kind.group_size;
    are_exact &= form.is_exact;
  }
  if (are_alike) return LinearPlan{.kind = forms[0].kind, .is_stored = are_exact};
  return LinearPlan{.kind = {.format = WeightFormat::kInt8, .group_size = spec.k % 32 == 0 ? 32 : 0}};
}

absl::StatusOr<LinearPlan> PlanExperts(const std::vector<LinearSpec>& specs, const WeightKind& wanted,
                                       bool may_keep_stored, TensorSource& source) {
  LinearSpec all = {.parts = {}, .k = specs.front().k};
  for (const LinearSpec& spec : specs) all.parts.insert(all.parts.end(), spec.parts.begin(), spec.parts.end());
  return PlanLinear(all, wanted, may_keep_stored, source);
}

absl::Status CheckTensors(const ModelInfo& info, const TensorSource& source) {
  std::vector<std::string> names = {"model.embed_tokens.weight", "model.norm.weight"};
  if (!info.has_tied_embeddings) ListTensors(HeadSpecOf(info), names);
  for (int32_t i = 0; i < info.num_layers; ++i) {
    const LayerSpec spec = LayerSpecOf(info, i);
    for (const std::string& name : {spec.attn_norm, spec.mlp_norm, spec.q_norm, spec.k_norm}) {
      if (!name.empty()) names.push_back(name);
    }
    for (const LinearSpec* linear : spec.Linears()) ListTensors(*linear, names);
    ListTensors(spec.router, names);
  }
  std::vector<std::string> missing;
  for (const std::string& name : names) {
    if (!source.Has(name)) missing.push_back(name);
  }
  if (missing.empty()) return absl::OkStatus();
  const bool lacks_head = missing.size() == 1 && missing[0] == "lm_head.weight";
  const size_t num_missing = missing.size();
  if (missing.size() > kMaxListed) missing.resize(kMaxListed);
  return absl::InvalidArgumentError(
      absl::StrCat(num_missing == 1 ? "a tensor is missing: " : absl::StrCat(num_missing, " tensors are missing: "),
                   absl::StrJoin(missing, ", "), num_missing > kMaxListed ? ", ..." : "",
                   lacks_head ? " (the config says tie_word_embeddings is false)" : ""));
}

absl::StatusOr<WeightMemory> PlanWeights(const ModelInfo& info, const LoadOptions& options, const Ops& ops) {
  ASSIGN_OR_RETURN(const WeightFormats formats, ChooseWeightFormats(info, options));
  ASSIGN_OR_RETURN(const std::unique_ptr<TensorSource> source, OpenTensors(info, options));
  RETURN_IF_ERROR(CheckTensors(info, *source));
  MemoryCounter counter(formats, ops, *source, info.part.num_ranks);
  const size_t c = static_cast<size_t>(info.hidden_dim);
  counter.AddBytes(static_cast<size_t>(info.vocab_tokens) * c * DTypeBytes(formats.embedding) + c * sizeof(float));
  RETURN_IF_ERROR(counter.Add(HeadSpecOf(info), formats.lm_head));
  for (int32_t i = 0; i < info.num_layers; ++i) {
    const LayerSpec spec = LayerSpecOf(info, i);
    counter.AddBytes((2 * c + (info.has_qk_norm ? 2 * static_cast<size_t>(info.head_dim) : 0)) * sizeof(float));
    for (const LinearSpec* linear : {&spec.qkv, &spec.o, &spec.gate_up, &spec.down}) {
      if (!linear->parts.empty()) RETURN_IF_ERROR(counter.Add(*linear, formats.linear));
    }
    counter.AddRouter(spec.router);
    RETURN_IF_ERROR(counter.AddExperts(spec.expert_gate_ups, formats.linear));
    RETURN_IF_ERROR(counter.AddExperts(spec.expert_downs, formats.linear));
  }
  return counter.memory();
}

}  // namespace millrace
