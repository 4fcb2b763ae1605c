// SPDX-License-Identifier: Apache-2.0
#include "engine/load/hf_config.h"

#include <simdjson.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <optional>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "engine/load/model_shape.h"
#include "kernels/status_macros.h"

namespace millrace {
namespace {

using simdjson::dom::element;
using simdjson::dom::object;

constexpr size_t kMaxConfigBytes = 8u << 20;
constexpr size_t kMaxDepth = 32;

// Reads fields of one JSON object; the first fault stays in status().
class Fields {
 public:
  explicit Fields(object fields) : fields_(fields) {}
  const absl::Status& status() const { return status_; }
  void Fail(std::string_view name, const std::string& what) {
    if (status_.ok())
      status_ = absl::InvalidArgumentError(absl::StrCat("config.json: ", std::string(name), ": ", what));
  }
  bool Find(std::string_view name, element& value) const {
    return fields_[name].get(value) == simdjson::SUCCESS && !value.is_null();
  }
  int32_t Int(std::string_view name, int32_t fallback, int32_t low, int32_t high) {
    element value;
    if (!Find(name, value)) return fallback;
    int64_t number = 0;
    if (value.get(number) != simdjson::SUCCESS) return Fail(name, "not a whole number"), fallback;
    if (number < low || number > high) {
      return Fail(name, absl::StrCat(number, " is outside [", low, ", ", high, "]")), fallback;
    }
    return static_cast<int32_t>(number);
  }
  int32_t Required(std::string_view name, int32_t low, int32_t high) {
    element value;
    if (!Find(name, value)) return Fail(name, "missing"), low;
    return Int(name, low, low, high);
  }
  double Number(std::string_view name, double fallback, double low, double high) {
    element value;
    if (!Find(name, value)) return fallback;
    double number = 0;
    if (value.get(number) != simdjson::SUCCESS) return Fail(name, "not a number"), fallback;
    if (!(number >= low && number <= high)) {
      return Fail(name, absl::StrCat(number, " is outside [", low, ", ", high, "]")), fallback;
    }
    return number;
  }
  bool Bool(std::string_view name, bool fallback) {
    element value;
    if (!Find(name, value)) return fallback;
    bool flag = fallback;
    if (value.get(flag) != simdjson::SUCCESS) Fail(name, "neither true nor false");
    return flag;
  }
  std::string String(std::string_view name, std::string fallback) {
    element value;
    if (!Find(name, value)) return fallback;
    std::string_view text;
    if (value.get(text) != simdjson::SUCCESS) return Fail(name, "not a string"), fallback;
    return std::string(text);
  }
  // A number or a list of numbers below `vocab_tokens`.
  std::vector<int32_t> Ids(std::string_view name, int32_t vocab_tokens) {
    std::vector<int32_t> ids;
    element value;
    if (!Find(name, value)) return ids;
    int64_t id = 0;
    simdjson::dom::array list;
    const auto add = [&] {
      if (id >= vocab_tokens) Fail(name, absl::StrCat(id, " is outside the vocabulary of ", vocab_tokens));
      if (id >= 0 && id < vocab_tokens) ids.push_back(static_cast<int32_t>(id));  // -1 means none
    };
    if (value.get(id) == simdjson::SUCCESS) {
      add();
    } else if (value.get(list) == simdjson::SUCCESS) {
      for (const element item : list) {
        if (item.get(id) != simdjson::SUCCESS || ids.size() == 256) return Fail(name, "not a list of ids"), ids;
        add();
      }
    } else {
      Fail(name, "neither an id nor a list of ids");
    }
    return ids;
  }
  // A list of at most `high` numbers in [0, high); empty when absent.
  std::vector<int32_t> Indices(std::string_view name, int32_t high) {
    std::vector<int32_t> indices;
    element value;
    simdjson::dom::array list;
    if (!Find(name, value)) return indices;
    if (value.get(list) != simdjson::SUCCESS) return Fail(name, "not a list"), indices;
    for (const element item : list) {
      int64_t index = 0;
      if (item.get(index) != simdjson::SUCCESS || index < 0 || index >= high ||
          indices.size() == static_cast<size_t>(high)) {
        return Fail(name, absl::StrCat("not a list of at most ", high, " numbers below ", high)), indices;
      }
      indices.push_back(static_cast<int32_t>(index));
    }
    return indices;
  }
  template <typename T>
  void Optional(std::string_view name, std::optional<T>& out, double low, double high) {
    element value;
    if (Find(name, value)) out = static_cast<T>(Number(name, 0, low, high));
  }

 private:
  object fields_;
  absl::Status status_;
};

absl::StatusOr<object> ParseObject(std::string_view json, simdjson::dom::parser& parser, std::string_view file) {
  if (json.size() > kMaxConfigBytes) return absl::InvalidArgumentError(absl::StrCat(std::string(file), ": too large"));
  element root;
  object fields;
  simdjson::error_code error = parser.allocate(std::max<size_t>(json.size(), 64), kMaxDepth);
  if (error == simdjson::SUCCESS) error = parser.parse(simdjson::padded_string(json)).get(root);
  if (error == simdjson::SUCCESS) error = root.get(fields);
  if (error != simdjson::SUCCESS) {
    return absl::InvalidArgumentError(absl::StrCat(std::string(file), ": ", simdjson::error_message(error)));
  }
  return fields;
}

constexpr std::pair<std::string_view, Architecture> kArchitectures[] = {
    {"LlamaForCausalLM", Architecture::kLlama},       {"MistralForCausalLM", Architecture::kMistral},
    {"Qwen2ForCausalLM", Architecture::kQwen2},       {"Qwen3ForCausalLM", Architecture::kQwen3},
    {"Qwen3MoeForCausalLM", Architecture::kQwen3Moe}, {"MixtralForCausalLM", Architecture::kMixtral},
};

absl::Status ParseArchitecture(const Fields& fields, ModelInfo& info) {
  element list;
  std::string_view name;
  if (fields.Find("architectures", list) && list.at(0).get(name) == simdjson::SUCCESS) {
    info.architecture_name = std::string(name);
  }
  for (const auto& [known, architecture] : kArchitectures) {
    if (name != known) continue;
    info.architecture = architecture;
    return absl::OkStatus();
  }
  return absl::UnimplementedError(absl::StrCat("config.json: architecture '", info.architecture_name.substr(0, 100),
                                               "' is not supported; supported: LlamaForCausalLM, MistralForCausalLM, "
                                               "Qwen2ForCausalLM, Qwen3ForCausalLM, Qwen3MoeForCausalLM, "
                                               "MixtralForCausalLM"));
}

// Reads the fields of a mixture of experts; the others must have been read.
void ParseExperts(Fields& fields, ModelInfo& info) {
  ExpertParams& experts = info.experts;
  const bool is_qwen = info.architecture == Architecture::kQwen3Moe;
  if (!is_qwen && info.architecture != Architecture::kMixtral) return;
  element value;
  // Newer releases of transformers write Qwen's number under Mixtral's name.
  const bool has_own_name = is_qwen && fields.Find("num_experts", value);
  experts.num_experts = fields.Required(has_own_name ? "num_experts" : "num_local_experts", 1, 1 << 16);
  experts.num_choices = fields.Required("num_experts_per_tok", 1, 1 << 16);
  experts.ffn_dim = is_qwen ? fields.Required("moe_intermediate_size", 1, 1 << 20) : info.ffn_dim;
  if (!is_qwen) return;
  experts.is_normalized = fields.Bool("norm_topk_prob", false);
  const int32_t step = fields.Int("decoder_sparse_step", 1, 1, 1 << 16);
  experts.dense_layers = fields.Indices("mlp_only_layers", info.num_layers);
  for (int32_t i = 0; i < info.num_layers; ++i) {
    if ((i + 1) % step != 0) experts.dense_layers.push_back(i);
  }
}

// The attention factor by DeepSeek's two fields; 0 where they are absent: the usual one.
double YarnMscale(Fields& scaling, double factor) {
  const double numerator = scaling.Number("mscale", 0, 0, 1e3),
               denominator = scaling.Number("mscale_all_dim", 0, 0, 1e3);
  if (numerator == 0 || denominator == 0 || factor <= 1) return 0;
  return (0.1 * numerator * std::log(factor) + 1) / (0.1 * denominator * std::log(factor) + 1);
}

absl::Status ParseRope(Fields& fields, ModelInfo& info) {
  RopeParams& rope = info.rope;
  rope.theta = fields.Number("rope_theta", 10000.0, 1.0, 1e12);
  element value;
  if (!fields.Find("rope_parameters", value) && !fields.Find("rope_scaling", value)) return absl::OkStatus();
  object scaling_fields;
  if (value.get(scaling_fields) != simdjson::SUCCESS) {
    return absl::InvalidArgumentError("config.json: rope_scaling: not an object");
  }
  Fields scaling(scaling_fields);
  rope.theta = scaling.Number("rope_theta", rope.theta, 1.0, 1e12);
  const std::string type = scaling.String("rope_type", scaling.String("type", "default"));
  rope.factor = scaling.Number("factor", 1.0, 1e-3, 1e4);
  rope.original_max_positions =
      scaling.Number("original_max_position_embeddings", info.max_positions, 1, std::numeric_limits<int32_t>::max());
  rope.low_freq_factor = scaling.Number("low_freq_factor", 1.0, 1e-3, 1e4);
  rope.high_freq_factor = scaling.Number("high_freq_factor", 4.0, 1e-3, 1e4);
  rope.beta_fast = scaling.Number("beta_fast", 32.0, 1e-3, 1e4);
  rope.beta_slow = scaling.Number("beta_slow", 1.0, 1e-3, 1e4);
  rope.attention_factor = scaling.Number("attention_factor", YarnMscale(scaling, rope.factor), 0.0, 1e3);
  if (type == "linear") {
    rope.scaling = RopeScaling::kLinear;
  } else if (type == "llama3") {
    rope.scaling = RopeScaling::kLlama3;
    if (rope.high_freq_factor == rope.low_freq_factor) scaling.Fail("high_freq_factor", "equals low_freq_factor");
  } else if (type == "yarn") {
    rope.scaling = RopeScaling::kYarn;
    if (!scaling.Bool("truncate", true)) {
      return absl::UnimplementedError("config.json: rope_scaling: yarn with truncate false is not supported");
    }
    // The scaled reach, where the config still tells the original one.
    const double reach = std::min(rope.original_max_positions * rope.factor, 16777216.0);
    info.max_positions = std::max(info.max_positions, static_cast<int32_t>(reach));
  } else if (type != "default") {
    return absl::UnimplementedError(absl::StrCat("config.json: rope type '", type.substr(0, 50),
                                                 "' is not supported; supported: default, linear, llama3, yarn"));
  }
  return scaling.status();
}

// "full_attention" or "sliding_attention" of every layer: whether all slide; nothing when the list is absent.
absl::StatusOr<std::optional<bool>> AllLayersSlide(const Fields& fields) {
  element value;
  simdjson::dom::array list;
  if (!fields.Find("layer_types", value)) return std::nullopt;
  if (value.get(list) != simdjson::SUCCESS) return absl::InvalidArgumentError("config.json: layer_types: not a list");
  size_t num_sliding = 0, num_full = 0;
  for (const element item : list) {
    std::string_view type;
    if (item.get(type) != simdjson::SUCCESS) type = "";
    num_sliding += type == "sliding_attention";
    num_full += type == "full_attention";
    if (type != "sliding_attention" && type != "full_attention") {
      return absl::UnimplementedError(
          absl::StrCat("config.json: layer type '", std::string(type.substr(0, 50)), "' is not supported"));
    }
  }
  if (num_sliding > 0 && num_full > 0) {
    return absl::UnimplementedError("config.json: a sliding window on some layers only is not supported");
  }
  return num_sliding > 0;
}

absl::Status ParseWindow(Fields& fields, ModelInfo& info) {
  const int32_t window = fields.Int("sliding_window", 0, 0, std::numeric_limits<int32_t>::max());
  const bool is_moe = info.architecture == Architecture::kQwen3Moe;
  const bool is_qwen = info.architecture == Architecture::kQwen2 || info.architecture == Architecture::kQwen3 || is_moe;
  ASSIGN_OR_RETURN(const std::optional<bool> all_slide, AllLayersSlide(fields));
  // The Llama of transformers has no window, whatever its config says.
  if (window == 0 || info.architecture == Architecture::kLlama || !all_slide.value_or(true)) return absl::OkStatus();
  if (is_qwen) {
    if (!fields.Bool("use_sliding_window", false)) return absl::OkStatus();
    // Layers from max_window_layers on slide; the mixture of experts knows no such field.
    const int32_t first_sliding = is_moe ? 0 : fields.Int("max_window_layers", 28, 0, 1 << 20);
    if (!all_slide.has_value() && first_sliding >= info.num_layers) return absl::OkStatus();
    if (!all_slide.has_value() && first_sliding > 0) {
      return absl::UnimplementedError("config.json: a sliding window on some layers only is not supported");
    }
  }
  info.window_tokens = window;
  return absl::OkStatus();
}

absl::Status ParseQuantization(const Fields& fields, ModelInfo& info) {
  element value;
  object quantization_fields;
  if (!fields.Find("quantization_config", value)) return absl::OkStatus();
  if (value.get(quantization_fields) != simdjson::SUCCESS) {
    return absl::InvalidArgumentError("config.json: quantization_config: not an object");
  }
  Fields quantization(quantization_fields);
  CheckpointQuantization& out = info.quantization;
  const std::string method = quantization.String("quant_method", "");
  out.bits = quantization.Int("bits", quantization.Int("w_bit", 4, 1, 16), 1, 16);
  out.group_size = quantization.Int("group_size", quantization.Int("q_group_size", 128, -1, 4096), -1, 4096);
  out.is_symmetric = quantization.Bool("sym", !quantization.Bool("zero_point", false));
  out.uses_activation_order = quantization.Bool("desc_act", false);
  if ((method == "gptq" || method == "awq") && out.bits != 4) {
    return absl::UnimplementedError(absl::StrCat("config.json: quantization_config: ", method, " with ", out.bits,
                                                 " bits is not supported; 4 are"));
  }
  if (method == "gptq") {
    out.method = CheckpointQuantization::Method::kGptq;
    out.has_true_zeros = quantization.String("checkpoint_format", "gptq") == "gptq_v2";
  } else if (method == "awq") {
    out.method = CheckpointQuantization::Method::kAwq;
    const std::string version = quantization.String("version", "gemm");
    if (version != "gemm" && version != "GEMM") {
      return absl::UnimplementedError(absl::StrCat("config.json: quantization_config: AWQ version '",
                                                   version.substr(0, 50), "' is not supported; supported: gemm"));
    }
  } else if (method == "millrace") {
    out.method = CheckpointQuantization::Method::kMillrace;
  } else {
    return absl::UnimplementedError(absl::StrCat("config.json: quant_method '", method.substr(0, 50),
                                                 "' is not supported; supported: gptq, awq (4 bits), millrace"));
  }
  return quantization.status();
}

}  // namespace

absl::StatusOr<ModelInfo> ParseModelConfig(std::string_view config_json) {
  simdjson::dom::parser parser;
  ASSIGN_OR_RETURN(const object root, ParseObject(config_json, parser, "config.json"));
  Fields fields(root);
  ModelInfo info;
  RETURN_IF_ERROR(ParseArchitecture(fields, info));
  info.num_layers = fields.Required("num_hidden_layers", 1, 1024);
  info.hidden_dim = fields.Required("hidden_size", 1, 1 << 17);
  info.ffn_dim = fields.Required("intermediate_size", 1, 1 << 20);
  info.num_heads = fields.Required("num_attention_heads", 1, 1024);
  info.num_kv_heads = fields.Int("num_key_value_heads", info.num_heads, 1, 1024);
  const int32_t implied_head_dim =
      info.architecture == Architecture::kQwen3 ? 128 : std::clamp(info.hidden_dim / info.num_heads, 1, 512);
  info.head_dim = fields.Int("head_dim", implied_head_dim, 1, 512);
  info.vocab_tokens = fields.Required("vocab_size", 1, 1 << 22);
  info.max_positions = fields.Int("max_position_embeddings", 2048, 1, 1 << 24);
  info.norm_eps = static_cast<float>(fields.Number("rms_norm_eps", 1e-6, 0, 1));
  info.has_tied_embeddings = fields.Bool("tie_word_embeddings", false);
  const bool has_bias = fields.Bool("attention_bias", false);
  const bool is_llama = info.architecture == Architecture::kLlama;
  info.has_qk_norm = info.architecture == Architecture::kQwen3 || info.architecture == Architecture::kQwen3Moe;
  info.has_o_bias = has_bias && (is_llama || info.has_qk_norm);
  info.has_qkv_bias = info.has_o_bias || info.architecture == Architecture::kQwen2;
  info.has_mlp_bias = is_llama && fields.Bool("mlp_bias", false);
  info.dtype_name = fields.String("torch_dtype", fields.String("dtype", "bfloat16"));
  info.eos_token_ids = fields.Ids("eos_token_id", info.vocab_tokens);
  for (const int32_t id : fields.Ids("bos_token_id", info.vocab_tokens)) info.bos_token_id = id;
  for (const int32_t id : fields.Ids("pad_token_id", info.vocab_tokens)) info.pad_token_id = id;
  const std::string activation = fields.String("hidden_act", "silu");
  if (fields.Number("partial_rotary_factor", 1.0, 0, 1) != 1.0) {
    return absl::UnimplementedError("config.json: partial_rotary_factor other than 1 is not supported");
  }
  if (activation != "silu") fields.Fail("hidden_act", "only silu is supported");
  ParseExperts(fields, info);
  RETURN_IF_ERROR(fields.status());
  if (absl::Status status = CheckShape(info); !status.ok()) {
    return absl::Status(status.code(), absl::StrCat("config.json: ", status.message()));
  }
  RETURN_IF_ERROR(ParseRope(fields, info));
  RETURN_IF_ERROR(ParseWindow(fields, info));
  RETURN_IF_ERROR(ParseQuantization(fields, info));
  RETURN_IF_ERROR(fields.status());
  info.num_parameters = CountParameters(info);
  return info;
}

absl::Status ParseGenerationConfig(std::string_view generation_config_json, ModelInfo& info) {
  simdjson::dom::parser parser;
  ASSIGN_OR_RETURN(const object root, ParseObject(generation_config_json, parser, "generation_config.json"));
  Fields fields(root);
  if (const auto ids = fields.Ids("eos_token_id", info.vocab_tokens); !ids.empty()) info.eos_token_ids = ids;
  fields.Optional("temperature", info.default_temperature, 0, 2);
  fields.Optional("top_p", info.default_top_p, 1e-6, 1);
  fields.Optional("min_p", info.default_min_p, 0, 1);
  fields.Optional("top_k", info.default_top_k, -1, 1 << 22);
  fields.Optional("repetition_penalty", info.default_repetition_penalty, 1e-3, 2);
  // Greedy decoding as the maker's choice.
  if (!fields.Bool("do_sample", true)) info.default_temperature = 0.0f;
  return fields.status();
}

}  // namespace millrace
