// SPDX-License-Identifier: Apache-2.0
// The agents that this server offers: whom a request's model names, what clients may know of them, and chats with one.
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "server/agents/agent_catalogue.h"
#include "server/agents/agent_runs.h"
#include "server/api/api_call.h"
#include "server/api/chat_run.h"
#include "server/api/parse_requests.h"
#include "server/wire/api_error.h"
#include "server/wire/json_object.h"

namespace millrace {
namespace {

void AddLimit(const char* name, int64_t limit, JsonObject& object) {
  if (limit > 0) object.Int(name, limit);
}

// Instructions are not shown: they are the operator's, and may say what is not for those who ask.
void AppendAgent(const Agent& agent, int64_t created, std::string& out) {
  std::string tools, limits;
  for (const auto& tool : agent.tools) {
    tools += tools.empty() ? "" : ",";
    JsonObject(tools).Text("name", tool->name()).Text("description", tool->description()).End();
  }
  JsonObject most(limits);
  most.Int("max_turns", agent.limits.max_turns).Int("max_tool_calls", agent.limits.max_tool_calls);
  AddLimit("max_output_tokens", agent.limits.max_output_tokens, most);
  AddLimit("max_total_tokens", agent.limits.max_total_tokens, most);
  most.End();
  JsonObject(out)
      .Text("id", agent.name)
      .Text("object", "agent")
      .Int("created", created)
      .Text("name", agent.name)
      .Text("description", agent.description)
      .Text("model", agent.model)
      .Raw("tools", absl::StrCat("[", tools, "]"))
      .Raw("limits", limits)
      .End();
}

// What one message of several turns has no place for.
absl::Status CheckForRun(const GenerationParams& params) {
  if (params.num_choices > 1) return ParamError("n", "an agent answers once", kUnsupportedValue);
  if (params.num_logprobs >= 0) {
    return ParamError("logprobs", "an agent's answer has no log-probabilities", kUnsupportedValue);
  }
  if (params.num_prompt_logprobs >= 0) {
    return ParamError("prompt_logprobs", "an agent's answer has no log-probabilities", kUnsupportedValue);
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<Answerer> ApiHandler::ResolveAnswerer(const Call& call, const std::string& asked) const {
  auto answerer = parts_.agents->Resolve(parts_.state, asked, call.tenant);
  if (!answerer.ok()) return WithErrorCode(WithErrorParam(answerer.status(), "model"), "model_not_found");
  return answerer;
}

RunLimits ApiHandler::LimitsFor(const Agent* agent) const {
  return agent != nullptr ? LimitsOf(*agent, absl::Now()) : parts_.runs->limits();
}

void ApiHandler::Agents(Call& call) {
  const AgentList agents = parts_.agents->ListFor(call.tenant);
  std::string data, body;
  for (const auto& agent : agents) {
    data += data.empty() ? "" : ",";
    AppendAgent(*agent, parts_.state.created(), data);
  }
  JsonObject(body).Text("object", "list").Raw("data", absl::StrCat("[", data, "]")).Bool("has_more", false).End();
  call.Send(std::move(body));
}

void ApiHandler::AgentByName(Call& call) {
  const auto agent = parts_.agents->Find(call.argument, call.tenant);
  if (agent == nullptr) {
    return Refuse(call,
                  absl::NotFoundError(absl::StrCat("the agent '", call.argument.substr(0, 200), "' does not exist")));
  }
  std::string body;
  AppendAgent(*agent, parts_.state.created(), body);
  call.Send(std::move(body));
}

void ApiHandler::ChatWithAgent(Call& call, ParsedChat parsed, const Answerer& answerer,
                               std::shared_ptr<Generator> generator) {
  ChatRequest& chat = parsed.request;
  if (absl::Status status = CheckForRun(chat.params); !status.ok()) return Refuse(call, status);
  ApplyAgent(*answerer.agent, chat);
  StreamOptions stream;
  stream.keep_alive_interval = options_.keep_alive_interval;
  auto out = std::make_shared<RunStream>(call.writer, std::move(stream));
  AgentRunArgs args{.generator = std::move(generator),
                    .caller = MakeCaller(call, "chat"),
                    .params = std::move(chat.params),
                    .request = {.required_tools = std::move(chat.required_tools),
                                .calls = chat.calls_once ? CallsPerTurn::kOne : CallsPerTurn::kAny,
                                .limits = LimitsFor(answerer.agent.get())}};
  auto run = std::make_shared<ChatRun>(out, parsed.stream,
                                       AnswerHead{.id = "chatcmpl-" + args.caller.request_id,
                                                  .model = answerer.name,
                                                  .created = absl::ToUnixSeconds(absl::Now())});
  if (!parsed.forbids_calls) args.request.tools = answerer.agent->tools;
  RunLimits& limits = args.request.limits;
  limits.max_output_tokens = TighterLimit(limits.max_output_tokens, args.params.max_tokens.value_or(0));
  args.request.conversation = std::move(chat.conversation);
  args.sink = [run](RunEvent&& event) { run->OnEvent(event); };
  args.on_done = [run](RunResult&& result) { run->OnDone(result); };
  auto cancellation = parts_.runs->Start(std::move(args));
  if (!cancellation.ok()) return RefuseWork(call, cancellation.status());
  out->CancelOnClose(*std::move(cancellation));
}

}  // namespace millrace
