// SPDX-License-Identifier: Apache-2.0
// The routes of Anthropic's Messages API. They run on workers; an answer is made by an agent run, on its own thread.
#include <utility>

#include "absl/strings/str_cat.h"
#include "agent/offer_tools.h"
#include "server/agents/agent_catalogue.h"
#include "server/agents/agent_runs.h"
#include "server/api/api_call.h"
#include "server/api/run_stream.h"
#include "server/messages/message_error.h"
#include "server/messages/message_events.h"
#include "server/messages/messages_request.h"
#include "server/wire/api_error.h"
#include "server/wire/json_object.h"

namespace millrace {
namespace {

constexpr char kPing[] = "event: ping\ndata: {\"type\":\"ping\"}\n\n";

// One run behind POST /v1/messages. Used by the run's thread.
class MessageRun {
 public:
  MessageRun(std::shared_ptr<RunStream> out, AnswerMode mode, MessageEventsArgs events, std::string request_id)
      : out_(std::move(out)), mode_(mode), events_(std::move(events)), request_id_(std::move(request_id)) {}

  // Until the prompt is taken, what is wrong with it can still be an error of HTTP.
  void OnEvent(const RunEvent& event) {
    if (const auto* taken = std::get_if<PromptTaken>(&event)) {
      Begin(taken->num_prompt_tokens);
    } else if (!std::holds_alternative<TurnBegan>(event) && !std::holds_alternative<TurnEnded>(event) &&
               !std::holds_alternative<RunEnded>(event)) {
      Begin(0);
    }
    events_.Handle(event);
  }

  void OnDone(const RunResult& result) {
    if (result.end == RunEnd::kFailed || result.end == RunEnd::kCancelled) {
      return Fail(result.end == RunEnd::kFailed ? result.status
                                                : absl::UnavailableError("the server is shutting down"));
    }
    Begin(result.usage.num_prompt_tokens);
    events_.End(result);
    if (mode_ == AnswerMode::kStream) {
      out_->End();
    } else {
      out_->Send({.body = events_.Object()});
    }
  }

 private:
  void Begin(int64_t num_prompt_tokens) {
    if (mode_ == AnswerMode::kStream && !std::exchange(has_begun_, true)) events_.Begin(num_prompt_tokens);
  }

  void Fail(const absl::Status& status) {
    const ApiError error = ToApiError(status);
    if (!has_begun_) return out_->Send(MessageErrorResponse(error, request_id_));
    out_->Write(absl::StrCat("event: error\ndata: ", MessageErrorJson(error, request_id_), "\n\n"));
    out_->End();
  }

  const std::shared_ptr<RunStream> out_;
  const AnswerMode mode_;
  MessageEvents events_;
  const std::string request_id_;
  bool has_begun_ = false;
};

// The agent's own, or what the client chose.
absl::StatusOr<std::vector<std::shared_ptr<Tool>>> ServerTools(const ToolSet& set, const MessagesRequest& request,
                                                               const Agent* agent) {
  if (agent != nullptr && !request.tool_servers.empty()) {
    return ParamError("tools",
                      absl::StrCat("the agent '", agent->name, "' has tools of its own: only functions can be added"),
                      kUnsupportedValue);
  }
  std::vector<std::shared_ptr<Tool>> tools;
  if (agent != nullptr && !request.forbids_calls) tools = agent->tools;
  for (const ToolServerChoice& choice : request.tool_servers) {
    const auto chosen = ChooseTools(set, choice);
    if (!chosen.ok()) return chosen.status();
    for (const ServedTool* served : *chosen) tools.push_back(served->tool);
  }
  return tools;
}

ToolSource SourceOf(const ToolSet& set, std::string_view name) {
  const ServedTool* served = set.FindServed(name);
  if (served == nullptr) return {.server = kOwnToolServer, .name = std::string(name)};
  return {.server = served->server, .name = served->name};
}

}  // namespace

void ApiHandler::Messages(Call& call) {
  auto generator = parts_.state.Admit();
  if (!generator.ok()) return Refuse(call, generator.status());
  auto request = ParseMessages(call.request.body, MessagesPurpose::kAnswer);
  if (!request.ok()) return Refuse(call, request.status());
  auto answerer = ResolveAnswerer(call, request->chat.model);
  if (!answerer.ok()) return Refuse(call, answerer.status());
  const Agent* agent = answerer->agent.get();
  if (agent != nullptr) ApplyAgent(*agent, request->chat);
  const ToolSet& set = parts_.runs->tools();
  auto tools = ServerTools(set, *request, agent);
  if (!tools.ok()) return Refuse(call, tools.status());
  call.request.body = {};  // a long run should not hold it

  std::vector<std::string> required = std::move(request->chat.required_tools);
  for (const std::shared_ptr<Tool>& tool : *tools) {
    if (request->must_call) required.emplace_back(tool->name());
  }
  const int64_t max_tokens = request->chat.params.max_tokens.value_or(0);
  StreamOptions stream;
  stream.keep_alive = kPing;
  stream.keep_alive_interval = options_.keep_alive_interval;
  auto out = std::make_shared<RunStream>(call.writer, std::move(stream));
  MessageEventsArgs events{.id = "msg_" + RandomId(),
                           .model = std::move(answerer->name),
                           .max_tokens = max_tokens,
                           .shows_thinking = request->shows_thinking,
                           .source_of = [&set](std::string_view name) { return SourceOf(set, name); }};
  if (request->mode == AnswerMode::kStream) {
    events.stream = [sink = out.get()](std::string_view bytes) { sink->Write(bytes); };
  }
  auto run = std::make_shared<MessageRun>(out, request->mode, std::move(events), call.request.id);
  AgentRunArgs args{.generator = *std::move(generator),
                    .caller = MakeCaller(call, "messages"),
                    .params = std::move(request->chat.params),
                    .request = {.conversation = std::move(request->chat.conversation),
                                .tools = *std::move(tools),
                                .required_tools = std::move(required),
                                .calls = request->chat.calls_once ? CallsPerTurn::kOne : CallsPerTurn::kAny,
                                .limits = LimitsFor(agent)}};
  args.request.limits.max_output_tokens = TighterLimit(args.request.limits.max_output_tokens, max_tokens);
  args.sink = [run](RunEvent&& event) { run->OnEvent(event); };
  args.on_done = [run](RunResult&& result) { run->OnDone(result); };
  auto cancellation = parts_.runs->Start(std::move(args));
  if (!cancellation.ok()) return RefuseWork(call, cancellation.status());
  out->CancelOnClose(*std::move(cancellation));
}

// Exact: by the model's own template and tokenizer, as the request itself would be.
void ApiHandler::CountTokens(Call& call) {
  auto generator = parts_.state.Admit();
  if (!generator.ok()) return Refuse(call, generator.status());
  auto request = ParseMessages(call.request.body, MessagesPurpose::kCount);
  if (!request.ok()) return Refuse(call, request.status());
  auto answerer = ResolveAnswerer(call, request->chat.model);
  if (!answerer.ok()) return Refuse(call, answerer.status());
  const Agent* agent = answerer->agent.get();
  if (agent != nullptr) ApplyAgent(*agent, request->chat);
  auto tools = ServerTools(parts_.runs->tools(), *request, agent);
  if (!tools.ok()) return Refuse(call, tools.status());
  if (absl::Status status = OfferTools(*tools, request->chat.conversation); !status.ok()) return Refuse(call, status);
  auto tokens = (*generator)->RenderChat(request->chat);
  if (!tokens.ok()) return Refuse(call, tokens.status());
  std::string body;
  JsonObject(body).Int("input_tokens", static_cast<int64_t>(tokens->size())).End();
  call.Send(std::move(body));
}

}  // namespace millrace
