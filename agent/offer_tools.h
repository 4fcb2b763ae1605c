// SPDX-License-Identifier: Apache-2.0
#pragma once
// What a model is told of the tools that are run here. Pure function.
#include <memory>
#include <vector>

#include "absl/status/status.h"
#include "agent/tool.h"
#include "engine/text/conversation.h"

namespace millrace {

// Puts `tools` behind those that the conversation offers. InvalidArgument: two have one name.
absl::Status OfferTools(const std::vector<std::shared_ptr<Tool>>& tools, Conversation& conversation);

}  // namespace millrace
