// SPDX-License-Identifier: Apache-2.0
#pragma once
// Between the messages of millrace.v1.Agents and agent runs. Pure functions, any thread; InvalidArgument names the
// field at fault.
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "agent/run.h"
#include "proto/millrace/v1/agents.pb.h"
#include "server/agents/agent.h"
#include "server/agents/tool_set.h"
#include "server/pipeline/requests.h"

namespace millrace {

// The conversation, the client's tools, their choice and the sampling. The schema of a response_format is compiled,
// which takes a while.
absl::StatusOr<ChatRequest> FromMessage(const v1::StartRunRequest& message);

// The server's tools of a run: the agent's, or without one (null) those that the message names.
absl::StatusOr<std::vector<std::shared_ptr<Tool>>> ToolsOf(const v1::StartRunRequest& message, const Agent* agent,
                                                           const ToolSet& set);
// Makes the limits of a run that begins at `now` as tight as the message wants them.
absl::Status Tighten(const v1::RunLimits& message, absl::Time now, RunLimits& limits);

// False: the event is not told.
bool ToMessage(const RunEvent& event, v1::RunEvent* message);
// The last event.
void ToMessage(const RunResult& result, const absl::Status& status, v1::RunEvent* message);
void ToMessage(const Agent& agent, v1::ListAgentsResponse::Agent* message);

}  // namespace millrace
