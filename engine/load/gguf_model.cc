// SPDX-License-Identifier: Apache-2.0
#include "engine/load/gguf_model.h"

#include <algorithm>
#include <limits>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "engine/load/float_tensor.h"
#include "engine/load/mapped_file.h"
#include "engine/load/model_shape.h"
#include "kernels/status_macros.h"

namespace millrace {
namespace {

struct Range {
  int64_t low;
  int64_t high;
};

constexpr Range kAnyPositive = {1, std::numeric_limits<int32_t>::max()};

// Reads keys below the architecture's prefix into a ModelInfo.
class InfoReader {
 public:
  InfoReader(const GgufFile& file, ModelInfo& info) : file_(file), info_(info) {}

  absl::Status Read() {
    RETURN_IF_ERROR(ReadArchitecture());
    RETURN_IF_ERROR(ReadSizes());
    RETURN_IF_ERROR(ReadExperts());
    RETURN_IF_ERROR(ReadHeads());
    RETURN_IF_ERROR(ReadRope());
    RETURN_IF_ERROR(ReadScaling());
    ReadTensors();
    RETURN_IF_ERROR(ReadTokenIds());
    RETURN_IF_ERROR(CheckShape(info_));
    info_.num_parameters = CountParameters(info_);
    return absl::OkStatus();
  }

 private:
  std::string Key(const char* name) const { return absl::StrCat(prefix_, ".", name); }

  absl::StatusOr<int32_t> Int(const char* name, std::optional<int64_t> fallback, Range range) const {
    ASSIGN_OR_RETURN(const std::optional<int64_t> found, file_.Int(Key(name)));
    const std::optional<int64_t> value = found.has_value() ? found : fallback;
    if (!value.has_value()) return absl::InvalidArgumentError(absl::StrCat("GGUF: key '", Key(name), "' is missing"));
    if (*value < range.low || *value > range.high) {
      return absl::InvalidArgumentError(
          absl::StrCat("GGUF: key '", Key(name), "': ", *value, " is outside [", range.low, ", ", range.high, "]"));
    }
    return static_cast<int32_t>(*value);
  }
  absl::StatusOr<double> Number(const char* name, double fallback, double low, double high) const {
    ASSIGN_OR_RETURN(const std::optional<double> found, file_.Number(Key(name)));
    const double value = found.value_or(fallback);
    if (value >= low && value <= high) return value;
    return absl::InvalidArgumentError(
        absl::StrCat("GGUF: key '", Key(name), "': ", value, " is outside [", low, ", ", high, "]"));
  }

  absl::Status ReadArchitecture() {
    ASSIGN_OR_RETURN(const std::optional<std::string> name, file_.String("general.architecture"));
    prefix_ = name.value_or("");
    if (prefix_ == "llama") {
      info_.architecture = Architecture::kLlama;
      info_.architecture_name = "LlamaForCausalLM";
      info_.rope.interleaved = true;
    } else if (prefix_ == "qwen2") {
      info_.architecture = Architecture::kQwen2;
      info_.architecture_name = "Qwen2ForCausalLM";
    } else if (prefix_ == "qwen3") {
      info_.architecture = Architecture::kQwen3;
      info_.architecture_name = "Qwen3ForCausalLM";
    } else if (prefix_ == "qwen3moe") {
      info_.architecture = Architecture::kQwen3Moe;
      info_.architecture_name = "Qwen3MoeForCausalLM";
    } else {
      return absl::UnimplementedError(absl::StrCat("GGUF: architecture '", prefix_.substr(0, 50),
                                                   "' is not supported; supported: llama, qwen2, qwen3, qwen3moe"));
    }
    ASSIGN_OR_RETURN(const int32_t num_splits, IntAt("split.count", 1));
    if (num_splits > 1) {
      return absl::UnimplementedError(
          absl::StrCat("GGUF: one of ", num_splits, " files of a split model; merge them into one file"));
    }
    return absl::OkStatus();
  }

  // Mixtral's files are of architecture llama.
  absl::Status ReadExperts() {
    ExpertParams& experts = info_.experts;
    const bool is_qwen = info_.architecture == Architecture::kQwen3Moe;
    ASSIGN_OR_RETURN(experts.num_experts, Int("expert_count", is_qwen ? std::nullopt : std::optional<int64_t>(0),
                                              {is_qwen ? 1 : 0, kAnyPositive.high}));
    if (experts.num_experts == 0) return absl::OkStatus();
    if (info_.architecture == Architecture::kLlama) {
      info_.architecture = Architecture::kMixtral;
      info_.architecture_name = "MixtralForCausalLM";
    } else if (!is_qwen) {
      return absl::UnimplementedError(absl::StrCat("GGUF: experts in architecture '", prefix_, "' are not supported"));
    }
    ASSIGN_OR_RETURN(experts.num_choices, Int("expert_used_count", std::nullopt, kAnyPositive));
    ASSIGN_OR_RETURN(experts.ffn_dim,
                     Int("expert_feed_forward_length", is_qwen ? std::nullopt : std::optional<int64_t>(info_.ffn_dim),
                         {1, 1 << 20}));
    return absl::OkStatus();
  }

  absl::StatusOr<int32_t> IntAt(const std::string& key, int32_t fallback) const {
    ASSIGN_OR_RETURN(const std::optional<int64_t> value, file_.Int(key));
    return static_cast<int32_t>(std::clamp<int64_t>(value.value_or(fallback), 0, kAnyPositive.high));
  }

  absl::Status ReadSizes() {
    ASSIGN_OR_RETURN(info_.num_layers, Int("block_count", std::nullopt, {1, 1024}));
    ASSIGN_OR_RETURN(info_.hidden_dim, Int("embedding_length", std::nullopt, {1, 1 << 17}));
    ASSIGN_OR_RETURN(info_.ffn_dim, Int("feed_forward_length", std::nullopt, {1, 1 << 20}));
    ASSIGN_OR_RETURN(info_.max_positions, Int("context_length", 2048, {1, 1 << 24}));
    ASSIGN_OR_RETURN(const double eps, Number("attention.layer_norm_rms_epsilon", 1e-6, 0, 1));
    info_.norm_eps = static_cast<float>(eps);
    const auto embedding = file_.tensors.find("token_embd.weight");
    if (embedding == file_.tensors.end() || embedding->second.shape.size() != 2 ||
        embedding->second.shape[0] > (1 << 22)) {
      return absl::InvalidArgumentError("GGUF: tensor token_embd.weight is missing or no matrix");
    }
    info_.vocab_tokens = static_cast<int32_t>(embedding->second.shape[0]);
    return absl::OkStatus();
  }

  absl::Status ReadHeads() {
    ASSIGN_OR_RETURN(info_.num_heads, Int("attention.head_count", std::nullopt, {1, 1024}));
    ASSIGN_OR_RETURN(info_.num_kv_heads, Int("attention.head_count_kv", info_.num_heads, {1, 1024}));
    const int64_t implied = std::max(info_.hidden_dim / info_.num_heads, 1);
    ASSIGN_OR_RETURN(info_.head_dim, Int("attention.key_length", implied, {1, 512}));
    ASSIGN_OR_RETURN(const int32_t value_length, Int("attention.value_length", info_.head_dim, {1, 512}));
    if (value_length != info_.head_dim) {
      return absl::UnimplementedError(
          absl::StrCat("GGUF: keys of ", info_.head_dim, " and values of ", value_length, " a head are not supported"));
    }
    ASSIGN_OR_RETURN(info_.window_tokens, Int("attention.sliding_window", 0, {0, kAnyPositive.high}));
    return absl::OkStatus();
  }

  absl::Status ReadRope() {
    ASSIGN_OR_RETURN(info_.rope.theta, Number("rope.freq_base", 10000.0, 1.0, 1e12));
    ASSIGN_OR_RETURN(const int32_t rotary_dim, Int("rope.dimension_count", info_.head_dim, {0, 512}));
    if (rotary_dim != info_.head_dim) {
      return absl::UnimplementedError(absl::StrCat("GGUF: rotating ", rotary_dim, " of ", info_.head_dim,
                                                   " dimensions of a head is not supported"));
    }
    const auto found = file_.tensors.find("rope_freqs.weight");
    if (found == file_.tensors.end()) return absl::OkStatus();
    const GgufTensor& divisors = found->second;
    if (divisors.type != GgmlType::kF32 || divisors.shape != std::vector<int64_t>{info_.head_dim / 2}) {
      return absl::InvalidArgumentError(
          absl::StrCat("GGUF: tensor rope_freqs.weight is not F32 [", info_.head_dim / 2, "]"));
    }
    info_.rope.frequency_divisors = FloatVector(divisors.data, DType::kF32, info_.head_dim / 2);
    for (const float divisor : info_.rope.frequency_divisors) {
      if (!(divisor > 1e-3f && divisor < 1e6f)) {
        return absl::InvalidArgumentError(absl::StrCat("GGUF: tensor rope_freqs.weight holds ", divisor));
      }
    }
    return absl::OkStatus();
  }

  absl::Status ReadScaling() {
    RopeParams& rope = info_.rope;
    ASSIGN_OR_RETURN(const std::optional<std::string> type, file_.String(Key("rope.scaling.type")));
    ASSIGN_OR_RETURN(rope.factor, Number("rope.scaling.factor", 1.0, 1e-3, 1e4));
    ASSIGN_OR_RETURN(rope.original_max_positions,
                     Number("rope.scaling.original_context_length", info_.max_positions, 1, kAnyPositive.high));
    ASSIGN_OR_RETURN(rope.attention_factor, Number("rope.scaling.attn_factor", 0, 0, 1e3));
    const std::string name = type.value_or("none");
    if (name == "linear") {
      rope.scaling = RopeScaling::kLinear;
    } else if (name == "yarn") {
      rope.scaling = RopeScaling::kYarn;
    } else if (name != "none") {
      return absl::UnimplementedError(absl::StrCat("GGUF: rope scaling '", name.substr(0, 50),
                                                   "' is not supported; supported: none, linear, yarn"));
    }
    return absl::OkStatus();
  }

  // What the presence of tensors says.
  void ReadTensors() {
    const auto has = [&](const char* name) { return file_.tensors.contains(name); };
    info_.has_tied_embeddings = !has("output.weight");
    info_.has_qkv_bias = has("blk.0.attn_q.bias");
    info_.has_o_bias = has("blk.0.attn_output.bias");
    info_.has_mlp_bias = has("blk.0.ffn_down.bias");
    info_.has_qk_norm = has("blk.0.attn_q_norm.weight") || info_.architecture == Architecture::kQwen3 ||
                        info_.architecture == Architecture::kQwen3Moe;
    const auto linear =
        file_.tensors.find(HasExperts(info_, 0) ? "blk.0.ffn_down_exps.weight" : "blk.0.ffn_down.weight");
    const GgmlType type = linear == file_.tensors.end() ? GgmlType::kF16 : linear->second.type;
    info_.dtype_name = type == GgmlType::kF32 ? "float32" : type == GgmlType::kBF16 ? "bfloat16" : "float16";
    info_.weights_name = absl::StrCat("GGUF ", std::string(GgmlTypeName(type)));
  }

  absl::Status ReadTokenIds() {
    const std::string prefix = "tokenizer.ggml.";
    for (const char* name : {"eos_token_id", "eot_token_id", "eom_token_id"}) {
      ASSIGN_OR_RETURN(const std::optional<int64_t> id, file_.Int(prefix + name));
      AddEos(id.value_or(-1));
    }
    ASSIGN_OR_RETURN(const std::optional<int64_t> bos, file_.Int(prefix + "bos_token_id"));
    ASSIGN_OR_RETURN(const std::optional<int64_t> pad, file_.Int(prefix + "padding_token_id"));
    if (bos.has_value() && *bos >= 0 && *bos < info_.vocab_tokens) info_.bos_token_id = static_cast<int32_t>(*bos);
    if (pad.has_value() && *pad >= 0 && *pad < info_.vocab_tokens) info_.pad_token_id = static_cast<int32_t>(*pad);
    // Files name one end only; the turn's end of a chat model is known by its name.
    ASSIGN_OR_RETURN(const std::vector<std::string> tokens, file_.Strings(prefix + "tokens"));
    for (size_t id = 0; id < tokens.size(); ++id) {
      if (tokens[id] == "<|eot_id|>" || tokens[id] == "<|im_end|>" || tokens[id] == "<|eom_id|>") {
        AddEos(static_cast<int64_t>(id));
      }
    }
    return absl::OkStatus();
  }

  void AddEos(int64_t id) {
    std::vector<int32_t>& ids = info_.eos_token_ids;
    if (id < 0 || id >= info_.vocab_tokens || std::find(ids.begin(), ids.end(), id) != ids.end()) return;
    ids.push_back(static_cast<int32_t>(id));
  }

  const GgufFile& file_;
  ModelInfo& info_;
  std::string prefix_;
};

}  // namespace

bool IsGgufPath(std::string_view path) {
  return absl::EndsWithIgnoreCase(absl::string_view(path.data(), path.size()), ".gguf");
}

absl::StatusOr<ModelInfo> GgufModelInfo(const GgufFile& file) {
  ModelInfo info;
  RETURN_IF_ERROR(InfoReader(file, info).Read());
  return info;
}

absl::StatusOr<ModelInfo> ReadGgufModelInfo(const std::string& path) {
  ASSIGN_OR_RETURN(const std::shared_ptr<MappedFile> mapped, MappedFile::Open(path));
  const absl::StatusOr<GgufFile> file = ParseGguf(mapped->bytes());
  absl::StatusOr<ModelInfo> info = file.ok() ? GgufModelInfo(*file) : file.status();
  if (info.ok()) return info;
  return absl::Status(info.status().code(), absl::StrCat(path, ": ", info.status().message()));
}

}  // namespace millrace
