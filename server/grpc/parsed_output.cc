// SPDX-License-Identifier: Apache-2.0
#include "server/grpc/parsed_output.h"

#include <utility>

#include "server/api/call_id.h"
#include "server/grpc/inference_messages.h"

namespace millrace {

void ParsedOutput::Begin(const AnswerParserOptions& options, int32_t num_choices, int64_t made_at) {
  for (int32_t i = 0; i < num_choices; ++i) parsers_.emplace_back(options);
  made_at_ = made_at;
}

void ParsedOutput::Fill(const TextDelta& delta, v1::ChatResponse* message) {
  ToMessage(delta, message);
  AnswerParser& parser = parsers_[static_cast<size_t>(delta.choice)];
  int32_t number = parser.num_calls();
  AnswerParts parts;
  parser.Push(delta.text, parts);
  if (delta.finish != FinishReason::kNone) parser.Finish(parts);
  message->set_content(std::move(parts.content));
  message->set_reasoning(std::move(parts.reasoning));
  for (ParsedToolCall& call : parts.calls) {
    v1::ToolCall* out = message->add_tool_calls();
    out->set_id(MakeCallId(made_at_, delta.choice, number++));
    out->set_name(std::move(call.name));
    out->set_arguments(std::move(call.arguments));
  }
  if (delta.finish != FinishReason::kStop || parser.num_calls() == 0) return;
  message->set_finish_reason(v1::FINISH_REASON_TOOL_CALLS);
  message->clear_stop_reason();
}

}  // namespace millrace
