// SPDX-License-Identifier: Apache-2.0
// Agent runs over the pipeline of requests, with a scripted engine.
#include "server/agents/generator_model.h"

#include <catch2/catch.hpp>

#include "absl/synchronization/notification.h"
#include "engine/text/template_json.h"
#include "server/agents/agent_runs.h"
#include "tests/server/fake_engine.h"

namespace millrace {
namespace {

constexpr char kCall[] = R"(<tool_call>{"name": "calculator", "arguments": {"expression": "6*7"}}</tool_call>)";

// What the engine is asked, as text.
std::string Text(const Request& request) {
  std::string text;
  for (const int32_t token : request.prompt_tokens) text += token < 256 ? static_cast<char>(token) : '|';
  return text;
}

// Says one text where the prompt has no result yet, another where it has.
FakeEngine::Options TwoTurns(std::string first, std::string second) {
  FakeEngine::Options options;
  options.script = [first = std::move(first), second = std::move(second)](const Request& request, int32_t position) {
    const std::string& answer = Text(request).find("42") == std::string::npos ? first : second;
    return position < static_cast<int32_t>(answer.size())
               ? static_cast<unsigned char>(answer[static_cast<size_t>(position)])
               : kFakeEos;
  };
  return options;
}

struct Fixture {
  explicit Fixture(FakeEngine::Options options, AgentRuns::Options run_options = {}) : engine(std::move(options)) {
    generator = Generator::Create(engine, nullptr, {});
    runs = std::make_unique<AgentRuns>(*ToolSet::Create({.enabled = {"calculator"}}), run_options, nullptr);
  }
  ~Fixture() {
    runs.reset();
    generator.reset();
  }
  AgentRunArgs Args() {
    AgentRunArgs args{.generator = generator, .caller = {.request_id = "r", .endpoint = "test"}};
    args.request.conversation.messages = {{.role = "user", .content = "what is 6*7?"}};
    args.request.tools = runs->tools().all();
    return args;
  }

  FakeEngine engine;
  std::shared_ptr<Generator> generator;
  std::unique_ptr<AgentRuns> runs;
};

RunResult WaitFor(AgentRuns& runs, AgentRunArgs args) {
  absl::Notification done;
  RunResult result;
  args.on_done = [&](RunResult&& ended) {
    result = std::move(ended);
    done.Notify();
  };
  REQUIRE(runs.Start(std::move(args)).ok());
  done.WaitForNotification();
  return result;
}

TEST_CASE("Agent runs: a tool is called through the engine's own words, and its result is in the next prompt") {
  Fixture f(TwoTurns(kCall, "it is 42"));
  std::string said;
  AgentRunArgs args = f.Args();
  args.sink = [&](RunEvent&& event) {
    if (const auto* piece = std::get_if<TextPiece>(&event)) said += piece->text;
  };
  const RunResult result = WaitFor(*f.runs, std::move(args));
  CHECK(result.end == RunEnd::kAnswered);
  CHECK(said == "it is 42");
  REQUIRE(result.messages.size() == 3);
  REQUIRE(result.messages[0].tool_calls.size() == 1);
  CHECK(result.messages[0].tool_calls[0].id.size() == 9);
  CHECK(std::get<std::string>(result.messages[1].content) == "42");
  const std::vector<Request> asked = f.engine.submitted();
  REQUIRE(asked.size() == 2);
  CHECK(Text(asked[0]).find("[1 tools]") != std::string::npos);
  CHECK(result.usage.num_prompt_tokens ==
        static_cast<int64_t>(asked[0].prompt_tokens.size() + asked[1].prompt_tokens.size()));
  CHECK(result.usage.num_output_tokens == static_cast<int64_t>(std::string(kCall).size() + 1 + 9));
}

TEST_CASE("Agent runs: reasoning comes apart, and its tokens are counted") {
  Fixture f({.answer = "<think>hm</think>yes"});
  const RunResult result = WaitFor(*f.runs, f.Args());
  CHECK(result.messages[0].reasoning_content == "hm");
  CHECK(std::get<std::string>(result.messages[0].content) == "yes");
  CHECK(result.usage.num_reasoning_tokens > 0);
  CHECK(result.usage.num_reasoning_tokens < result.usage.num_output_tokens);
}

TEST_CASE("Agent runs: cancelling frees the engine in the middle of a turn and keeps what was said") {
  Fixture f({.script = [](const Request&, int32_t) { return 'a'; }, .max_model_tokens = 1 << 20});
  absl::Notification has_begun, done;
  RunResult result;
  AgentRunArgs args = f.Args();
  args.sink = [&](RunEvent&& event) {
    if (std::holds_alternative<TextPiece>(event) && !has_begun.HasBeenNotified()) has_begun.Notify();
  };
  args.on_done = [&](RunResult&& ended) {
    result = std::move(ended);
    done.Notify();
  };
  auto cancellation = f.runs->Start(std::move(args));
  REQUIRE(cancellation.ok());
  has_begun.WaitForNotification();
  (*cancellation)->Cancel();
  done.WaitForNotification();
  CHECK(result.end == RunEnd::kCancelled);
  CHECK(!std::get<std::string>(result.messages.at(0).content).empty());
  CHECK(f.engine.num_cancelled() == 1);
}

TEST_CASE("Agent runs: output is cut at the run's limit, a prompt without room is refused by name") {
  Fixture f({.script = [](const Request&, int32_t) { return 'a'; }});
  AgentRunArgs args = f.Args();
  args.request.limits.max_output_tokens = 5;
  CHECK(WaitFor(*f.runs, std::move(args)).end == RunEnd::kOutputTokens);
  CHECK(f.engine.submitted()[0].max_new_tokens == 5);
  args = f.Args();
  args.request.limits.max_output_tokens = 1 << 30;
  CHECK(WaitFor(*f.runs, std::move(args)).end == RunEnd::kOutputTokens);  // what the context leaves
  args = f.Args();
  args.request.conversation.messages[0].content = std::string(1200, 'x');
  const RunResult result = WaitFor(*f.runs, std::move(args));
  CHECK(result.end == RunEnd::kFailed);
  CHECK(absl::IsInvalidArgument(result.status));
}

TEST_CASE("Agent runs: beyond their number the next is refused, and after one has ended taken again") {
  Fixture f({.answer = "ok"}, {.max_runs = 1});
  absl::Notification may_end, done;
  AgentRunArgs args = f.Args();
  args.sink = [&](RunEvent&& event) {
    if (std::holds_alternative<TurnBegan>(event)) may_end.WaitForNotification();
  };
  args.on_done = [&](RunResult&&) { done.Notify(); };
  REQUIRE(f.runs->Start(std::move(args)).ok());
  CHECK(absl::IsResourceExhausted(f.runs->Start(f.Args()).status()));
  may_end.Notify();
  done.WaitForNotification();
  while (f.runs->num_running() > 0) std::this_thread::yield();
  CHECK(WaitFor(*f.runs, f.Args()).end == RunEnd::kAnswered);
}

TEST_CASE("Agent runs: stopping ends what runs and refuses what comes") {
  Fixture f({.script = [](const Request&, int32_t) { return 'a'; }, .max_model_tokens = 1 << 20});
  absl::Notification has_begun, done;
  RunEnd end{};
  AgentRunArgs args = f.Args();
  args.sink = [&](RunEvent&& event) {
    if (std::holds_alternative<TurnBegan>(event)) has_begun.Notify();
  };
  args.on_done = [&](RunResult&& result) {
    end = result.end;
    done.Notify();
  };
  REQUIRE(f.runs->Start(std::move(args)).ok());
  has_begun.WaitForNotification();
  f.runs->Stop();
  done.WaitForNotification();
  CHECK(end == RunEnd::kCancelled);
  CHECK(absl::IsUnavailable(f.runs->Start(f.Args()).status()));
}

TEST_CASE("Tool set: unknown names, doubled ones and http_get without hosts are refused") {
  CHECK(absl::IsInvalidArgument(ToolSet::Create({.enabled = {"rm"}}).status()));
  CHECK(absl::IsInvalidArgument(ToolSet::Create({.enabled = {"clock", "clock"}}).status()));
  CHECK(absl::IsInvalidArgument(ToolSet::Create({.enabled = {"http_get"}}).status()));
  CHECK(ToolSet::Create({.enabled = {"http_get"}, .http_get_hosts = {"example.com"}})->Find("http_get") != nullptr);
  CHECK(ToolSet::Create({})->Find("python") == nullptr);
  CHECK(absl::IsFailedPrecondition(
      ToolSet::Create({.enabled = {"python"}, .python = "/usr/bin/there-is-none"}).status()));
}

}  // namespace
}  // namespace millrace
