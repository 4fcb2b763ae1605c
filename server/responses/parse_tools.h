// SPDX-License-Identifier: Apache-2.0
#pragma once
// tools, tool_choice and parallel_tool_calls of /v1/responses. Internal to server/responses.
#include <string>
#include <string_view>

#include "server/responses/responses_request.h"
#include "server/wire/json_fields.h"

namespace millrace {

// What the answer repeats of them: two JSON values.
struct ToolsEcho {
  std::string tools = "[]";
  std::string tool_choice = "\"auto\"";
};

// Function tools reach the conversation; the server's own are named in the request; kinds that are not served are
// passed over, since clients offer them to every server. `body`: what `fields` was parsed from.
ToolsEcho ReadResponsesTools(JsonFields& fields, std::string_view body, ResponsesRequest& request);

}  // namespace millrace
