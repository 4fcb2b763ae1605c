// SPDX-License-Identifier: Apache-2.0
#pragma once
// POST /v1/messages (Anthropic's) as a typed request. Wire JSON ends here. Pure functions, any thread; InvalidArgument
// names the field at fault.
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "server/agents/tool_choice.h"
#include "server/pipeline/requests.h"

namespace millrace {

struct MessagesRequest {
  ChatRequest chat;  // params.max_tokens is set, unless only a count was asked for
  AnswerMode mode = AnswerMode::kWhole;
  bool forbids_calls = false;  // nor may an agent call tools of its own
  bool shows_thinking = true;
  std::vector<ToolServerChoice> tool_servers;
  bool must_call = false;  // one of chat.required_tools or of these servers' tools
};

// What is asked: an answer, or only how many tokens the prompt has (which needs no max_tokens).
enum class MessagesPurpose : uint8_t { kAnswer, kCount };

absl::StatusOr<MessagesRequest> ParseMessages(std::string_view body, MessagesPurpose purpose);

}  // namespace millrace
