// SPDX-License-Identifier: Apache-2.0
#include "server/api/parse_common.h"

#include <nlohmann/json.hpp>

#include "absl/strings/str_cat.h"
#include "engine/grammar/json_schema.h"
#include "engine/text/template_json.h"
#include "server/wire/api_error.h"

namespace millrace {
namespace {

using nlohmann::json;

constexpr size_t kMaxStops = 16;
constexpr size_t kMaxStopBytes = 1024;
constexpr size_t kMaxPrompts = 2048;
constexpr int64_t kMaxTokens = 1 << 30;

void ReadStops(JsonFields& fields, GenerationParams& params) {
  fields.ReadStrings("stop", kMaxStops, params.stop);
  for (const std::string& stop : params.stop) {
    if (stop.empty()) return fields.Fail("stop", "must not hold an empty string");
    if (stop.size() > kMaxStopBytes) {
      return fields.Fail("stop", absl::StrCat("must not hold strings longer than ", kMaxStopBytes, " bytes"));
    }
  }
  fields.ReadTokenIds("stop_token_ids", 256, params.stop_token_ids);
}

bool ReadTokenList(const json& list, std::vector<int32_t>& tokens) {
  tokens.reserve(list.size());
  for (const json& item : list) {
    if (!item.is_number_integer()) return false;
    const double token = item.get<double>();
    if (token < 0 || token > INT32_MAX) return false;
    tokens.push_back(item.get<int32_t>());
  }
  return true;
}

void RefuseOtherGuides(JsonFields& fields) {
  for (const char* name : {"structured_outputs", "guided_json", "guided_regex", "guided_choice", "guided_grammar"}) {
    fields.RefuseUnlessNull(name);
  }
}

}  // namespace

absl::StatusOr<json> ParseBody(std::string_view body) {
  auto document = ParseJson(body);
  if (document.ok() && !document->is_object()) {
    return WithErrorCode(
        absl::InvalidArgumentError(absl::StrCat("the body must be a JSON object, not ", document->type_name())),
        "invalid_json");
  }
  return document;
}

void ReadSampling(JsonFields& fields, GenerationParams& params) {
  fields.ReadNumber("temperature", 0, 2, params.temperature);
  fields.ReadNumber("top_p", 0, 1, params.top_p);
  if (params.top_p && *params.top_p <= 0) fields.Fail("top_p", "must be greater than 0");
  fields.ReadInt("top_k", -1, INT32_MAX, params.top_k);
  fields.ReadNumber("min_p", 0, 1, params.min_p);
  fields.ReadNumber("repetition_penalty", 0, 2, params.repetition_penalty);
  if (params.repetition_penalty && *params.repetition_penalty <= 0) {
    fields.Fail("repetition_penalty", "must be greater than 0");
  }
  fields.ReadNumber("presence_penalty", -2, 2, params.presence_penalty);
  fields.ReadNumber("frequency_penalty", -2, 2, params.frequency_penalty);
  fields.ReadLogitBias("logit_bias", params.logit_bias);
  fields.ReadSeed("seed", params.seed);
  fields.ReadInt("n", 1, 128, params.num_choices);
  fields.ReadInt("max_tokens", 0, kMaxTokens, params.max_tokens);
  fields.ReadInt("min_tokens", 0, kMaxTokens, params.min_tokens);
  ReadStops(fields, params);
  fields.Read("include_stop_str_in_output", params.includes_stop_text);
  fields.Read("ignore_eos", params.ignores_eos);
  fields.Read("skip_special_tokens", params.skips_special_tokens);
  fields.ReadInt("prompt_logprobs", 0, 1024, params.num_prompt_logprobs);
  fields.ReadInt("priority", INT32_MIN, INT32_MAX, params.priority);
  std::string user;
  fields.Read("user", user);
  bool uses_beam_search = false;
  fields.Read("use_beam_search", uses_beam_search);
  if (uses_beam_search) fields.Fail("use_beam_search", "is not supported", kUnsupportedValue);
}

void ReadStream(JsonFields& fields, StreamChoices& stream) {
  bool is_stream = false;
  fields.Read("stream", is_stream);
  stream.mode = is_stream ? AnswerMode::kStream : AnswerMode::kWhole;
  const json* options = fields.Find("stream_options");
  if (options == nullptr) return;
  if (!options->is_object()) return fields.Fail("stream_options", "must be an object", kInvalidType);
  if (!is_stream) return fields.Fail("stream_options", "is only allowed when 'stream' is true");
  JsonFields inner(*options, "stream_options.");
  inner.Read("include_usage", stream.includes_usage);
  inner.Read("continuous_usage_stats", stream.has_continuous_usage);
  fields.Adopt(inner);
}

void RefuseStreamedPromptLogprobs(JsonFields& fields, const GenerationParams& params, const StreamChoices& stream) {
  if (stream.mode != AnswerMode::kStream || params.num_prompt_logprobs < 0) return;
  fields.Fail("prompt_logprobs", "is not available when 'stream' is true", kUnsupportedValue);
}

// The schema is read from the body once more: json sorts its members, and their order is that of the answer.
void ReadResponseFormat(JsonFields& fields, std::string_view body, GenerationParams& params) {
  constexpr char kName[] = "response_format";
  RefuseOtherGuides(fields);
  const json* format = fields.Find(kName);
  if (format == nullptr) return;
  const json type = format->is_object() && format->contains("type") ? (*format)["type"] : json();
  if (!type.is_string()) return fields.Fail(kName, "must be an object with a 'type'", kInvalidType);
  if (type == "text") return;
  if (type == "json_object") {
    params.grammar = AnyJsonObject();
    return;
  }
  if (type != "json_schema") {
    return fields.Fail(kName, "must be of type 'text', 'json_object' or 'json_schema'", kUnsupportedValue);
  }
  const json* outer = format->contains("json_schema") ? &(*format)["json_schema"] : nullptr;
  if (outer == nullptr || !outer->is_object() || !outer->contains("schema")) {
    return fields.Fail(kName, "needs json_schema: {name, schema}", kMissingParameter);
  }
  const auto ordered = ParseJsonValue(body);
  if (!ordered.ok()) return fields.Fail(kName, std::string(ordered.status().message()));
  const TemplateDict& wrapper = ordered->as_dict().Find(kName)->as_dict().Find("json_schema")->as_dict();
  auto grammar = CompileJsonSchema(*wrapper.Find("schema"));
  if (!grammar.ok()) return fields.Fail(kName, std::string(grammar.status().message()), kUnsupportedValue);
  params.grammar = *std::move(grammar);
}

void ReadPrompts(JsonFields& fields, const char* name, std::vector<Prompt>& prompts) {
  constexpr char kExpected[] = "must be a string, a list of strings, a list of token ids, or a list of such lists";
  const json* value = fields.Find(name);
  if (value == nullptr) return fields.Fail(name, "is required", kMissingParameter);
  if (value->is_string()) {
    prompts.emplace_back(value->get<std::string>());
    return;
  }
  if (!value->is_array()) return fields.Fail(name, kExpected, kInvalidType);
  if (value->empty()) return fields.Fail(name, "must not be empty");
  if (value->front().is_number()) {
    std::vector<int32_t> tokens;
    if (!ReadTokenList(*value, tokens)) return fields.Fail(name, kExpected, kInvalidType);
    prompts.emplace_back(std::move(tokens));
    return;
  }
  if (value->size() > kMaxPrompts) return fields.Fail(name, absl::StrCat("has more than ", kMaxPrompts, " items"));
  for (const json& item : *value) {
    if (item.is_string() && value->front().is_string()) {
      prompts.emplace_back(item.get<std::string>());
      continue;
    }
    std::vector<int32_t> tokens;
    if (!item.is_array() || item.empty() || !value->front().is_array() || !ReadTokenList(item, tokens)) {
      return fields.Fail(name, kExpected, kInvalidType);
    }
    prompts.emplace_back(std::move(tokens));
  }
}

}  // namespace millrace
