// SPDX-License-Identifier: Apache-2.0
// How an inference request says what it wants: request parameters, scalar tensors of the same names, or Triton's
// `sampling_parameters` (a JSON object in a BYTES tensor). Unknown names are tolerated, wrong types refused.
#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>
#include <optional>

#include "absl/strings/str_cat.h"
#include "server/grpc/inference_messages.h"
#include "server/grpc/kserve_tensors.h"
#include "server/wire/api_error.h"
#include "server/wire/json_fields.h"

namespace millrace {
namespace {

using Values = std::vector<ParamValue>;

std::optional<double> AsNumber(const ParamValue& value) {
  if (const auto* number = std::get_if<double>(&value)) return *number;
  if (const auto* number = std::get_if<int64_t>(&value)) return static_cast<double>(*number);
  return std::nullopt;
}

std::optional<int32_t> AsInt(const ParamValue& value) {
  const std::optional<double> number = AsNumber(value);
  if (!number || !(std::abs(*number) <= INT32_MAX) || std::floor(*number) != *number) return std::nullopt;
  return static_cast<int32_t>(*number);
}

template <typename Field>
bool SetFloat(const ParamValue& value, Field& field) {
  const std::optional<double> number = AsNumber(value);
  if (number) field = static_cast<float>(*number);
  return number.has_value();
}

template <typename Field>
bool SetInt(const ParamValue& value, Field& field) {
  const std::optional<int32_t> number = AsInt(value);
  if (number) field = *number;
  return number.has_value();
}

bool SetBool(const ParamValue& value, bool& field) {
  const auto* flag = std::get_if<bool>(&value);
  if (flag != nullptr) field = *flag;
  return flag != nullptr;
}

bool SetSeed(const ParamValue& value, std::optional<uint64_t>& field) {
  const auto* number = std::get_if<int64_t>(&value);
  if (number != nullptr) field = static_cast<uint64_t>(*number);
  return number != nullptr;
}

bool SetStops(const Values& values, std::vector<std::string>& stops) {
  for (const ParamValue& value : values) {
    const auto* text = std::get_if<std::string>(&value);
    if (text == nullptr) return false;
    if (!text->empty()) stops.push_back(*text);
  }
  return true;
}

struct Setter {
  const char* name;
  bool (*set)(const Values&, InferTask&);  // false: a wrong type. REQUIRES: a value
};

const Setter kSetters[] = {
    {"temperature", [](const Values& v, InferTask& t) { return SetFloat(v[0], t.request.params.temperature); }},
    {"top_p", [](const Values& v, InferTask& t) { return SetFloat(v[0], t.request.params.top_p); }},
    {"top_k", [](const Values& v, InferTask& t) { return SetInt(v[0], t.request.params.top_k); }},
    {"min_p", [](const Values& v, InferTask& t) { return SetFloat(v[0], t.request.params.min_p); }},
    {"repetition_penalty",
     [](const Values& v, InferTask& t) { return SetFloat(v[0], t.request.params.repetition_penalty); }},
    {"presence_penalty",
     [](const Values& v, InferTask& t) { return SetFloat(v[0], t.request.params.presence_penalty); }},
    {"frequency_penalty",
     [](const Values& v, InferTask& t) { return SetFloat(v[0], t.request.params.frequency_penalty); }},
    {"seed", [](const Values& v, InferTask& t) { return SetSeed(v[0], t.request.params.seed); }},
    {"max_tokens", [](const Values& v, InferTask& t) { return SetInt(v[0], t.request.params.max_tokens); }},
    {"min_tokens", [](const Values& v, InferTask& t) { return SetInt(v[0], t.request.params.min_tokens); }},
    {"stop", [](const Values& v, InferTask& t) { return SetStops(v, t.request.params.stop); }},
    {"ignore_eos", [](const Values& v, InferTask& t) { return SetBool(v[0], t.request.params.ignores_eos); }},
    {"include_stop_str_in_output",
     [](const Values& v, InferTask& t) { return SetBool(v[0], t.request.params.includes_stop_text); }},
    {"skip_special_tokens",
     [](const Values& v, InferTask& t) { return SetBool(v[0], t.request.params.skips_special_tokens); }},
    {"add_special_tokens", [](const Values& v, InferTask& t) { return SetBool(v[0], t.request.adds_special_tokens); }},
    {"priority", [](const Values& v, InferTask& t) { return SetInt(v[0], t.request.params.priority); }},
    {"stream",
     [](const Values& v, InferTask& t) {
       bool is_stream = false;
       if (!SetBool(v[0], is_stream)) return false;
       t.mode = is_stream ? AnswerMode::kStream : AnswerMode::kWhole;
       return true;
     }},
    {"exclude_input_in_output",
     [](const Values& v, InferTask& t) {
       bool excludes = true;
       if (!SetBool(v[0], excludes)) return false;
       t.repeats_input = !excludes;
       return true;
     }},
};

absl::Status Set(const std::string& name, const Values& values, InferTask& task) {
  for (const Setter& setter : kSetters) {
    if (name != setter.name) continue;
    if (values.empty() || setter.set(values, task)) return absl::OkStatus();
    return ParamError(name, absl::StrCat("'", name, "' has a value of the wrong type"), kInvalidType);
  }
  return absl::OkStatus();
}

ParamValue FromParameter(const inference::InferParameter& parameter) {
  switch (parameter.parameter_choice_case()) {
    case inference::InferParameter::kBoolParam:
      return parameter.bool_param();
    case inference::InferParameter::kInt64Param:
      return parameter.int64_param();
    case inference::InferParameter::kUint64Param:
      return static_cast<int64_t>(parameter.uint64_param());
    case inference::InferParameter::kDoubleParam:
      return parameter.double_param();
    default:
      return parameter.string_param();
  }
}

// Triton's clients write numbers as strings at times: {"temperature": "0"}.
std::optional<ParamValue> FromJson(const nlohmann::json& value) {
  if (value.is_boolean()) return value.get<bool>();
  if (value.is_number_unsigned()) return static_cast<int64_t>(value.get<uint64_t>());
  if (value.is_number_integer()) return value.get<int64_t>();
  if (value.is_number()) return value.get<double>();
  if (!value.is_string()) return std::nullopt;
  const std::string& text = value.get_ref<const std::string&>();
  if (text == "true" || text == "false") return text == "true";
  const nlohmann::json number = nlohmann::json::parse(text, nullptr, /*allow_exceptions=*/false);
  return number.is_number() ? FromJson(number) : ParamValue(text);
}

absl::Status SetFromJson(const std::string& text, InferTask& task) {
  auto document = ParseJson(text, {.max_depth = 4, .max_values = 1000});
  if (!document.ok()) return WithErrorParam(document.status(), "sampling_parameters");
  if (!document->is_object()) {
    return ParamError("sampling_parameters", "sampling_parameters must be a JSON object", kInvalidType);
  }
  for (const auto& [name, value] : document->items()) {
    Values values;
    const bool is_stop = name == "stop";
    if (is_stop && value.is_string()) {
      values.emplace_back(value.get<std::string>());
    } else if (is_stop && value.is_array()) {
      for (const auto& item : value) values.push_back(item.is_string() ? ParamValue(item.get<std::string>()) : false);
    } else if (auto scalar = FromJson(value)) {
      values.push_back(*std::move(scalar));
    }
    if (absl::Status status = Set(name, values, task); !status.ok()) return status;
  }
  return absl::OkStatus();
}

absl::Status TakeTensor(InputTensor& tensor, InferTask& task) {
  if (tensor.name != "text_input" && tensor.name != "sampling_parameters") return Set(tensor.name, tensor.values, task);
  for (ParamValue& value : tensor.values) {
    auto* text = std::get_if<std::string>(&value);
    if (text == nullptr) {
      return ParamError(tensor.name, absl::StrCat("tensor '", tensor.name, "' must be BYTES"), kInvalidType);
    }
    if (tensor.name == "text_input") {
      task.request.prompts.emplace_back(std::move(*text));
    } else if (absl::Status status = SetFromJson(*text, task); !status.ok()) {
      return status;
    }
  }
  return absl::OkStatus();
}

absl::Status CheckTask(const InferTask& task) {
  if (task.request.prompts.empty())
    return ParamError("text_input", "the tensor 'text_input' with the prompt is required", kMissingParameter);
  if (task.mode == AnswerMode::kStream && task.request.prompts.size() > 1) {
    return ParamError("text_input", "a streamed request takes one prompt");
  }
  for (const std::string& output : task.outputs) {
    if (output == "text_output" || output == "finish_reason" || output == "num_output_tokens") continue;
    return ParamError("outputs", absl::StrCat("there is no output tensor '", output.substr(0, 100), "'"));
  }
  return CheckParams(task.request.params);
}

}  // namespace

absl::StatusOr<InferTask> ReadInferRequest(const inference::ModelInferRequest& message) {
  auto tensors = ReadTensors(message);
  if (!tensors.ok()) return tensors.status();
  InferTask task;
  task.id = message.id();
  task.form = message.raw_input_contents().empty() ? TensorForm::kTyped : TensorForm::kRaw;
  task.request.model = message.model_name();
  for (const auto& [name, parameter] : message.parameters()) {
    if (absl::Status status = Set(name, {FromParameter(parameter)}, task); !status.ok()) return status;
  }
  for (InputTensor& tensor : *tensors) {
    if (absl::Status status = TakeTensor(tensor, task); !status.ok()) return status;
  }
  for (const auto& output : message.outputs()) task.outputs.push_back(output.name());
  if (absl::Status status = CheckTask(task); !status.ok()) return status;
  return task;
}

}  // namespace millrace
