// SPDX-License-Identifier: Apache-2.0
#pragma once
// POST /v1/responses as a typed request. Wire JSON ends here, but for what the answer repeats. Pure functions, any
// thread; InvalidArgument names the field at fault.
#include <functional>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "server/agents/tool_choice.h"
#include "server/pipeline/requests.h"

namespace millrace {

struct ResponsesRequest {
  ChatRequest chat;  // history and instructions included; required_tools: a function named by tool_choice
  AnswerMode mode = AnswerMode::kWhole;
  std::string previous_response_id;
  bool is_stored = true;
  std::vector<ToolServerChoice> tool_servers;
  std::set<std::string> listed_servers;  // labels whose tools the conversation has listed already
  bool has_code_interpreter = false;
  bool forbids_calls = false;  // nor may an agent call tools of its own
  bool must_call = false;      // one of chat.required_tools, or where that is empty, of all that is offered
  std::optional<int32_t> max_tool_calls;
  bool shows_encrypted_reasoning = false;
  bool shows_code_outputs = false;

  std::string input;                  // the new items, each with an id: a JSON list
  std::vector<std::string> item_ids;  // of these
  std::string echo;                   // the response object's members that repeat the request, without braces
};

// Where earlier items come from. Both may ask the disk; null: nothing is stored.
struct ItemSource {
  // The items of a response and of all before it: JSON lists, oldest first.
  std::function<absl::StatusOr<std::vector<std::string>>(const std::string& response_id)> history;
  // One item, a JSON object.
  std::function<absl::StatusOr<std::string>(const std::string& item_id)> item;
};

// InvalidArgument, or what the source says: NotFound, ...
absl::StatusOr<ResponsesRequest> ParseResponses(std::string_view body, const ItemSource& source);

}  // namespace millrace
