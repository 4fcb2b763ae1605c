// SPDX-License-Identifier: Apache-2.0
// Structure, tools and reasoning of millrace.v1.Inference's chats, over a scripted engine.
#include <catch2/catch.hpp>

#include "absl/strings/match.h"
#include "tests/server/fake_engine.h"
#include "tests/server/grpc_fixture.h"

namespace millrace {
namespace {

constexpr char kAnswer[] =
    "<think>hm</think>Let me see. <tool_call>{\"name\": \"f\", \"arguments\": {\"a\": 1}}</tool_call>";

struct ChatFixture {
  explicit ChatFixture(FakeEngine::Options options) : engine(std::move(options)) {
    state.SetGenerator(Generator::Create(engine, nullptr, {}));
    state.SetHealth(EngineHealth::kReady);
    server = GrpcServer::Start({.host = "127.0.0.1", .port = 0}, {.state = state, .keys = keys}).value();
    channel = grpc::CreateChannel("localhost:" + std::to_string(server->port()), grpc::InsecureChannelCredentials());
    stub = v1::Inference::NewStub(channel);
  }
  ~ChatFixture() {
    server.reset();
    state.SetGenerator(nullptr);
  }

  FakeEngine engine;
  ServerState state{{"fake"}};
  ApiKeys keys;
  std::unique_ptr<GrpcServer> server;
  std::shared_ptr<grpc::Channel> channel;
  std::unique_ptr<v1::Inference::Stub> stub;
};

struct Answered {
  std::string content, reasoning;
  std::vector<v1::ToolCall> calls;
  v1::FinishReason finish = v1::FINISH_REASON_UNSPECIFIED;
  int num_tokens = 0;
  grpc::Status status;
  std::string param;
};

Answered Chat(ChatFixture& f, const v1::ChatRequest& request) {
  Answered answered;
  Context context;
  auto reader = f.stub->Chat(&context, request);
  v1::ChatResponse response;
  while (reader->Read(&response)) {
    answered.content += response.content();
    answered.reasoning += response.reasoning();
    for (const v1::ToolCall& call : response.tool_calls()) answered.calls.push_back(call);
    answered.num_tokens += response.token_ids_size();
    if (response.finish_reason() != v1::FINISH_REASON_UNSPECIFIED) answered.finish = response.finish_reason();
  }
  answered.status = reader->Finish();
  const auto& trailing = context.GetServerTrailingMetadata();
  if (const auto found = trailing.find("millrace-param"); found != trailing.end()) {
    answered.param.assign(found->second.data(), found->second.size());
  }
  return answered;
}

v1::ChatRequest Ask() {
  v1::ChatRequest request;
  v1::ChatMessage* message = request.add_messages();
  message->set_role("user");
  message->set_content("hi");
  v1::Tool* tool = request.add_tools();
  tool->set_name("f");
  tool->set_parameters(R"({"type": "object"})");
  return request;
}

TEST_CASE("Grpc chat: the answer comes as the model wrote it, and apart only where that is asked for", "[grpc_chat]") {
  ChatFixture f({.answer = kAnswer});
  v1::ChatRequest request = Ask();
  const Answered raw = Chat(f, request);
  CHECK(raw.content == kAnswer);
  CHECK(raw.calls.empty());
  CHECK(raw.finish == v1::FINISH_REASON_STOP);
  request.set_parse_output(true);
  const Answered parsed = Chat(f, request);
  CHECK(parsed.reasoning == "hm");
  CHECK(absl::StartsWith(parsed.content, "Let me see."));
  CHECK_FALSE(absl::StrContains(parsed.content, "tool_call"));
  REQUIRE(parsed.calls.size() == 1);
  CHECK(parsed.calls[0].name() == "f");
  CHECK(parsed.calls[0].arguments() == R"({"a": 1})");
  CHECK_FALSE(parsed.calls[0].id().empty());
  CHECK(parsed.finish == v1::FINISH_REASON_TOOL_CALLS);
  CHECK(parsed.num_tokens == raw.num_tokens);
  // Each choice by itself, and both prompts alike.
  request.mutable_sampling()->set_n(2);
  const Answered two = Chat(f, request);
  REQUIRE(two.calls.size() == 2);
  CHECK(two.calls[0].id() != two.calls[1].id());
  const std::vector<Request> asked = f.engine.submitted();
  CHECK(asked[0].prompt_tokens == asked[1].prompt_tokens);
}

TEST_CASE("Grpc chat: tool_choice and parallel_tool_calls mean what they do over HTTP", "[grpc_chat]") {
  ChatFixture f({.answer = "Hello"});
  const auto prompt = [&f] {
    const std::vector<int32_t> tokens = f.engine.submitted().back().prompt_tokens;
    std::string text;
    for (const int32_t token : tokens) text += token < 256 ? static_cast<char>(token) : '|';
    return text;
  };
  const auto grammar = [&f] { return f.engine.submitted().back().grammar; };
  v1::ChatRequest request = Ask();
  CHECK(Chat(f, request).status.ok());
  const auto free = grammar();
  CHECK(free != nullptr);
  request.mutable_tool_choice()->set_mode(v1::ToolChoice::MODE_AUTO);
  CHECK(Chat(f, request).status.ok());
  CHECK(grammar() == free);
  request.set_parallel_tool_calls(false);
  CHECK(Chat(f, request).status.ok());
  const auto once = grammar();
  CHECK(once != free);
  request.mutable_tool_choice()->set_function("f");
  CHECK(Chat(f, request).status.ok());
  CHECK(grammar() != once);
  const auto named = grammar();
  request.mutable_tool_choice()->set_mode(v1::ToolChoice::MODE_REQUIRED);
  CHECK(Chat(f, request).status.ok());
  CHECK(grammar() == named);  // of one tool, once
  request.mutable_tool_choice()->set_mode(v1::ToolChoice::MODE_NONE);
  CHECK(Chat(f, request).status.ok());
  CHECK(grammar() == nullptr);
  CHECK_FALSE(absl::StrContains(prompt(), "tools]"));
  for (const bool is_named : {true, false}) {
    v1::ChatRequest wrong = Ask();
    if (is_named) wrong.mutable_tool_choice()->set_function("g");
    if (!is_named) wrong.clear_tools();
    if (!is_named) wrong.mutable_tool_choice()->set_mode(v1::ToolChoice::MODE_REQUIRED);
    const Answered refused = Chat(f, wrong);
    CHECK(refused.status.error_code() == grpc::StatusCode::INVALID_ARGUMENT);
    CHECK(refused.param == "tool_choice");
  }
}

TEST_CASE("Grpc chat: a response format constrains chats and completions alike", "[grpc_chat]") {
  ChatFixture f({.answer = "{}"});
  const auto grammar = [&f] { return f.engine.submitted().back().grammar; };
  v1::ChatRequest request = Ask();
  request.clear_tools();
  CHECK(Chat(f, request).status.ok());
  CHECK(grammar() == nullptr);
  request.mutable_response_format()->set_json_object(true);
  CHECK(Chat(f, request).status.ok());
  CHECK(grammar() != nullptr);
  request.mutable_response_format()->set_json_schema(R"({"type": "object"})");
  CHECK(Chat(f, request).status.ok());
  CHECK(grammar() != nullptr);
  for (const char* schema : {"", "[", "3", R"({"not": {}})"}) {
    INFO(schema);
    request.mutable_response_format()->set_json_schema(schema);
    const Answered refused = Chat(f, request);
    CHECK(refused.status.error_code() == grpc::StatusCode::INVALID_ARGUMENT);
    CHECK(refused.param == "response_format");
  }
  v1::GenerateRequest completion;
  completion.set_text("x");
  completion.mutable_response_format()->set_json_object(true);
  Context context;
  auto reader = f.stub->Generate(&context, completion);
  v1::GenerateResponse response;
  while (reader->Read(&response)) continue;
  CHECK(reader->Finish().ok());
  CHECK(grammar() != nullptr);
}

}  // namespace
}  // namespace millrace
