// SPDX-License-Identifier: Apache-2.0
#include "server/grpc/agents_service.h"

#include <algorithm>
#include <memory>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "server/agents/run_switch.h"
#include "server/grpc/chat_messages.h"
#include "server/grpc/pumped_reactor.h"
#include "server/grpc/run_messages.h"
#include "server/wire/api_error.h"

namespace millrace {
namespace {

absl::StatusOr<Answerer> Resolve(const AgentCatalogue& agents, const ServerState& state,
                                 const v1::StartRunRequest& message, const Tenant& tenant) {
  if (message.agent().empty()) {
    auto model = ResolveModel(state, message.model());
    if (!model.ok()) return model.status();
    return Answerer{.name = *std::move(model), .agent = nullptr};
  }
  if (!message.model().empty()) return ParamError("model", "an agent has its own model");
  auto agent = agents.Find(message.agent(), tenant);
  if (agent == nullptr) {
    const std::string name = message.agent().substr(0, 200);
    return WithErrorParam(absl::NotFoundError(absl::StrCat("the agent '", name, "' does not exist")), "agent");
  }
  return Answerer{.name = agent->name, .agent = std::move(agent)};
}

// The run that the message wants.
absl::StatusOr<AgentRunArgs> MakeRun(const v1::StartRunRequest& message, const Answerer& answerer,
                                     const AgentRuns& runs) {
  auto chat = FromMessage(message);
  if (!chat.ok()) return chat.status();
  auto tools = ToolsOf(message, answerer.agent.get(), runs.tools());
  if (!tools.ok()) return tools.status();
  std::vector<std::string> names;
  for (const v1::Tool& tool : message.tools()) names.push_back(tool.name());
  for (const std::shared_ptr<Tool>& tool : *tools) names.emplace_back(tool->name());
  absl::Status chosen = ReadToolChoice(message.tool_choice(), std::move(names), *chat);
  if (!chosen.ok()) return chosen;
  if (message.tool_choice().mode() == v1::ToolChoice::MODE_NONE) tools->clear();
  const absl::Time now = absl::Now();
  RunLimits limits = runs.limits();
  if (answerer.agent != nullptr) {
    limits = LimitsOf(*answerer.agent, now);
    ApplyAgent(*answerer.agent, *chat);
  }
  if (absl::Status status = Tighten(message.limits(), now, limits); !status.ok()) return status;
  limits.max_output_tokens = TighterLimit(limits.max_output_tokens, chat->params.max_tokens.value_or(0));
  AgentRunArgs args{.generator = nullptr,
                    .caller = {},
                    .params = std::move(chat->params),
                    .request = {.conversation = std::move(chat->conversation),
                                .tools = *std::move(tools),
                                .required_tools = std::move(chat->required_tools),
                                .calls = chat->calls_once ? CallsPerTurn::kOne : CallsPerTurn::kAny,
                                .limits = limits}};
  return args;
}

}  // namespace

class AgentsService::RunCall final : public PumpedReactor<grpc::ServerWriteReactor<v1::RunEvent>, v1::RunEvent> {
 public:
  using PumpedReactor::PumpedReactor;

  static grpc::ServerWriteReactor<v1::RunEvent>* Begin(const AgentsService& service,
                                                       grpc::CallbackServerContext* context,
                                                       const v1::StartRunRequest& message) {
    auto call = std::make_shared<RunCall>(context);
    Caller caller = MakeCaller(context, "grpc.run");
    if (absl::Status status = call->Prepare(call, service, caller, message); !status.ok()) {
      NoteRefusal(service.backend_, caller, status);
      call->End(status);
    }
    call->Own(call);
    return call.get();
  }

 private:
  absl::Status Prepare(const std::shared_ptr<RunCall>& self, const AgentsService& service, Caller& caller,
                       const v1::StartRunRequest& message) {
    absl::Status allowed = Authorize(*context(), service.backend_.keys, Access::kInfer, caller);
    if (!allowed.ok()) return allowed;
    if (absl::Status status = service.gate_.Enter(); !status.ok()) return status;
    auto ticket = std::make_shared<CallTicket>(&service.gate_);
    // A copy: the call, and the message with it, may be over before a worker looks at it.
    const bool is_posted = service.backend_.workers.Post([self, ticket, caller, message, &service] {
      absl::Status status = self->StartRun(self, ticket, service, caller, message);
      if (status.ok()) return;
      NoteRefusal(service.backend_, caller, status);
      self->End(status);
    });
    return is_posted ? absl::OkStatus() : absl::ResourceExhaustedError("too many requests wait to be read");
  }

  absl::Status StartRun(const std::shared_ptr<RunCall>& self, const std::shared_ptr<CallTicket>& ticket,
                        const AgentsService& service, const Caller& caller, const v1::StartRunRequest& message) {
    auto answerer = Resolve(service.agents_, service.backend_.state, message, caller.tenant);
    if (!answerer.ok()) return answerer.status();
    auto args = MakeRun(message, *answerer, service.runs_);
    if (!args.ok()) return args.status();
    auto generator = service.backend_.state.Admit();
    if (!generator.ok()) return generator.status();
    args->generator = *std::move(generator);
    args->caller = caller;
    args->request.limits.deadline = std::min(args->request.limits.deadline, caller.deadline);
    args->sink = [self](RunEvent&& event) { self->OnEvent(event); };
    args->on_done = [self, ticket](RunResult&& result) { self->OnRunOver(result); };
    auto cancellation = service.runs_.Start(*std::move(args));
    if (!cancellation.ok()) return cancellation.status();
    switch_.Connect(*std::move(cancellation));
    return absl::OkStatus();
  }

  void OnEvent(const RunEvent& event) {
    v1::RunEvent message;
    if (ToMessage(event, &message) && !Push(std::move(message))) switch_.Pull();
  }

  void OnRunOver(const RunResult& result) {
    absl::Status status = result.status;
    if (result.end == RunEnd::kCancelled) status = absl::UnavailableError("the server is shutting down");
    v1::RunEvent last;
    ToMessage(result, status, &last);
    Push(std::move(last));
    End(status);
  }

  void OnGone() override {
    switch_.Pull();
    End(absl::CancelledError("the client went away"));
  }
  void OnOver() override { switch_.Pull(); }

  RunSwitch switch_;
};

grpc::ServerWriteReactor<v1::RunEvent>* AgentsService::StartRun(grpc::CallbackServerContext* context,
                                                                const v1::StartRunRequest* request) {
  return RunCall::Begin(*this, context, *request);
}

grpc::ServerUnaryReactor* AgentsService::ListAgents(grpc::CallbackServerContext* context,
                                                    const v1::ListAgentsRequest* request,
                                                    v1::ListAgentsResponse* response) {
  grpc::ServerUnaryReactor* reactor = context->DefaultReactor();
  Caller caller;
  const absl::Status status = Authorize(*context, backend_.keys, Access::kInfer, caller);
  if (status.ok()) {
    for (const auto& agent : agents_.ListFor(caller.tenant)) ToMessage(*agent, response->add_agents());
  }
  reactor->Finish(ToGrpcStatus(status, context));
  return reactor;
}

}  // namespace millrace
