// SPDX-License-Identifier: Apache-2.0
#include "server/grpc/run_messages.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "engine/text/utf8.h"
#include "server/grpc/chat_messages.h"
#include "server/grpc/inference_messages.h"
#include "server/wire/api_error.h"

namespace millrace {
namespace {

constexpr int kMaxServerTools = 128;
constexpr size_t kMaxInstructionsBytes = 4 << 20;

void Set(absl::Duration duration, google::protobuf::Duration* message) {
  const int64_t nanoseconds = absl::ToInt64Nanoseconds(duration);
  message->set_seconds(nanoseconds / 1'000'000'000);
  message->set_nanos(static_cast<int32_t>(nanoseconds % 1'000'000'000));
}

void ToMessage(const ToolCall& call, v1::ToolCall* message) {
  message->set_id(call.id);
  message->set_name(call.name);
  message->set_arguments(call.arguments);
}

void ToMessage(const TurnUsage& usage, v1::RunUsage* message) {
  message->set_prompt_tokens(usage.num_prompt_tokens);
  message->set_completion_tokens(usage.num_output_tokens);
  message->set_cached_tokens(usage.num_cached_tokens);
  message->set_reasoning_tokens(usage.num_reasoning_tokens);
}

void ToMessage(const ChatMessage& said, v1::ChatMessage* message) {
  message->set_role(said.role);
  if (const auto* text = std::get_if<std::string>(&said.content)) message->set_content(*text);
  message->set_name(said.name);
  message->set_tool_call_id(said.tool_call_id);
  message->set_reasoning(said.reasoning_content);
  for (const ChatToolCall& call : said.tool_calls) {
    ToMessage(ToolCall{.id = call.id, .name = call.name, .arguments = call.arguments}, message->add_tool_calls());
  }
}

v1::RunEnd ToMessage(RunEnd end) {
  switch (end) {
    case RunEnd::kAnswered:
      return v1::RUN_END_ANSWERED;
    case RunEnd::kClientCalls:
      return v1::RUN_END_CLIENT_CALLS;
    case RunEnd::kOutputTokens:
      return v1::RUN_END_OUTPUT_TOKENS;
    case RunEnd::kTotalTokens:
      return v1::RUN_END_TOTAL_TOKENS;
    case RunEnd::kTurns:
      return v1::RUN_END_TURNS;
    case RunEnd::kToolCalls:
      return v1::RUN_END_TOOL_CALLS;
    case RunEnd::kEqualCalls:
      return v1::RUN_END_EQUAL_CALLS;
    case RunEnd::kTime:
      return v1::RUN_END_TIME;
    case RunEnd::kCancelled:
      return v1::RUN_END_CANCELLED;
    case RunEnd::kFailed:
      return v1::RUN_END_FAILED;
  }
  return v1::RUN_END_UNSPECIFIED;
}

// `low`: 0 where none at all can be wanted.
template <typename Integer>
absl::Status TightenNumber(const char* name, int64_t wanted, int64_t low, Integer& limit) {
  if (wanted < low) return ParamError(name, absl::StrCat(name, " must be at least ", low));
  limit = static_cast<Integer>(std::min<int64_t>(limit, wanted));
  return absl::OkStatus();
}

absl::Status ReadDuration(const char* name, const google::protobuf::Duration& message, absl::Duration& out) {
  out = absl::Seconds(message.seconds()) + absl::Nanoseconds(message.nanos());
  if (out > absl::ZeroDuration()) return absl::OkStatus();
  return ParamError(name, absl::StrCat(name, " must be longer than nothing"));
}

}  // namespace

absl::StatusOr<ChatRequest> FromMessage(const v1::StartRunRequest& message) {
  v1::ChatRequest chat;
  *chat.mutable_messages() = message.messages();
  *chat.mutable_tools() = message.tools();
  *chat.mutable_sampling() = message.sampling();
  chat.set_template_variables(message.template_variables());
  auto request = FromMessage(chat);
  if (!request.ok()) return request;
  const GenerationParams& params = request->params;
  if (params.num_choices > 1) return ParamError("n", "a run answers once", kUnsupportedValue);
  if (params.num_logprobs >= 0 || params.num_prompt_logprobs >= 0) {
    return ParamError("logprobs", "a run has no log-probabilities", kUnsupportedValue);
  }
  if (message.instructions().size() > kMaxInstructionsBytes) {
    return ParamError("instructions", absl::StrCat("at most ", kMaxInstructionsBytes, " bytes"));
  }
  if (!message.instructions().empty()) ApplyAgent({.instructions = message.instructions()}, *request);
  if (message.has_parallel_tool_calls() && !message.parallel_tool_calls()) request->calls_once = true;
  if (absl::Status status = ReadResponseFormat(message.response_format(), request->params); !status.ok()) return status;
  return request;
}

absl::StatusOr<std::vector<std::shared_ptr<Tool>>> ToolsOf(const v1::StartRunRequest& message, const Agent* agent,
                                                           const ToolSet& set) {
  if (agent != nullptr) {
    if (message.server_tools().empty()) return agent->tools;
    return ParamError("server_tools", "an agent has its own tools");
  }
  if (message.server_tools_size() > kMaxServerTools) {
    return ParamError("server_tools", absl::StrCat("at most ", kMaxServerTools, " tools"));
  }
  std::vector<std::shared_ptr<Tool>> tools;
  for (const std::string& name : message.server_tools()) {
    tools.push_back(set.Find(name));
    if (tools.back() != nullptr) continue;
    const std::string there = absl::StrJoin(
        set.all(), ", ", [](std::string* out, const std::shared_ptr<Tool>& tool) { out->append(tool->name()); });
    return ParamError("server_tools", absl::StrCat("this server has no tool '", name.substr(0, 64),
                                                   "'; it has: ", there.empty() ? "none" : there));
  }
  return tools;
}

absl::Status Tighten(const v1::RunLimits& message, absl::Time now, RunLimits& limits) {
  absl::Status status;
  if (message.has_max_turns()) status.Update(TightenNumber("max_turns", message.max_turns(), 1, limits.max_turns));
  if (message.has_max_tool_calls()) {
    status.Update(TightenNumber("max_tool_calls", message.max_tool_calls(), 0, limits.max_tool_calls));
  }
  const auto tokens = [&status](const char* name, int64_t wanted, int64_t& limit) {
    if (wanted < 1) status.Update(ParamError(name, absl::StrCat(name, " must be at least 1")));
    limit = TighterLimit(limit, wanted);
  };
  if (message.has_max_output_tokens()) {
    tokens("max_output_tokens", message.max_output_tokens(), limits.max_output_tokens);
  }
  if (message.has_max_total_tokens()) tokens("max_total_tokens", message.max_total_tokens(), limits.max_total_tokens);
  absl::Duration time;
  if (message.has_time()) {
    status.Update(ReadDuration("time", message.time(), time));
    limits.deadline = std::min(limits.deadline, now + time);
  }
  if (message.has_tool_time()) {
    status.Update(ReadDuration("tool_time", message.tool_time(), time));
    limits.tool_time = std::min(limits.tool_time, time);
  }
  return status;
}

bool ToMessage(const RunEvent& event, v1::RunEvent* message) {
  if (const auto* began = std::get_if<TurnBegan>(&event)) {
    message->set_turn(began->turn);
    message->mutable_turn_began();
  } else if (const auto* thought = std::get_if<ReasoningPiece>(&event)) {
    message->set_turn(thought->turn);
    message->set_reasoning(thought->text);
  } else if (const auto* text = std::get_if<TextPiece>(&event)) {
    message->set_turn(text->turn);
    message->set_text(text->text);
  } else if (const auto* made = std::get_if<CallMade>(&event)) {
    message->set_turn(made->turn);
    v1::RunEvent::CallMade* out = message->mutable_call_made();
    out->set_call(made->call);
    out->set_is_clients(made->owner == CallOwner::kClient);
    ToMessage(made->tool_call, out->mutable_tool_call());
  } else if (const auto* answered = std::get_if<CallAnswered>(&event)) {
    message->set_turn(answered->turn);
    v1::RunEvent::CallAnswered* out = message->mutable_call_answered();
    out->set_call(answered->call);
    out->set_tool_call_id(answered->id);
    out->set_text(answered->result.text);
    out->set_is_error(answered->result.is_error);
    Set(answered->duration, out->mutable_duration());
  } else if (const auto* ended = std::get_if<TurnEnded>(&event)) {
    message->set_turn(ended->turn);
    ToMessage(ended->usage, message->mutable_turn_ended()->mutable_usage());
  } else {
    return false;  // PromptTaken is for HTTP's status; RunEnded comes with the result
  }
  return true;
}

void ToMessage(const RunResult& result, const absl::Status& status, v1::RunEvent* message) {
  message->set_turn(std::max(0, result.num_turns - 1));
  v1::RunEvent::RunEnded* ended = message->mutable_run_ended();
  ended->set_end(ToMessage(result.end));
  ended->set_status_code(static_cast<int32_t>(status.code()));
  AppendRepairedUtf8({status.message().data(), status.message().size()}, *ended->mutable_status_message());
  ToMessage(result.usage, ended->mutable_usage());
  ended->set_turns(result.num_turns);
  ended->set_tool_calls(result.num_tool_calls);
  for (const ToolCall& call : result.client_calls) ToMessage(call, ended->add_client_calls());
  for (const ChatMessage& said : result.messages) ToMessage(said, ended->add_messages());
  ended->set_stop_string(result.stop_sequence);
}

void ToMessage(const Agent& agent, v1::ListAgentsResponse::Agent* message) {
  message->set_name(agent.name);
  message->set_description(agent.description);
  message->set_model(agent.model);
  for (const std::shared_ptr<Tool>& tool : agent.tools) {
    v1::ListAgentsResponse::Agent::ServerTool* out = message->add_tools();
    out->set_name(std::string(tool->name()));
    out->set_description(std::string(tool->description()));
  }
  v1::RunLimits* limits = message->mutable_limits();
  limits->set_max_turns(agent.limits.max_turns);
  limits->set_max_tool_calls(agent.limits.max_tool_calls);
  if (agent.limits.max_output_tokens > 0) limits->set_max_output_tokens(agent.limits.max_output_tokens);
  if (agent.limits.max_total_tokens > 0) limits->set_max_total_tokens(agent.limits.max_total_tokens);
  if (agent.time != absl::InfiniteDuration()) Set(agent.time, limits->mutable_time());
  Set(agent.limits.tool_time, limits->mutable_tool_time());
}

}  // namespace millrace
