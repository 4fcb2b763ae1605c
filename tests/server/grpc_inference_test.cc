// SPDX-License-Identifier: Apache-2.0
#include <catch2/catch.hpp>
#include <map>
#include <thread>

#include "server/wire/api_error.h"
#include "tests/server/grpc_fixture.h"

namespace millrace {
namespace {

struct Collected {
  std::map<int, std::string> text;
  std::map<int, v1::FinishReason> finish;
  std::vector<v1::GenerateResponse> messages;
  v1::Usage usage;
  grpc::Status status;
};

Collected Generate(GrpcFixture& fixture, const v1::GenerateRequest& request, Context* context) {
  Collected collected;
  auto reader = fixture.inference->Generate(context, request);
  v1::GenerateResponse response;
  while (reader->Read(&response)) {
    collected.messages.push_back(response);
    collected.text[response.choice()] += response.text();
    if (response.finish_reason() != v1::FINISH_REASON_UNSPECIFIED) {
      collected.finish[response.choice()] = response.finish_reason();
    }
    if (response.has_usage()) collected.usage = response.usage();
  }
  collected.status = reader->Finish();
  return collected;
}

Collected Generate(GrpcFixture& fixture, const v1::GenerateRequest& request) {
  Context context;
  return Generate(fixture, request, &context);
}

v1::GenerateRequest MakeRequest(const std::string& text, int32_t max_tokens) {
  v1::GenerateRequest request;
  request.set_text(text);
  request.mutable_sampling()->set_max_tokens(max_tokens);
  return request;
}

TEST_CASE("Grpc: Generate streams text, a finish reason and the usage", "[grpc]") {
  GrpcFixture fixture;
  const Collected collected = Generate(fixture, MakeRequest("abc ", 10));
  CHECK(collected.status.ok());
  CHECK(collected.text.at(0) == "abc abc ab");
  CHECK(collected.finish.at(0) == v1::FINISH_REASON_LENGTH);
  CHECK(collected.messages.size() >= 10);
  CHECK(collected.usage.prompt_tokens() == 4);
  CHECK(collected.usage.completion_tokens() == 10);
  CHECK(fixture.engine.WaitIdle());
}

TEST_CASE("Grpc: cached tokens of a shared prompt are counted once", "[grpc]") {
  GrpcFixture fixture;
  v1::GenerateRequest request = MakeRequest(std::string(100, 'x'), 2);
  CHECK(Generate(fixture, request).status.ok());
  request.mutable_sampling()->set_n(4);
  const Collected collected = Generate(fixture, request);
  CHECK(collected.usage.prompt_tokens() == 100);
  CHECK(collected.usage.cached_tokens() > 0);
  CHECK(collected.usage.cached_tokens() <= 100);
}

TEST_CASE("Grpc: choices, stop strings, token prompts and log-probabilities", "[grpc]") {
  GrpcFixture fixture;
  v1::GenerateRequest request;
  for (const char c : std::string("one two ")) request.mutable_token_ids()->add_ids(static_cast<unsigned char>(c));
  auto* sampling = request.mutable_sampling();
  sampling->set_n(2);
  sampling->set_max_tokens(50);
  sampling->add_stop("two");
  sampling->set_logprobs(2);
  sampling->set_prompt_logprobs(0);
  const Collected collected = Generate(fixture, request);
  REQUIRE(collected.status.ok());
  for (int choice = 0; choice < 2; ++choice) {
    CHECK(collected.text.at(choice) == "one ");
    CHECK(collected.finish.at(choice) == v1::FINISH_REASON_STOP);
  }
  CHECK(collected.usage.completion_tokens() == 14);
  int num_prompt_logprobs = 0;
  for (const auto& message : collected.messages) {
    num_prompt_logprobs += message.prompt_logprobs_size();
    if (message.token_ids().empty()) continue;
    REQUIRE(message.logprobs_size() == message.token_ids_size());
    CHECK(message.logprobs(0).top_size() == 2);
    CHECK(message.logprobs(0).logprob() == -0.5f);
  }
  CHECK(num_prompt_logprobs == 14);
}

TEST_CASE("Grpc: Chat goes through the template, with tools", "[grpc]") {
  GrpcFixture fixture;
  v1::ChatRequest request;
  auto* message = request.add_messages();
  message->set_role("user");
  message->set_content("hi");
  auto* tool = request.add_tools();
  tool->set_name("clock");
  tool->set_parameters(R"({"type": "object"})");
  request.mutable_sampling()->set_max_tokens(15);
  Context context;
  auto reader = fixture.inference->Chat(&context, request);
  v1::ChatResponse response;
  std::string text;
  while (reader->Read(&response)) text += response.content();
  CHECK(reader->Finish().ok());
  CHECK(text == "[clock]user:hi;");

  tool->set_parameters(R"({}}, {"name": "x")");
  Context second;
  auto refused = fixture.inference->Chat(&second, request);
  CHECK_FALSE(refused->Read(&response));
  CHECK(refused->Finish().error_code() == grpc::StatusCode::INVALID_ARGUMENT);
}

TEST_CASE("Grpc: Embed, Tokenize, Detokenize, ListModels", "[grpc]") {
  GrpcFixture fixture;
  v1::EmbedRequest embed;
  embed.add_inputs()->set_text("abc");
  embed.add_inputs()->set_text("x");
  v1::EmbedResponse embedded;
  Context first, second, third, fourth;
  REQUIRE(fixture.inference->Embed(&first, embed, &embedded).ok());
  REQUIRE(embedded.embeddings_size() == 2);
  CHECK(embedded.embeddings(0).values(0) == 3);
  CHECK(embedded.embeddings(1).values(1) == 'x');
  CHECK(embedded.usage().prompt_tokens() == 4);

  v1::TokenizeRequest tokenize;
  tokenize.set_text("hé");
  v1::TokenizeResponse tokens;
  REQUIRE(fixture.inference->Tokenize(&second, tokenize, &tokens).ok());
  CHECK(tokens.token_ids_size() == 3);
  CHECK(tokens.max_model_tokens() == 2048);

  v1::DetokenizeRequest detokenize;
  *detokenize.mutable_token_ids() = tokens.token_ids();
  v1::DetokenizeResponse text;
  REQUIRE(fixture.inference->Detokenize(&third, detokenize, &text).ok());
  CHECK(text.text() == "hé");

  v1::ListModelsResponse models;
  REQUIRE(fixture.inference->ListModels(&fourth, {}, &models).ok());
  REQUIRE(models.models_size() == 2);
  CHECK(models.models(1).id() == "parrot");
  CHECK(models.models(0).architecture() == "EchoForCausalLM");
}

TEST_CASE("Grpc: a fault is named by code, message and field", "[grpc]") {
  GrpcFixture fixture;
  struct Case {
    const char* field;
    grpc::StatusCode code;
    std::function<void(v1::GenerateRequest&)> spoil;
  };
  const std::vector<Case> cases = {
      {"temperature", grpc::INVALID_ARGUMENT, [](auto& r) { r.mutable_sampling()->set_temperature(3); }},
      {"temperature", grpc::INVALID_ARGUMENT, [](auto& r) { r.mutable_sampling()->set_temperature(std::nanf("")); }},
      {"top_p", grpc::INVALID_ARGUMENT, [](auto& r) { r.mutable_sampling()->set_top_p(0); }},
      {"max_tokens", grpc::INVALID_ARGUMENT, [](auto& r) { r.mutable_sampling()->set_max_tokens(-1); }},
      {"n", grpc::INVALID_ARGUMENT, [](auto& r) { r.mutable_sampling()->set_n(-5); }},
      {"logit_bias", grpc::INVALID_ARGUMENT, [](auto& r) { (*r.mutable_sampling()->mutable_logit_bias())[-1] = 1; }},
      {"stop", grpc::INVALID_ARGUMENT, [](auto& r) { r.mutable_sampling()->add_stop(""); }},
      {"prompt", grpc::INVALID_ARGUMENT, [](auto& r) { r.clear_prompt(); }},
      {"prompt", grpc::INVALID_ARGUMENT, [](auto& r) { r.mutable_token_ids()->add_ids(1 << 30); }},
      {"prompt", grpc::INVALID_ARGUMENT, [](auto& r) { r.set_text(std::string(5000, 'x')); }},
      {"model", grpc::NOT_FOUND, [](auto& r) { r.set_model("nobody\xc3\xa9"); }},
  };
  for (const Case& fault : cases) {
    v1::GenerateRequest request = MakeRequest("abc", 5);
    fault.spoil(request);
    Context context;
    const Collected collected = Generate(fixture, request, &context);
    INFO(fault.field << ": " << collected.status.error_message());
    CHECK(collected.status.error_code() == fault.code);
    const auto& trailing = context.GetServerTrailingMetadata();
    const auto found = trailing.find("millrace-param");
    REQUIRE(found != trailing.end());
    CHECK(std::string(found->second.data(), found->second.size()) == fault.field);
    CHECK(trailing.contains("millrace-code"));
  }
  CHECK(fixture.engine.WaitIdle());
}

TEST_CASE("Grpc: a request id comes back, the client's if it is acceptable", "[grpc]") {
  GrpcFixture fixture;
  for (const auto& [given, is_kept] : std::map<std::string, bool>{{"my-id.7", true}, {"no spaces", false}}) {
    Context context;
    context.AddMetadata("x-request-id", given);
    CHECK(Generate(fixture, MakeRequest("a", 1), &context).status.ok());
    const auto& metadata = context.GetServerInitialMetadata();
    const auto found = metadata.find("x-request-id");
    REQUIRE(found != metadata.end());
    CHECK((std::string(found->second.data(), found->second.size()) == given) == is_kept);
  }
}

TEST_CASE("Grpc: a client that cancels frees its pages, in any state", "[grpc]") {
  GrpcFixture fixture;
  // Before the first token, while the step is held.
  fixture.engine.SetPaused(true);
  {
    Context context;
    auto reader = fixture.inference->Generate(&context, MakeRequest("abc", 2000));
    while (fixture.server->num_active_calls() == 0) absl::SleepFor(absl::Milliseconds(1));
    context.TryCancel();
    v1::GenerateResponse response;
    CHECK_FALSE(reader->Read(&response));
    CHECK(reader->Finish().error_code() == grpc::StatusCode::CANCELLED);
  }
  fixture.engine.SetPaused(false);
  CHECK(fixture.engine.WaitIdle());
  // In the middle of the stream.
  Context context;
  auto reader = fixture.inference->Generate(&context, MakeRequest("abc", 2000));
  v1::GenerateResponse response;
  REQUIRE(reader->Read(&response));
  context.TryCancel();
  while (reader->Read(&response)) {
  }
  CHECK(reader->Finish().error_code() == grpc::StatusCode::CANCELLED);
  CHECK(fixture.engine.WaitIdle());
  while (fixture.server->num_active_calls() != 0) absl::SleepFor(absl::Milliseconds(1));
}

TEST_CASE("Grpc: a deadline ends the call and the engine's work", "[grpc]") {
  GrpcFixture fixture;
  fixture.engine.SetPaused(true);
  Context context(absl::Milliseconds(200));
  CHECK(Generate(fixture, MakeRequest("abc", 2000), &context).status.error_code() ==
        grpc::StatusCode::DEADLINE_EXCEEDED);
  fixture.engine.SetPaused(false);
  CHECK(fixture.engine.WaitIdle());
}

TEST_CASE("Grpc: a step that breaks is an internal error, not a hang", "[grpc]") {
  GrpcFixture fixture;
  fixture.engine.SetFailing(true);
  CHECK(Generate(fixture, MakeRequest("abc", 5)).status.error_code() == grpc::StatusCode::INTERNAL);
  CHECK(Generate(fixture, MakeRequest("abc", 5)).status.error_code() == grpc::StatusCode::UNAVAILABLE);
}

TEST_CASE("Grpc: a full queue is ResourceExhausted", "[grpc]") {
  SchedulerConfig config = EchoEngine::DefaultConfig();
  config.max_queued_requests = 1;
  GrpcFixture fixture({}, {}, config);
  fixture.engine.SetPaused(true);
  std::vector<std::unique_ptr<Context>> contexts;
  std::vector<std::unique_ptr<grpc::ClientReader<v1::GenerateResponse>>> readers;
  v1::GenerateRequest wide = MakeRequest("abc", 5);
  wide.mutable_sampling()->set_n(4);  // one more than can wait
  const Collected collected = Generate(fixture, wide);
  CHECK(collected.status.error_code() == grpc::StatusCode::RESOURCE_EXHAUSTED);
  fixture.engine.SetPaused(false);
  CHECK(fixture.engine.WaitIdle());
  // The refused call may hold its place for a moment after its status was sent.
  bool has_recovered = false;
  for (int attempt = 0; attempt < 1000 && !has_recovered; ++attempt) {
    has_recovered = Generate(fixture, MakeRequest("abc", 5)).status.ok();
  }
  CHECK(has_recovered);
}

TEST_CASE("Grpc: many streams at once, some of which leave, all get their own text", "[grpc]") {
  GrpcFixture fixture;
  std::atomic<int> num_wrong{0};
  std::vector<std::thread> threads;
  for (int thread = 0; thread < 4; ++thread) {
    threads.emplace_back([&fixture, &num_wrong, thread] {
      for (int i = 0; i < 25; ++i) {
        const std::string text = "prompt " + std::to_string(thread * 100 + i) + "|";
        Context context;
        auto reader = fixture.inference->Generate(&context, MakeRequest(text, static_cast<int32_t>(text.size()) * 3));
        v1::GenerateResponse response;
        std::string answer;
        const bool leaves = i % 3 == 0;
        while (reader->Read(&response)) {
          answer += response.text();
          if (leaves && answer.size() > 8) context.TryCancel();
        }
        const grpc::Status status = reader->Finish();
        if (leaves ? answer.empty() : !status.ok() || answer != text + text + text) ++num_wrong;
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  CHECK(num_wrong == 0);
  CHECK(fixture.engine.WaitIdle());
}

TEST_CASE("Grpc: a client that does not read is let go, and costs bounded memory", "[grpc]") {
  SchedulerConfig config = EchoEngine::DefaultConfig();
  config.num_pages = 4096;
  config.max_model_tokens = 60000;
  GrpcFixture fixture({}, {}, config);
  v1::GenerateRequest request = MakeRequest("abc", 50000);
  request.mutable_sampling()->set_logprobs(20);  // fat messages fill the transport's window soon
  Context context(absl::Seconds(60));
  auto reader = fixture.inference->Generate(&context, request);
  v1::GenerateResponse response;
  REQUIRE(reader->Read(&response));  // it runs; from now on nobody reads
  CHECK(fixture.engine.WaitIdle());
  while (reader->Read(&response)) {
  }
  CHECK_FALSE(reader->Finish().ok());
}

}  // namespace
}  // namespace millrace
