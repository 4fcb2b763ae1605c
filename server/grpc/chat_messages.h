// SPDX-License-Identifier: Apache-2.0
#pragma once
// millrace.v1's messages and tools to a Conversation. Internal to server/grpc; pure functions, any thread.
#include <string>

#include "absl/status/statusor.h"
#include "engine/text/conversation.h"
#include "proto/millrace/v1/inference.pb.h"

namespace millrace {

// InvalidArgument names the field: no message, one without a role, JSON that does not parse or is no object.
absl::StatusOr<Conversation> ReadConversation(const google::protobuf::RepeatedPtrField<v1::ChatMessage>& messages,
                                              const google::protobuf::RepeatedPtrField<v1::Tool>& tools,
                                              const std::string& template_variables);

}  // namespace millrace
