// SPDX-License-Identifier: Apache-2.0
#include "agent/mcp/json_rpc.h"

#include <cmath>
#include <utility>

#include "absl/strings/str_cat.h"
#include "engine/text/template_json.h"
#include "engine/text/utf8.h"

namespace millrace {
namespace {

constexpr TemplateJsonLimits kLimits{.max_bytes = kMaxRpcLineBytes, .max_depth = 64, .max_values = 1 << 18};
constexpr size_t kMaxIdBytes = 256;
constexpr size_t kMaxMessageBytes = 1000;  // of an error; a model reads it

absl::Status NoMessage(std::string_view why) {
  return absl::InvalidArgumentError(absl::StrCat("no message of JSON-RPC: ", std::string(why)));
}

std::string TextOf(const TemplateDict& dict, std::string_view name) {
  const TemplateValue* value = dict.Find(name);
  return value != nullptr && value->is_string() ? std::string(value->text()) : "";
}

absl::StatusOr<RpcMessage> ReadAnswer(const TemplateDict& dict, const TemplateValue& id) {
  if (!id.is_int()) return NoMessage("an answer to an id that is no integer");
  if (const TemplateValue* error = dict.Find("error"); error != nullptr) {
    if (!error->is_dict()) return NoMessage("its error is no object");
    RpcFailure failure{.id = id.as_int(), .message = TextOf(error->as_dict(), "message").substr(0, kMaxMessageBytes)};
    const TemplateValue* code = error->as_dict().Find("code");
    if (code != nullptr && code->is_int()) failure.code = code->as_int();
    if (const TemplateValue* data = error->as_dict().Find("data"); data != nullptr) failure.data = *data;
    return failure;
  }
  const TemplateValue* result = dict.Find("result");
  if (result == nullptr || !result->is_dict()) return NoMessage("neither a method, a result nor an error");
  return RpcResult{.id = id.as_int(), .result = *result};
}

// JSON has no number without end, though a text like 1e999 makes one.
bool IsFinite(const TemplateValue& value) {
  if (value.is_float()) return std::isfinite(value.as_float());
  if (value.is_list()) {
    for (const TemplateValue& item : value.as_list().items) {
      if (!IsFinite(item)) return false;
    }
  }
  if (value.is_dict()) {
    for (const auto& [key, member] : value.as_dict().entries()) {
      if (!IsFinite(member)) return false;
    }
  }
  return true;
}

TemplateValue Envelope(std::string_view method, const TemplateValue& params) {
  TemplateValue message = TemplateValue::Dict();
  message.as_dict().Set("jsonrpc", TemplateValue::Text("2.0"));
  message.as_dict().Set("method", TemplateValue::Text(method));
  if (params.is_dict() && params.as_dict().size() > 0) message.as_dict().Set("params", params);
  return message;
}

absl::StatusOr<std::string> Line(const TemplateValue& message) {
  absl::StatusOr<std::string> line = CompactJson(message);
  if (line.ok()) line->push_back('\n');
  return line;
}

}  // namespace

absl::Status LineSplitter::Push(std::string_view bytes, std::vector<std::string>& lines) {
  while (true) {
    const size_t end = bytes.find('\n');
    const std::string_view piece = bytes.substr(0, end);
    if (rest_.size() + piece.size() > max_line_bytes_) {
      return absl::ResourceExhaustedError(absl::StrCat("a line of more than ", max_line_bytes_, " bytes"));
    }
    rest_.append(piece);
    if (end == bytes.npos) return absl::OkStatus();
    if (!rest_.empty() && rest_.back() == '\r') rest_.pop_back();
    if (!rest_.empty()) lines.push_back(std::exchange(rest_, {}));
    bytes.remove_prefix(end + 1);
  }
}

absl::StatusOr<RpcMessage> ParseRpcMessage(std::string_view line) {
  std::string repaired;
  if (!IsValidUtf8(line)) {
    AppendRepairedUtf8(line, repaired);
    line = repaired;
  }
  const absl::StatusOr<TemplateValue> value = ParseJsonValue(line, kLimits);
  if (!value.ok()) return value.status();
  if (!value->is_dict()) return NoMessage("no object");
  const TemplateDict& dict = value->as_dict();
  if (TextOf(dict, "jsonrpc") != "2.0") return NoMessage("its jsonrpc is not 2.0");
  const TemplateValue* id = dict.Find("id");
  if (id != nullptr && id->is_none()) id = nullptr;
  const TemplateValue* method = dict.Find("method");
  if (method == nullptr) {
    if (id == nullptr) return NoMessage("neither a method nor an id");
    return ReadAnswer(dict, *id);
  }
  if (!method->is_string()) return NoMessage("its method is no text");
  if (id == nullptr) return RpcNotification{.method = std::string(method->text())};
  if (!id->is_int() && !id->is_string()) return NoMessage("its id is neither a text nor an integer");
  absl::StatusOr<std::string> raw = CompactJson(*id);
  if (!raw.ok()) return raw.status();
  if (raw->size() > kMaxIdBytes) return NoMessage("its id is too long");
  return RpcRequest{.id = *std::move(raw), .method = std::string(method->text())};
}

absl::StatusOr<std::string> RpcRequestLine(int64_t id, std::string_view method, const TemplateValue& params) {
  TemplateValue message = Envelope(method, params);
  message.as_dict().Set("id", TemplateValue::Int(id));
  return Line(message);
}

absl::StatusOr<std::string> RpcNotificationLine(std::string_view method, const TemplateValue& params) {
  return Line(Envelope(method, params));
}

std::string RpcEmptyResultLine(std::string_view id) {
  return absl::StrCat(R"({"jsonrpc":"2.0","id":)", std::string(id), R"(,"result":{}})", "\n");
}

std::string RpcFailureLine(std::string_view id, int64_t code, std::string_view message) {
  const absl::StatusOr<std::string> text = CompactJson(TemplateValue::Text(message));
  return absl::StrCat(R"({"jsonrpc":"2.0","id":)", std::string(id), R"(,"error":{"code":)", code, R"(,"message":)",
                      text.ok() ? *text : R"("")", "}}\n");
}

absl::StatusOr<std::string> CompactJson(const TemplateValue& value, bool sorts_keys) {
  if (!IsFinite(value)) return absl::InvalidArgumentError("a number is too large");
  TemplateStringBuilder out;
  const absl::Status status = AppendJson(
      value, {.sort_keys = sorts_keys, .item_separator = ",", .key_separator = ":", .max_bytes = kMaxRpcLineBytes},
      out);
  if (!status.ok()) return status;
  return std::string(out.Build().view());
}

}  // namespace millrace
