// SPDX-License-Identifier: Apache-2.0
// millrace.v1.Agents over a scripted engine: what happens in a run, as a client's stream sees it.
#include <algorithm>
#include <catch2/catch.hpp>
#include <fstream>
#include <thread>

#include "absl/strings/match.h"
#include "agent/sandbox/sandbox.h"
#include "proto/millrace/v1/agents.grpc.pb.h"
#include "server/agents/agent_catalogue.h"
#include "server/agents/agent_runs.h"
#include "tests/server/fake_engine.h"
#include "tests/server/grpc_fixture.h"
#include "tests/server/scratch_dir.h"

namespace millrace {
namespace {

constexpr char kAgents[] =
    "agents:\n"
    "- {name: sums, description: Adds up., instructions: Add up., tools: [calculator], limits: {max_turns: 3}}\n"
    "- {name: theirs, tenants: [a]}\n";
constexpr char kCall[] = R"(<tool_call>{"name": "calculator", "arguments": {"expression": "6*7"}}</tool_call>)";
constexpr char kLookUp[] = R"(<tool_call>{"name": "look_up", "arguments": {"key": "x"}}</tool_call>)";

std::string Asked(const Request& request) {
  std::string text;
  for (const int32_t token : request.prompt_tokens) text += token < 256 ? static_cast<char>(token) : '|';
  return text;
}

FakeEngine::Options Says(const std::string& first, const std::string& after_result = "it is 42") {
  FakeEngine::Options options;
  options.max_model_tokens = 4000;
  options.script = [=](const Request& request, int32_t position) {
    const std::string answer = absl::StrContains(Asked(request), "42") ? after_result : first;
    return position < static_cast<int32_t>(answer.size()) ? answer[static_cast<size_t>(position)] : kFakeEos;
  };
  return options;
}

struct AgentsGrpcFixture {
  explicit AgentsGrpcFixture(const FakeEngine::Options& options, const ToolOptions& tools = {})
      : engine(options), runs(*ToolSet::Create(tools), {}, nullptr) {
    std::ofstream(folder.path() + "/agents.yaml") << kAgents;
    const absl::Status loaded = agents.Load();
    REQUIRE(loaded.ToString() == "OK");
    state.SetGenerator(Generator::Create(engine, nullptr, {}));
    state.SetHealth(EngineHealth::kReady);
    server = GrpcServer::Start({.host = "127.0.0.1", .port = 0},
                               {.state = state, .keys = keys, .observer = &observer, .runs = &runs, .agents = &agents})
                 .value();
    channel = grpc::CreateChannel("localhost:" + std::to_string(server->port()), grpc::InsecureChannelCredentials());
    stub = v1::Agents::NewStub(channel);
  }
  ~AgentsGrpcFixture() {
    server.reset();
    runs.Stop();
    state.SetGenerator(nullptr);
  }

  ScratchDir folder;
  FakeEngine engine;
  ServerState state{{"fake", "alias"}};
  ApiKeys keys;
  RecordingObserver observer;
  AgentRuns runs;
  AgentCatalogue agents{folder.path() + "/agents.yaml",
                        {.model_names = {"fake", "alias"}, .limits = runs.limits(), .tools = &runs.tools()}};
  std::unique_ptr<GrpcServer> server;
  std::shared_ptr<grpc::Channel> channel;
  std::unique_ptr<v1::Agents::Stub> stub;
};

struct Run {
  std::vector<v1::RunEvent> events;
  std::string text;
  v1::RunEvent::RunEnded ended;
  grpc::Status status;
  std::string param;
};

v1::StartRunRequest Ask(const std::string& text) {
  v1::StartRunRequest request;
  v1::ChatMessage* message = request.add_messages();
  message->set_role("user");
  message->set_content(text);
  return request;
}

Run Start(AgentsGrpcFixture& f, const v1::StartRunRequest& request, const std::string& key = "") {
  Run run;
  Context context;
  if (!key.empty()) context.AddMetadata("authorization", "Bearer " + key);
  auto reader = f.stub->StartRun(&context, request);
  v1::RunEvent event;
  while (reader->Read(&event)) {
    run.text += event.text();
    if (event.has_run_ended()) run.ended = event.run_ended();
    run.events.push_back(std::move(event));
  }
  run.status = reader->Finish();
  const auto& trailing = context.GetServerTrailingMetadata();
  if (const auto found = trailing.find("millrace-param"); found != trailing.end()) {
    run.param.assign(found->second.data(), found->second.size());
  }
  return run;
}

v1::StartRunRequest AskSums() {
  v1::StartRunRequest request = Ask("hi");
  request.set_agent("sums");
  return request;
}

TEST_CASE("Grpc agents: a run's events in their order, and what it adds to the conversation", "[grpc_agents]") {
  AgentsGrpcFixture f(Says(kCall));
  const Run run = Start(f, AskSums());
  REQUIRE(run.status.ok());
  std::vector<v1::RunEvent::EventCase> cases;
  for (const v1::RunEvent& event : run.events) {
    const bool is_piece = event.event_case() == v1::RunEvent::kText;
    if (!is_piece || cases.empty() || cases.back() != v1::RunEvent::kText) cases.push_back(event.event_case());
  }
  using Event = v1::RunEvent;
  CHECK(cases == std::vector<Event::EventCase>{Event::kTurnBegan, Event::kCallMade, Event::kCallAnswered,
                                               Event::kTurnEnded, Event::kTurnBegan, Event::kText, Event::kTurnEnded,
                                               Event::kRunEnded});
  const auto& made = run.events[1].call_made();
  CHECK(made.tool_call().name() == "calculator");
  CHECK_FALSE(made.is_clients());
  CHECK(run.events[2].call_answered().text() == "42");
  CHECK(run.events[2].call_answered().tool_call_id() == made.tool_call().id());
  CHECK(run.events.back().turn() == 1);
  CHECK(run.text == "it is 42");
  CHECK(run.ended.end() == v1::RUN_END_ANSWERED);
  CHECK(run.ended.status_code() == 0);
  CHECK(run.ended.turns() == 2);
  CHECK(run.ended.tool_calls() == 1);
  const std::vector<Request> asked = f.engine.submitted();
  CHECK(absl::StrContains(Asked(asked[0]), "Add up."));
  CHECK(run.ended.usage().prompt_tokens() ==
        static_cast<int64_t>(asked[0].prompt_tokens.size() + asked[1].prompt_tokens.size()));
  REQUIRE(run.ended.messages_size() == 3);
  CHECK(run.ended.messages(0).tool_calls(0).name() == "calculator");
  CHECK(run.ended.messages(1).role() == "tool");
  CHECK(run.ended.messages(2).content() == "it is 42");
}

TEST_CASE("Grpc agents: tools named in the request, and a run that goes on with the client's results",
          "[grpc_agents]") {
  AgentsGrpcFixture f(Says(kLookUp));
  v1::StartRunRequest request = Ask("hi");
  request.set_instructions("Kindly.");
  request.add_server_tools("calculator");
  v1::Tool* tool = request.add_tools();
  tool->set_name("look_up");
  tool->set_parameters(R"({"type": "object"})");
  const Run first = Start(f, request);
  REQUIRE(first.status.ok());
  CHECK(first.ended.end() == v1::RUN_END_CLIENT_CALLS);
  REQUIRE(first.ended.client_calls_size() == 1);
  CHECK(first.ended.client_calls(0).name() == "look_up");
  CHECK(absl::StrContains(Asked(f.engine.submitted().back()), "Kindly."));
  for (const v1::ChatMessage& said : first.ended.messages()) *request.add_messages() = said;
  v1::ChatMessage* result = request.add_messages();
  result->set_role("tool");
  result->set_tool_call_id(first.ended.client_calls(0).id());
  result->set_content("it was 42");
  const Run second = Start(f, request);
  CHECK(second.ended.end() == v1::RUN_END_ANSWERED);
  CHECK(second.text == "it is 42");
}

TEST_CASE("Grpc agents: limits are tightened by the request, never widened", "[grpc_agents]") {
  AgentsGrpcFixture f(Says(kCall, kCall));
  v1::StartRunRequest request = AskSums();
  request.mutable_limits()->set_max_turns(9);
  CHECK(Start(f, request).ended.turns() == 3);
  request.mutable_limits()->set_max_turns(2);
  const Run two = Start(f, request);
  CHECK(two.status.ok());
  CHECK(two.ended.end() == v1::RUN_END_TURNS);
  CHECK(two.ended.turns() == 2);
  request.mutable_limits()->set_max_tool_calls(0);
  CHECK(Start(f, request).ended.end() == v1::RUN_END_TOOL_CALLS);
  request.mutable_limits()->set_max_output_tokens(4);
  const Run cut = Start(f, request);
  CHECK(cut.ended.end() == v1::RUN_END_OUTPUT_TOKENS);
  CHECK(cut.ended.usage().completion_tokens() == 4);
}

TEST_CASE("Grpc agents: what cannot run names its field", "[grpc_agents]") {
  AgentsGrpcFixture f(Says("Hello"));
  const auto refused = [&f](const v1::StartRunRequest& request, grpc::StatusCode code, const char* param) {
    const Run run = Start(f, request);
    INFO(param);
    CHECK(run.status.error_code() == code);
    CHECK(run.param == param);
    CHECK(run.events.empty());
  };
  const auto with = [](const std::function<void(v1::StartRunRequest&)>& change) {
    v1::StartRunRequest request = AskSums();
    change(request);
    return request;
  };
  using R = v1::StartRunRequest;
  refused(with([](R& r) { r.set_agent("nobody"); }), grpc::StatusCode::NOT_FOUND, "agent");
  refused(with([](R& r) { r.set_model("fake"); }), grpc::StatusCode::INVALID_ARGUMENT, "model");
  refused(with([](R& r) { r.add_server_tools("clock"); }), grpc::StatusCode::INVALID_ARGUMENT, "server_tools");
  refused(with([](R& r) { r.clear_messages(); }), grpc::StatusCode::INVALID_ARGUMENT, "messages");
  refused(with([](R& r) { r.mutable_sampling()->set_n(2); }), grpc::StatusCode::INVALID_ARGUMENT, "n");
  refused(with([](R& r) { r.mutable_sampling()->set_logprobs(0); }), grpc::StatusCode::INVALID_ARGUMENT, "logprobs");
  refused(with([](R& r) { r.mutable_limits()->set_max_turns(0); }), grpc::StatusCode::INVALID_ARGUMENT, "max_turns");
  refused(with([](R& r) { r.mutable_limits()->mutable_time(); }), grpc::StatusCode::INVALID_ARGUMENT, "time");
  refused(with([](R& r) { r.mutable_tool_choice()->set_function("x"); }), grpc::StatusCode::INVALID_ARGUMENT,
          "tool_choice");
  refused(with([](R& r) { r.mutable_response_format()->set_json_schema("["); }), grpc::StatusCode::INVALID_ARGUMENT,
          "response_format");
  refused(with([](R& r) {
            r.clear_agent();
            r.set_model("nobody");
          }),
          grpc::StatusCode::NOT_FOUND, "model");
  refused(with([](R& r) {
            r.clear_agent();
            r.add_server_tools("shovel");
          }),
          grpc::StatusCode::INVALID_ARGUMENT, "server_tools");
  CHECK(f.observer.TakeRefusals().size() == 12);
}

TEST_CASE("Grpc agents: a run that fails says so in its last event and in the call's status", "[grpc_agents]") {
  FakeEngine::Options options;
  options.script = [](const Request&, int32_t position) { return position < 3 ? 'a' : -1; };
  AgentsGrpcFixture f(options);
  const Run run = Start(f, Ask("hi"));
  CHECK(run.text == "aaa");
  CHECK(run.ended.end() == v1::RUN_END_FAILED);
  CHECK(run.status.error_code() == grpc::StatusCode::INTERNAL);
  CHECK(run.ended.status_code() == static_cast<int>(grpc::StatusCode::INTERNAL));
}

TEST_CASE("Grpc agents: only agents of the tenant exist, and keys are asked for", "[grpc_agents]") {
  AgentsGrpcFixture f(Says("Hello"));
  REQUIRE(f.keys.AddText("key-a a\nkey-b b\n", "keys").ok());
  const auto list = [&f](const std::string& key, v1::ListAgentsResponse* response) {
    Context context;
    if (!key.empty()) context.AddMetadata("authorization", "Bearer " + key);
    return f.stub->ListAgents(&context, {}, response).error_code();
  };
  v1::ListAgentsResponse none, one, two;
  CHECK(list("", &none) == grpc::StatusCode::UNAUTHENTICATED);
  CHECK(list("key-b", &one) == grpc::StatusCode::OK);
  CHECK(list("key-a", &two) == grpc::StatusCode::OK);
  CHECK(two.agents_size() == 2);
  REQUIRE(one.agents_size() == 1);
  CHECK(one.agents(0).name() == "sums");
  CHECK(one.agents(0).tools(0).name() == "calculator");
  CHECK(one.agents(0).limits().max_turns() == 3);
  CHECK_FALSE(one.agents(0).limits().has_time());
  CHECK_FALSE(absl::StrContains(one.SerializeAsString(), "Add up."));
  v1::StartRunRequest request = Ask("hi");
  request.set_agent("theirs");
  CHECK(Start(f, request).status.error_code() == grpc::StatusCode::UNAUTHENTICATED);
  CHECK(Start(f, request, "key-a").status.ok());
  const Run theirs = Start(f, request, "key-b");
  request.set_agent("nobody");
  const Run nobodys = Start(f, request, "key-b");
  CHECK(theirs.status.error_code() == grpc::StatusCode::NOT_FOUND);
  CHECK(theirs.status.error_message().size() == nobodys.status.error_message().size());
}

TEST_CASE("Grpc agents: who hangs up ends the run; draining lets it finish and refuses others", "[grpc_agents]") {
  FakeEngine::Options options{.answer = std::string(900, 'a'), .step_time = absl::Milliseconds(1)};
  AgentsGrpcFixture f(options);
  {
    Context context;
    auto reader = f.stub->StartRun(&context, Ask("hi"));
    v1::RunEvent event;
    while (reader->Read(&event) && event.text().empty()) continue;
    context.TryCancel();
    while (reader->Read(&event)) continue;
    CHECK(reader->Finish().error_code() == grpc::StatusCode::CANCELLED);
    CHECK(f.engine.WaitRunning(0));
    CHECK(f.engine.num_cancelled() == 1);
  }
  Context context;
  auto reader = f.stub->StartRun(&context, Ask("hi"));
  v1::RunEvent event;
  while (reader->Read(&event) && event.text().empty()) continue;
  f.engine.SetPaused(true);
  f.server->BeginDrain();
  CHECK(Start(f, Ask("hi")).status.error_code() == grpc::StatusCode::UNAVAILABLE);
  CHECK(f.server->num_active_calls() >= 1);
  f.engine.SetPaused(false);
  while (reader->Read(&event)) continue;
  CHECK(event.run_ended().end() == v1::RUN_END_ANSWERED);
  CHECK(reader->Finish().ok());
}

TEST_CASE("Grpc agents: a cancellation and a time limit reach the tool that is at work", "[grpc_agents]") {
  if (!ProbeSandbox().is_complete()) {
    WARN("SKIPPED: the kernel has no sandbox for programs");
    return;
  }
  AgentsGrpcFixture f(
      Says(R"x(<tool_call>{"name": "python", "arguments": {"code": "import time; time.sleep(600)"}}</tool_call>)x"),
      {.enabled = {"python", "calculator"}});
  v1::StartRunRequest request = Ask("hi");
  request.add_server_tools("python");
  {
    Context context;
    auto reader = f.stub->StartRun(&context, request);
    v1::RunEvent event;
    while (reader->Read(&event) && !event.has_call_made()) continue;
    context.TryCancel();
    while (reader->Read(&event)) continue;
    CHECK(reader->Finish().error_code() == grpc::StatusCode::CANCELLED);
  }
  // The run's thread waits for the tool: it is over when the tool is.
  while (f.runs.num_running() > 0) std::this_thread::yield();
  request.mutable_limits()->mutable_tool_time()->set_nanos(1'000'000);
  request.mutable_limits()->set_max_turns(2);
  const Run run = Start(f, request);
  CHECK(run.status.ok());
  CHECK(run.ended.end() == v1::RUN_END_TURNS);
  const auto is_answer = [](const v1::RunEvent& event) { return event.has_call_answered(); };
  const auto answered = std::find_if(run.events.begin(), run.events.end(), is_answer);
  REQUIRE(answered != run.events.end());
  CHECK(answered->call_answered().is_error());
}

}  // namespace
}  // namespace millrace
