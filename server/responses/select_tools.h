// SPDX-License-Identifier: Apache-2.0
#pragma once
// From the labels by which a client asks for tools of ours to the tools. Pure functions.
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "agent/tool.h"
#include "server/agents/agent.h"
#include "server/agents/tool_set.h"
#include "server/responses/response_events.h"
#include "server/responses/responses_request.h"

namespace millrace {

struct SelectedTools {
  std::vector<std::shared_ptr<Tool>> tools;
  std::map<std::string, CallLook, std::less<>> looks;  // by the tool's name
  std::vector<ToolListing> listings;  // of configured tool servers that the conversation has not listed
};

// InvalidArgument: a label that is not known, or a tool that is not there. An agent brings its own tools, which are the
// set's, and the request no others of ours; null: there is none.
absl::StatusOr<SelectedTools> SelectTools(const ToolSet& set, const ResponsesRequest& request,
                                          const Agent* agent = nullptr);

// What must be called, as a run wants it: the names that tool_choice left.
std::vector<std::string> RequiredTools(const ResponsesRequest& request, const SelectedTools& selected);

}  // namespace millrace
