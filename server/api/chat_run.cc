// SPDX-License-Identifier: Apache-2.0
#include "server/api/chat_run.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "server/responses/response_events.h"
#include "server/wire/api_error.h"
#include "server/wire/json_object.h"

namespace millrace {
namespace {

constexpr char kNotFinished[] = R"("finish_reason":null,"stop_reason":null)";

// Of OpenAI's reasons only "length" says that something stopped the answer; stop_reason, which is vLLM's, says what.
std::string Finish(const RunResult& result) {
  std::string out, stop = "null";
  std::string_view reason = "length";
  if (result.end == RunEnd::kAnswered) {
    reason = "stop";
    if (!result.stop_sequence.empty()) {
      stop.clear();
      AppendJsonString(result.stop_sequence, stop);
    }
  } else if (result.end == RunEnd::kClientCalls) {
    reason = "tool_calls";
  } else if (result.end != RunEnd::kOutputTokens && result.end != RunEnd::kTotalTokens) {
    stop.clear();
    AppendJsonString(IncompleteReason(result.end), stop);
  }
  JsonObject(out).Text("finish_reason", reason).Raw("stop_reason", stop).End();
  return out.substr(1, out.size() - 2);
}

void AppendRunUsage(const TurnUsage& usage, std::string& out) {
  AppendUsage({.num_prompt_tokens = usage.num_prompt_tokens,
               .num_completion_tokens = usage.num_output_tokens,
               .num_cached_tokens = usage.num_cached_tokens},
              out);
}

std::string CallJson(const ToolCall& call, int32_t index) {
  std::string function, out;
  JsonObject(function).Text("name", call.name).Text("arguments", call.arguments).End();
  JsonObject object(out);
  if (index >= 0) object.Int("index", index);
  object.Text("id", call.id).Text("type", "function").Raw("function", function).End();
  return out;
}

}  // namespace

void ChatRun::WriteChunk(std::string_view delta, std::string_view finish) {
  std::string chunk = "data: ";
  AppendHead(head_, "chat.completion.chunk", chunk);
  absl::StrAppend(&chunk, R"({"index":0,"delta":)", std::string(delta), R"(,"logprobs":null,)", std::string(finish),
                  "}]", stream_.includes_usage ? R"(,"usage":null)" : "", "}\n\n");
  out_->Write(chunk);
}

void ChatRun::Begin() {
  if (!is_stream() || std::exchange(has_begun_, true)) return;
  WriteChunk(R"({"role":"assistant","content":""})", kNotFinished);
}

// Until the prompt is taken, what is wrong with it can still be an error of HTTP.
void ChatRun::OnEvent(const RunEvent& event) {
  const bool is_certain = !std::holds_alternative<TurnBegan>(event) && !std::holds_alternative<TurnEnded>(event) &&
                          !std::holds_alternative<RunEnded>(event);
  if (is_certain) Begin();
  if (const auto* text = std::get_if<TextPiece>(&event)) Say("content", text->turn, text->text, content_);
  if (const auto* thought = std::get_if<ReasoningPiece>(&event)) {
    Say("reasoning_content", thought->turn, thought->text, reasoning_);
  }
  const auto* made = std::get_if<CallMade>(&event);
  if (made != nullptr && made->owner == CallOwner::kClient) ShowCall(made->tool_call);
}

// What another turn says is a paragraph of its own.
void ChatRun::Say(const char* member, int32_t turn, const std::string& text, Said& said) {
  const bool is_new_turn = std::exchange(said.last_turn, turn) != turn;
  const std::string piece = is_new_turn && !said.text.empty() ? "\n\n" + text : text;
  said.text += piece;
  if (!is_stream()) return;
  std::string delta;
  JsonObject(delta).Text(member, piece).End();
  WriteChunk(delta, kNotFinished);
}

void ChatRun::ShowCall(const ToolCall& call) {
  const int32_t index = num_calls_++;
  if (is_stream()) {
    return WriteChunk(absl::StrCat(R"({"tool_calls":[)", CallJson(call, index), "]}"), kNotFinished);
  }
  absl::StrAppend(&calls_, index > 0 ? "," : "", CallJson(call, -1));
}

std::string ChatRun::Whole(const RunResult& result) const {
  std::string message, out;
  JsonObject object(message);
  object.Text("role", "assistant");
  if (content_.text.empty() && num_calls_ > 0) {
    object.Raw("content", "null");
  } else {
    object.Text("content", content_.text);
  }
  object.Raw("refusal", "null");
  if (!reasoning_.text.empty()) object.Text("reasoning_content", reasoning_.text);
  if (num_calls_ > 0) object.Raw("tool_calls", absl::StrCat("[", calls_, "]"));
  object.End();
  AppendHead(head_, "chat.completion", out);
  absl::StrAppend(&out, R"({"index":0,"message":)", message, R"(,"logprobs":null,)", Finish(result), R"(}],"usage":)");
  AppendRunUsage(result.usage, out);
  return out + '}';
}

void ChatRun::Fail(const absl::Status& status) {
  const ApiError error = ToApiError(status);
  if (!has_begun_) return out_->Send(ErrorResponse(error));
  out_->Write(absl::StrCat("data: ", ErrorJson(error), "\n\ndata: [DONE]\n\n"));
  out_->End();
}

void ChatRun::OnDone(const RunResult& result) {
  if (result.end == RunEnd::kFailed) return Fail(result.status);
  if (result.end == RunEnd::kCancelled) return Fail(absl::UnavailableError("the server is shutting down"));
  if (!is_stream()) return out_->Send({.body = Whole(result)});
  Begin();
  WriteChunk("{}", Finish(result));
  std::string last;
  if (stream_.includes_usage) {
    last = "data: ";
    AppendHead(head_, "chat.completion.chunk", last);
    last += R"(],"usage":)";
    AppendRunUsage(result.usage, last);
    last += "}\n\n";
  }
  out_->Write(last + "data: [DONE]\n\n");
  out_->End();
}

}  // namespace millrace
