// SPDX-License-Identifier: Apache-2.0
#include "server/messages/message_events.h"

#include <nlohmann/json.hpp>
#include <utility>

#include "absl/strings/str_cat.h"
#include "server/wire/json_object.h"

namespace millrace {
namespace {

// Anthropic's clients hand thoughts back with the signature they came with; there is nothing to prove here.
constexpr std::string_view kSignature = "unsigned";

std::string Quoted(std::string_view text) {
  std::string out;
  AppendJsonString(text, out);
  return out;
}

// Of Anthropic's counts, input_tokens leaves out what the cache had.
std::string UsageJson(const TurnUsage& usage) {
  std::string out;
  JsonObject(out)
      .Int("input_tokens", usage.num_prompt_tokens - usage.num_cached_tokens)
      .Int("cache_creation_input_tokens", 0)
      .Int("cache_read_input_tokens", usage.num_cached_tokens)
      .Int("output_tokens", usage.num_output_tokens)
      .End();
  return out;
}

std::string_view StopReasonOf(const RunResult& result, int64_t max_tokens) {
  switch (result.end) {
    case RunEnd::kAnswered:
      return result.stop_sequence.empty() ? "end_turn" : "stop_sequence";
    case RunEnd::kClientCalls:
      return "tool_use";
    case RunEnd::kOutputTokens:
      return result.usage.num_output_tokens < max_tokens ? "model_context_window_exceeded" : "max_tokens";
    case RunEnd::kTotalTokens:
      return "max_tokens";
    default:
      return "pause_turn";  // the client may send it all back, and the run goes on
  }
}

// A call's arguments as the object that they are; what is none is wrapped, so that the answer stays valid.
std::string InputOf(const ToolCall& call) {
  const auto parsed = nlohmann::json::parse(call.arguments, nullptr, /*allow_exceptions=*/false);
  if (parsed.is_object()) return call.arguments;
  std::string out;
  JsonObject(out).Text("arguments", call.arguments).End();
  return out;
}

}  // namespace

void MessageEvents::Begin(int64_t num_prompt_tokens) {
  Emit("message_start", "\"message\":" + Message("[]", UsageJson({.num_prompt_tokens = num_prompt_tokens})));
  Emit("ping", "");
}

void MessageEvents::Handle(const RunEvent& event) {
  if (const auto* reasoning = std::get_if<ReasoningPiece>(&event)) return On(*reasoning);
  if (const auto* text = std::get_if<TextPiece>(&event)) return On(*text);
  if (const auto* made = std::get_if<CallMade>(&event)) return On(*made);
  if (const auto* answered = std::get_if<CallAnswered>(&event)) return On(*answered);
  if (std::holds_alternative<TurnEnded>(event)) CloseBlock();
}

void MessageEvents::OpenBlock(Open kind) {
  if (open_ == kind) return;
  CloseBlock();
  open_ = kind;
  text_.clear();
  StartBlock(kind == Open::kThinking ? R"({"type":"thinking","thinking":"","signature":""})"
                                     : R"({"type":"text","text":"","citations":null})");
}

void MessageEvents::CloseBlock() {
  if (open_ == Open::kNothing) return;
  std::string block;
  if (open_ == Open::kThinking) {
    Delta("signature_delta", "signature", kSignature);
    JsonObject(block).Text("type", "thinking").Text("thinking", text_).Text("signature", kSignature).End();
  } else {
    JsonObject(block).Text("type", "text").Text("text", text_).Raw("citations", "null").End();
  }
  open_ = Open::kNothing;
  StopBlock(std::move(block));
}

void MessageEvents::On(const ReasoningPiece& piece) {
  if (!args_.shows_thinking) return;
  OpenBlock(Open::kThinking);
  text_ += piece.text;
  Delta("thinking_delta", "thinking", piece.text);
}

void MessageEvents::On(const TextPiece& piece) {
  OpenBlock(Open::kText);
  text_ += piece.text;
  Delta("text_delta", "text", piece.text);
}

// Calls come whole, and so do their blocks: those of one turn never mix.
void MessageEvents::On(const CallMade& made) {
  CloseBlock();
  const bool is_ours = made.owner == CallOwner::kServer;
  const std::string input = InputOf(made.tool_call);
  ToolSource source{.name = made.tool_call.name};
  if (is_ours && args_.source_of) source = args_.source_of(made.tool_call.name);
  const auto block = [&](std::string_view shown_input) {
    std::string out;
    JsonObject object(out);
    object.Text("type", is_ours ? "mcp_tool_use" : "tool_use")
        .Text("id", made.tool_call.id)
        .Text("name", source.name)
        .Raw("input", shown_input);
    if (is_ours) object.Text("server_name", source.server);
    object.End();
    return out;
  };
  StartBlock(block("{}"));
  Delta("input_json_delta", "partial_json", input);
  StopBlock(block(input));
}

void MessageEvents::On(const CallAnswered& answered) {
  std::string text, block;
  JsonObject(text).Text("type", "text").Text("text", answered.result.text).End();
  JsonObject(block)
      .Text("type", "mcp_tool_result")
      .Text("tool_use_id", answered.id)
      .Bool("is_error", answered.result.is_error)
      .Raw("content", "[" + text + "]")
      .End();
  StartBlock(block);
  StopBlock(std::move(block));
}

void MessageEvents::End(const RunResult& result) {
  CloseBlock();
  const std::string_view reason = StopReasonOf(result, args_.max_tokens);
  stop_reason_ = Quoted(reason);
  if (reason == "stop_sequence") stop_sequence_ = Quoted(result.stop_sequence);
  usage_ = UsageJson(result.usage);
  std::string delta;
  JsonObject(delta).Raw("stop_reason", stop_reason_).Raw("stop_sequence", stop_sequence_).End();
  Emit("message_delta", absl::StrCat("\"delta\":", delta, ",\"usage\":", usage_));
  Emit("message_stop", "");
}

std::string MessageEvents::Object() const {
  std::string content = "[";
  for (const std::string& block : blocks_) {
    if (content.size() > 1) content += ',';
    content += block;
  }
  return Message(content + ']', usage_);
}

std::string MessageEvents::Message(std::string_view content, std::string_view usage) const {
  std::string out;
  JsonObject(out)
      .Text("id", args_.id)
      .Text("type", "message")
      .Text("role", "assistant")
      .Text("model", args_.model)
      .Raw("content", content)
      .Raw("stop_reason", stop_reason_)
      .Raw("stop_sequence", stop_sequence_)
      .Raw("usage", usage)
      .End();
  return out;
}

void MessageEvents::StartBlock(std::string_view block) {
  std::string members;
  JsonObject out(members);
  out.Int("index", static_cast<int64_t>(blocks_.size())).Raw("content_block", block);
  Emit("content_block_start", std::string_view(members).substr(1));
}

void MessageEvents::Delta(std::string_view type, std::string_view name, std::string_view text) {
  if (!args_.stream) return;
  std::string delta, members;
  JsonObject(delta).Text("type", type).Text(name, text).End();
  JsonObject out(members);
  out.Int("index", static_cast<int64_t>(blocks_.size())).Raw("delta", delta);
  Emit("content_block_delta", std::string_view(members).substr(1));
}

void MessageEvents::StopBlock(std::string block) {
  Emit("content_block_stop", absl::StrCat("\"index\":", blocks_.size()));
  blocks_.push_back(std::move(block));
}

void MessageEvents::Emit(std::string_view type, std::string_view members) {
  if (!args_.stream) return;
  std::string out = "event: ";
  out += type;
  out += "\ndata: ";
  JsonObject(out).Text("type", type).Members(members).End();
  out += "\n\n";
  args_.stream(out);
}

}  // namespace millrace
