// SPDX-License-Identifier: Apache-2.0
#include "server/responses/response_events.h"

#include <nlohmann/json.hpp>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "server/http/http_message.h"
#include "server/responses/item_reader.h"
#include "server/wire/api_error.h"
#include "server/wire/json_object.h"

namespace millrace {
namespace {

constexpr std::string_view kInProgress = "in_progress";
constexpr std::string_view kCompleted = "completed";
constexpr std::string_view kIncomplete = "incomplete";

std::string Quoted(std::string_view text) {
  std::string out;
  AppendJsonString(text, out);
  return out;
}

std::string List(const std::vector<std::string>& values) {
  std::string out = "[";
  for (const std::string& value : values) {
    if (out.size() > 1) out += ',';
    out += value;
  }
  return out + ']';
}

// What a python call wants to run.
std::string CodeOf(const std::string& arguments) {
  const auto parsed = nlohmann::json::parse(arguments, nullptr, /*allow_exceptions=*/false);
  if (!parsed.is_object() || !parsed.contains("code") || !parsed["code"].is_string()) return arguments;
  return parsed["code"];
}

std::string UsageJson(const TurnUsage& usage) {
  std::string input, output, out;
  JsonObject(input).Int("cached_tokens", usage.num_cached_tokens).Int("cache_write_tokens", 0).End();
  JsonObject(output).Int("reasoning_tokens", usage.num_reasoning_tokens).End();
  JsonObject(out)
      .Int("input_tokens", usage.num_prompt_tokens)
      .Raw("input_tokens_details", input)
      .Int("output_tokens", usage.num_output_tokens)
      .Raw("output_tokens_details", output)
      .Int("total_tokens", usage.num_prompt_tokens + usage.num_output_tokens)
      .End();
  return out;
}

// OpenAI's names, which clients act on: some shorten their history, some come back later.
std::string ErrorCode(const absl::Status& status) {
  const ApiError error = ToApiError(status);
  if (error.code == "context_length_exceeded" || error.code == "rate_limit_exceeded") return error.code;
  return absl::IsInvalidArgument(status) ? "invalid_prompt" : "server_error";
}

}  // namespace

// incomplete_details.reason: OpenAI knows the first alone, but names of our own tell more than a failure would.
std::string_view IncompleteReason(RunEnd end) {
  switch (end) {
    case RunEnd::kOutputTokens:
    case RunEnd::kTotalTokens:
      return "max_output_tokens";
    case RunEnd::kTurns:
      return "max_turns";
    case RunEnd::kToolCalls:
      return "max_tool_calls";
    case RunEnd::kEqualCalls:
      return "repeated_tool_call";
    case RunEnd::kTime:
      return "time_limit";
    default:
      return "";
  }
}

void ResponseEvents::Begin() {
  EmitResponse("response.created");
  EmitResponse("response.in_progress");
  ShowListings();
}

void ResponseEvents::Handle(const RunEvent& event) {
  if (const auto* reasoning = std::get_if<ReasoningPiece>(&event)) return On(*reasoning);
  if (const auto* text = std::get_if<TextPiece>(&event)) return On(*text);
  if (const auto* made = std::get_if<CallMade>(&event)) return On(*made);
  if (const auto* answered = std::get_if<CallAnswered>(&event)) return On(*answered);
  if (const auto* ended = std::get_if<RunEnded>(&event)) return On(*ended);
  if (std::holds_alternative<TurnBegan>(event)) CloseText(kCompleted);
}

// ---- items ------------------------------------------------------------------------------------------------------

// Not before something else is there to show: what fails before the first token is an error without items.
void ResponseEvents::ShowListings() {
  if (std::exchange(has_listings_, true)) return;
  for (const ToolListing& listing : args_.listings) {
    const size_t index = AddItem("mcpl_");
    const auto item = [&](std::string_view tools) {
      std::string out;
      JsonObject(out)
          .Text("id", item_ids_[index])
          .Text("type", "mcp_list_tools")
          .Text("server_label", listing.label)
          .Raw("tools", tools)
          .Raw("error", "null")
          .End();
      return out;
    };
    EmitItem("response.output_item.added", index, item("[]"));
    EmitAt("response.mcp_list_tools.in_progress", index, "");
    items_[index] = item(listing.tools);
    EmitAt("response.mcp_list_tools.completed", index, "");
    EmitItem("response.output_item.done", index, items_[index]);
  }
}

size_t ResponseEvents::AddItem(std::string_view id_prefix) {
  ShowListings();
  item_ids_.push_back(absl::StrCat(absl::string_view(id_prefix.data(), id_prefix.size()), RandomId()));
  items_.emplace_back();
  return items_.size() - 1;
}

std::string ResponseEvents::TextPart(std::string_view text) const {
  std::string out;
  if (open_ == Open::kReasoning) {
    JsonObject(out).Text("type", "reasoning_text").Text("text", text).End();
  } else {
    JsonObject(out).Text("type", "output_text").Raw("annotations", "[]").Raw("logprobs", "[]").Text("text", text).End();
  }
  return out;
}

std::string ResponseEvents::TextItem(std::string_view status, std::string_view text, bool has_part) const {
  const std::string content = has_part ? "[" + TextPart(text) + "]" : "[]";
  std::string out;
  JsonObject item(out);
  item.Text("id", item_ids_.back());
  if (open_ == Open::kReasoning) {
    item.Text("type", "reasoning").Raw("summary", "[]").Raw("content", content);
    if (args_.shows_encrypted_reasoning) {
      item.Raw("encrypted_content", has_part ? Quoted(PackReasoning(text)) : "null");
    }
    item.Text("status", status).End();
  } else {
    item.Text("type", "message").Text("role", "assistant").Text("status", status).Raw("content", content).End();
  }
  return out;
}

void ResponseEvents::OpenText(Open kind) {
  if (open_ == kind) return;
  CloseText(kCompleted);
  open_ = kind;
  text_.clear();
  const size_t index = AddItem(kind == Open::kReasoning ? "rs_" : "msg_");
  items_[index] = TextItem(kInProgress, "", /*has_part=*/false);
  EmitItem("response.output_item.added", index, items_[index]);
  EmitAt("response.content_part.added", index, absl::StrCat("\"content_index\":0,\"part\":", TextPart("")));
}

void ResponseEvents::CloseText(std::string_view status) {
  if (open_ == Open::kNothing) return;
  const size_t index = items_.size() - 1;
  const bool is_reasoning = open_ == Open::kReasoning;
  const std::string text = Quoted(text_);
  EmitAt(is_reasoning ? "response.reasoning_text.done" : "response.output_text.done", index,
         absl::StrCat("\"content_index\":0,\"text\":", text, is_reasoning ? "" : ",\"logprobs\":[]"));
  EmitAt("response.content_part.done", index, absl::StrCat("\"content_index\":0,\"part\":", TextPart(text_)));
  items_[index] = TextItem(status, text_, /*has_part=*/true);
  EmitItem("response.output_item.done", index, items_[index]);
  open_ = Open::kNothing;
}

void ResponseEvents::On(const ReasoningPiece& piece) {
  OpenText(Open::kReasoning);
  text_ += piece.text;
  EmitAt("response.reasoning_text.delta", items_.size() - 1,
         absl::StrCat("\"content_index\":0,\"delta\":", Quoted(piece.text)));
}

void ResponseEvents::On(const TextPiece& piece) {
  OpenText(Open::kMessage);
  text_ += piece.text;
  EmitAt("response.output_text.delta", items_.size() - 1,
         absl::StrCat("\"content_index\":0,\"delta\":", Quoted(piece.text), ",\"logprobs\":[]"));
}

// `result` null: not yet; a client's call has none.
std::string ResponseEvents::CallItem(const Call& call, std::string_view status, const ToolResult* result) const {
  std::string out;
  JsonObject item(out);
  item.Text("id", item_ids_[call.index]);
  if (call.look.is_code) {
    std::string log;
    if (result != nullptr) JsonObject(log).Text("type", "logs").Text("logs", result->text).End();
    const bool has_outputs = result != nullptr && args_.shows_code_outputs;
    item.Text("type", "code_interpreter_call")
        .Text("status", status)
        .Text("code", CodeOf(call.made.arguments))
        .Text("container_id", "auto")
        .Raw("outputs", has_outputs ? "[" + log + "]" : "null");
  } else {
    const bool is_error = result != nullptr && result->is_error;
    std::string error;
    if (is_error) JsonObject(error).Text("type", "mcp_tool_execution_error").Text("content", result->text).End();
    item.Text("type", "mcp_call")
        .Text("status", status)
        .Raw("approval_request_id", "null")
        .Text("arguments", call.made.arguments)
        .Raw("error", is_error ? error : "null")
        .Text("name", call.look.name.empty() ? call.made.name : call.look.name)
        .Raw("output", result != nullptr && !is_error ? Quoted(result->text) : "null")
        .Text("server_label", call.look.label);
  }
  item.End();
  return out;
}

void ResponseEvents::On(const CallMade& made) {
  CloseText(kCompleted);
  if (made.owner == CallOwner::kClient) {
    const size_t index = AddItem("fc_");
    const auto item = [&](std::string_view status, std::string_view arguments) {
      std::string out;
      JsonObject(out)
          .Text("id", item_ids_[index])
          .Text("type", "function_call")
          .Text("status", status)
          .Text("arguments", arguments)
          .Text("call_id", made.tool_call.id)
          .Text("name", made.tool_call.name)
          .End();
      return out;
    };
    EmitItem("response.output_item.added", index, item(kInProgress, ""));
    const std::string arguments = Quoted(made.tool_call.arguments);
    EmitAt("response.function_call_arguments.delta", index, "\"delta\":" + arguments);
    EmitAt("response.function_call_arguments.done", index,
           absl::StrCat("\"name\":", Quoted(made.tool_call.name), ",\"arguments\":", arguments));
    items_[index] = item(kCompleted, made.tool_call.arguments);
    EmitItem("response.output_item.done", index, items_[index]);
    return;
  }
  const CallLook look = args_.look ? args_.look(made.tool_call.name) : CallLook{};
  const Call call{.index = AddItem(look.is_code ? "ci_" : "mcp_"), .look = look, .made = made.tool_call};
  ShowArguments(call);
  calls_[made.call] = call;
}

void ResponseEvents::ShowArguments(const Call& call) {
  const std::string prefix = call.look.is_code ? "response.code_interpreter_call" : "response.mcp_call";
  items_[call.index] = CallItem(call, kInProgress, nullptr);
  Call bare = call;
  bare.made.arguments.clear();
  EmitItem("response.output_item.added", call.index, CallItem(bare, kInProgress, nullptr));
  EmitAt(prefix + ".in_progress", call.index, "");
  if (call.look.is_code) {
    const std::string code = Quoted(CodeOf(call.made.arguments));
    EmitAt("response.code_interpreter_call_code.delta", call.index, "\"delta\":" + code);
    EmitAt("response.code_interpreter_call_code.done", call.index, "\"code\":" + code);
    EmitAt(prefix + ".interpreting", call.index, "");
  } else {
    const std::string arguments = Quoted(call.made.arguments);
    EmitAt("response.mcp_call_arguments.delta", call.index, "\"delta\":" + arguments);
    EmitAt("response.mcp_call_arguments.done", call.index, "\"arguments\":" + arguments);
  }
}

void ResponseEvents::On(const CallAnswered& answered) {
  const auto found = calls_.find(answered.call);
  if (found == calls_.end()) return;
  const Call& call = found->second;
  const bool is_error = answered.result.is_error;
  items_[call.index] = CallItem(call, is_error ? "failed" : kCompleted, &answered.result);
  // Of a program's end OpenAI's stream knows one event; whether it failed stands in the item.
  EmitAt(call.look.is_code ? "response.code_interpreter_call.completed"
         : is_error        ? "response.mcp_call.failed"
                           : "response.mcp_call.completed",
         call.index, "");
  EmitItem("response.output_item.done", call.index, items_[call.index]);
  calls_.erase(found);
}

// ---- the end ----------------------------------------------------------------------------------------------------

void ResponseEvents::On(const RunEnded& ended) {
  usage_ = ended.usage;
  incomplete_reason_ = IncompleteReason(ended.end);
  // Whose client has left hears nothing of it; who still listens is cut off because we stop.
  if (ended.end == RunEnd::kCancelled) error_ = absl::UnavailableError("the server is shutting down");
  if (ended.end == RunEnd::kFailed) error_ = ended.status;
  // Clients expect an answer to hold a message, however empty.
  if (ended.end == RunEnd::kAnswered && (open_ == Open::kReasoning || items_.size() <= args_.listings.size())) {
    OpenText(Open::kMessage);
  }
  CloseText(incomplete_reason_.empty() && error_.ok() ? kCompleted : kIncomplete);
}

void ResponseEvents::Finish() {
  if (!error_.ok()) return Fail(error_);
  status_ = incomplete_reason_.empty() ? kCompleted : kIncomplete;
  if (incomplete_reason_.empty()) completed_ = absl::ToUnixSeconds(absl::Now());
}

void ResponseEvents::Fail(const absl::Status& status) {
  error_ = status;
  status_ = "failed";
}

void ResponseEvents::End() {
  if (!error_.ok()) {
    const ApiError error = ToApiError(error_);
    Emit("error", absl::StrCat("\"code\":", Quoted(ErrorCode(error_)), ",\"message\":", Quoted(error.message),
                               ",\"param\":", error.param.empty() ? "null" : Quoted(error.param)));
  }
  EmitResponse(absl::StrCat("response.", absl::string_view(status_.data(), status_.size())));
  if (args_.stream) args_.stream("data: [DONE]\n\n");
}

std::string ResponseEvents::Object() const {
  std::string error;
  if (status_ == "failed") {
    JsonObject(error).Text("code", ErrorCode(error_)).Text("message", ToApiError(error_).message).End();
  }
  std::string incomplete, out;
  JsonObject(incomplete).Text("reason", incomplete_reason_).End();
  JsonObject(out)
      .Text("id", args_.id)
      .Text("object", "response")
      .Int("created_at", args_.created)
      .Raw("completed_at", status_ == kCompleted ? absl::StrCat(completed_) : "null")
      .Text("status", status_)
      .Raw("error", error.empty() ? "null" : error)
      .Raw("incomplete_details", status_ == kIncomplete ? incomplete : "null")
      .Text("model", args_.model)
      .Raw("output", List(items_))
      .Float("temperature", args_.temperature)
      .Float("top_p", args_.top_p)
      .Members(args_.echo)
      .Raw("usage", status_ != kInProgress ? UsageJson(usage_) : "null")
      .End();
  return out;
}

void ResponseEvents::EmitItem(std::string_view type, size_t index, std::string_view item) {
  if (!args_.stream) return;
  std::string members;
  JsonObject out(members);
  out.Int("output_index", static_cast<int64_t>(index)).Raw("item", item);
  Emit(type, std::string_view(members).substr(1));
}

// Of an item that was added before.
void ResponseEvents::EmitAt(std::string_view type, size_t index, std::string_view members) {
  if (!args_.stream) return;
  std::string all;
  JsonObject out(all);
  out.Text("item_id", item_ids_[index]).Int("output_index", static_cast<int64_t>(index)).Members(members);
  Emit(type, std::string_view(all).substr(1));
}

void ResponseEvents::Emit(std::string_view type, std::string_view members) {
  const int64_t sequence = sequence_++;
  if (!args_.stream) return;
  std::string out = "event: ";
  out += type;
  out += "\ndata: ";
  JsonObject(out).Text("type", type).Int("sequence_number", sequence).Members(members).End();
  out += "\n\n";
  args_.stream(out);
}

}  // namespace millrace
