// SPDX-License-Identifier: Apache-2.0
#include "server/grpc/kserve_tensors.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <limits>
#include <type_traits>

#include "absl/strings/str_cat.h"
#include "server/wire/api_error.h"

namespace millrace {
namespace {

using inference::InferTensorContents;
using inference::ModelInferRequest;

static_assert(std::endian::native == std::endian::little, "raw tensors are little-endian and read as they are");

constexpr int kMaxTensors = 64;
constexpr int64_t kMaxElements = 2048;
constexpr char kOutputText[] = "text_output";
constexpr char kOutputReason[] = "finish_reason";
constexpr char kOutputTokens[] = "num_output_tokens";

absl::Status TensorError(const std::string& name, const std::string& what) {
  return ParamError(name.substr(0, 100), absl::StrCat("tensor '", name.substr(0, 100), "' ", what));
}

// The product of the shape, or -1 when a dimension is negative or the product beyond the limit.
int64_t CountElements(const ModelInferRequest::InferInputTensor& tensor) {
  int64_t count = 1;
  for (const int64_t dimension : tensor.shape()) {
    if (dimension < 0 || dimension > kMaxElements) return -1;
    count *= dimension;
    if (count > kMaxElements) return -1;
  }
  return count;
}

template <typename Number>
ParamValue ToValue(Number number) {
  if constexpr (std::is_same_v<Number, bool>) {
    return number;
  } else if constexpr (std::is_floating_point_v<Number>) {
    return static_cast<double>(number);
  } else if constexpr (std::is_same_v<Number, uint64_t>) {
    // A seed may use all 64 bits: kept as they are.
    return std::bit_cast<int64_t>(number);
  } else {
    return static_cast<int64_t>(number);
  }
}

template <typename Number>
bool ReadRawNumbers(const std::string& raw, int64_t num_elements, std::vector<ParamValue>* values) {
  if (raw.size() != static_cast<size_t>(num_elements) * sizeof(Number)) return false;
  for (int64_t i = 0; i < num_elements; ++i) {
    Number number;
    if constexpr (std::is_same_v<Number, bool>) {
      number = raw[static_cast<size_t>(i)] != 0;
    } else {
      std::memcpy(&number, raw.data() + static_cast<size_t>(i) * sizeof(Number), sizeof(Number));
    }
    values->push_back(ToValue(number));
  }
  return true;
}

// Each element follows its length in 4 bytes.
bool ReadRawBytes(const std::string& raw, int64_t num_elements, std::vector<ParamValue>* values) {
  size_t at = 0;
  for (int64_t i = 0; i < num_elements; ++i) {
    uint32_t num_bytes = 0;
    if (raw.size() - at < sizeof(num_bytes)) return false;
    std::memcpy(&num_bytes, raw.data() + at, sizeof(num_bytes));
    at += sizeof(num_bytes);
    if (raw.size() - at < num_bytes) return false;
    values->emplace_back(raw.substr(at, num_bytes));
    at += num_bytes;
  }
  return at == raw.size();
}

template <typename Repeated>
bool ReadTyped(const Repeated& contents, int64_t num_elements, std::vector<ParamValue>* values) {
  if (contents.size() != num_elements) return false;
  for (const auto& element : contents) {
    if constexpr (std::is_same_v<std::decay_t<decltype(element)>, std::string>) {
      values->emplace_back(element);
    } else {
      values->push_back(ToValue(static_cast<std::decay_t<decltype(element)>>(element)));
    }
  }
  return true;
}

struct TensorType {
  const char* name;
  bool (*read_raw)(const std::string&, int64_t, std::vector<ParamValue>*);
  bool (*read_typed)(const InferTensorContents&, int64_t, std::vector<ParamValue>*);
};

using Values = std::vector<ParamValue>*;
const TensorType kTypes[] = {
    {"BYTES", ReadRawBytes,
     [](const InferTensorContents& c, int64_t n, Values v) { return ReadTyped(c.bytes_contents(), n, v); }},
    {"BOOL", ReadRawNumbers<bool>,
     [](const InferTensorContents& c, int64_t n, Values v) { return ReadTyped(c.bool_contents(), n, v); }},
    {"INT32", ReadRawNumbers<int32_t>,
     [](const InferTensorContents& c, int64_t n, Values v) { return ReadTyped(c.int_contents(), n, v); }},
    {"INT64", ReadRawNumbers<int64_t>,
     [](const InferTensorContents& c, int64_t n, Values v) { return ReadTyped(c.int64_contents(), n, v); }},
    {"UINT32", ReadRawNumbers<uint32_t>,
     [](const InferTensorContents& c, int64_t n, Values v) { return ReadTyped(c.uint_contents(), n, v); }},
    {"UINT64", ReadRawNumbers<uint64_t>,
     [](const InferTensorContents& c, int64_t n, Values v) { return ReadTyped(c.uint64_contents(), n, v); }},
    {"FP32", ReadRawNumbers<float>,
     [](const InferTensorContents& c, int64_t n, Values v) { return ReadTyped(c.fp32_contents(), n, v); }},
    {"FP64", ReadRawNumbers<double>,
     [](const InferTensorContents& c, int64_t n, Values v) { return ReadTyped(c.fp64_contents(), n, v); }},
};

void WriteBytes(const std::vector<std::string>& values, TensorForm form, InferTensorContents* contents,
                std::string* raw) {
  for (const std::string& value : values) {
    if (form == TensorForm::kTyped) {
      contents->add_bytes_contents(value);
      continue;
    }
    const uint32_t num_bytes = static_cast<uint32_t>(value.size());
    raw->append(reinterpret_cast<const char*>(&num_bytes), sizeof(num_bytes));
    raw->append(value);
  }
}

void WriteInts(const std::vector<int32_t>& values, TensorForm form, InferTensorContents* contents, std::string* raw) {
  for (const int32_t value : values) {
    if (form == TensorForm::kTyped) {
      contents->add_int_contents(value);
    } else {
      raw->append(reinterpret_cast<const char*>(&value), sizeof(value));
    }
  }
}

}  // namespace

absl::StatusOr<std::vector<InputTensor>> ReadTensors(const ModelInferRequest& message) {
  if (message.inputs_size() > kMaxTensors)
    return ParamError("inputs", absl::StrCat("at most ", kMaxTensors, " tensors"));
  const bool is_raw = !message.raw_input_contents().empty();
  if (is_raw && message.raw_input_contents_size() != message.inputs_size()) {
    return ParamError("raw_input_contents", absl::StrCat(message.raw_input_contents_size(), " raw contents for ",
                                                         message.inputs_size(), " tensors"));
  }
  std::vector<InputTensor> tensors;
  for (int i = 0; i < message.inputs_size(); ++i) {
    const auto& input = message.inputs(i);
    const auto type = std::find_if(std::begin(kTypes), std::end(kTypes),
                                   [&input](const TensorType& known) { return input.datatype() == known.name; });
    if (type == std::end(kTypes)) {
      return TensorError(input.name(), absl::StrCat("has the unknown type '", input.datatype().substr(0, 20), "'"));
    }
    const int64_t num_elements = CountElements(input);
    if (num_elements < 0) {
      return TensorError(input.name(),
                         absl::StrCat("has an impossible shape or more than ", kMaxElements, " elements"));
    }
    if (is_raw && input.has_contents()) return TensorError(input.name(), "has both raw and typed contents");
    InputTensor tensor{.name = input.name(), .values = {}};
    const bool fits = is_raw ? type->read_raw(message.raw_input_contents(i), num_elements, &tensor.values)
                             : type->read_typed(input.contents(), num_elements, &tensor.values);
    if (!fits)
      return TensorError(input.name(), absl::StrCat("does not hold the ", num_elements, " elements of its shape"));
    tensors.push_back(std::move(tensor));
  }
  return tensors;
}

void WriteInferResponse(const InferTask& task, const std::string& model, const std::vector<InferOutput>& outputs,
                        inference::ModelInferResponse* message) {
  message->set_model_name(model);
  message->set_model_version("1");
  message->set_id(task.id);
  std::vector<std::string> texts, reasons;
  std::vector<int32_t> counts;
  for (const InferOutput& output : outputs) {
    texts.push_back(output.text);
    reasons.push_back(output.finish_reason);
    counts.push_back(output.num_tokens);
  }
  for (const char* name : {kOutputText, kOutputReason, kOutputTokens}) {
    if (!task.outputs.empty() && std::find(task.outputs.begin(), task.outputs.end(), name) == task.outputs.end())
      continue;
    auto* tensor = message->add_outputs();
    tensor->set_name(name);
    tensor->set_datatype(name == kOutputTokens ? "INT32" : "BYTES");
    tensor->add_shape(static_cast<int64_t>(outputs.size()));
    std::string raw;
    InferTensorContents* contents = task.form == TensorForm::kTyped ? tensor->mutable_contents() : nullptr;
    if (name == kOutputTokens) {
      WriteInts(counts, task.form, contents, &raw);
    } else {
      WriteBytes(name == kOutputText ? texts : reasons, task.form, contents, &raw);
    }
    if (task.form == TensorForm::kRaw) message->add_raw_output_contents(std::move(raw));
  }
}

void WriteTensorMetadata(inference::ModelMetadataResponse* message) {
  struct Known {
    const char* name;
    const char* type;
  };
  for (const Known& known : {Known{"text_input", "BYTES"}, Known{"stream", "BOOL"}, Known{"max_tokens", "INT32"},
                             Known{"temperature", "FP32"}, Known{"top_p", "FP32"}, Known{"top_k", "INT32"},
                             Known{"seed", "UINT64"}, Known{"stop", "BYTES"}, Known{"sampling_parameters", "BYTES"}}) {
    auto* tensor = message->add_inputs();
    tensor->set_name(known.name);
    tensor->set_datatype(known.type);
    tensor->add_shape(-1);
  }
  for (const Known& known :
       {Known{kOutputText, "BYTES"}, Known{kOutputReason, "BYTES"}, Known{kOutputTokens, "INT32"}}) {
    auto* tensor = message->add_outputs();
    tensor->set_name(known.name);
    tensor->set_datatype(known.type);
    tensor->add_shape(-1);
  }
}

}  // namespace millrace
