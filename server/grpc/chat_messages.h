// SPDX-License-Identifier: Apache-2.0
#pragma once
// millrace.v1's messages and tools to a Conversation. Internal to server/grpc; pure functions, any thread.
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "engine/text/conversation.h"
#include "proto/millrace/v1/inference.pb.h"
#include "server/pipeline/requests.h"

namespace millrace {

// InvalidArgument names the field: no message, one without a role, JSON that does not parse or is no object.
absl::StatusOr<Conversation> ReadConversation(const google::protobuf::RepeatedPtrField<v1::ChatMessage>& messages,
                                              const google::protobuf::RepeatedPtrField<v1::Tool>& tools,
                                              const std::string& template_variables);

// `names`: of the tools that are offered. InvalidArgument: a call is required of none, or of one that is not among
// them.
absl::Status ReadToolChoice(const v1::ToolChoice& choice, std::vector<std::string> names, ChatRequest& request);

// Sets the grammar. A schema takes a while to compile.
absl::Status ReadResponseFormat(const v1::ResponseFormat& format, GenerationParams& params);

}  // namespace millrace
