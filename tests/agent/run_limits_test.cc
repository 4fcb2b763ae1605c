// SPDX-License-Identifier: Apache-2.0
// What ends a run, and what tools may do to it.
#include <sys/wait.h>

#include <atomic>
#include <catch2/catch.hpp>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/synchronization/notification.h"
#include "agent/run.h"
#include "agent/sandbox/sandbox.h"
#include "agent/tools/python.h"
#include "tests/agent/scripted_model.h"

namespace millrace {
namespace {

std::shared_ptr<ScriptedTool> MakeTool(std::string name, ScriptedTool::Work work) {
  return std::make_shared<ScriptedTool>(std::move(name), std::move(work));
}

std::shared_ptr<ScriptedTool> Echo() {
  return MakeTool("echo", [](std::string_view arguments, absl::Time, const Cancellation&) -> ToolResult {
    return {.text = std::string(arguments)};
  });
}

// A call that is not like the one before.
Turn Calls(int number) {
  return MakesCalls({{absl::StrCat("c", number), "echo", absl::StrCat("{\"n\":", number, "}")}});
}

std::vector<Turn> ManyCalls() {
  std::vector<Turn> turns;
  for (int i = 0; i < 40; ++i) turns.push_back(Calls(i));
  return turns;
}

struct Ran {
  RunResult result;
  std::vector<CallAnswered> answers;
};

Ran DoRun(TurnModel& model, RunRequest request, const Cancellation& cancellation) {
  Ran ran;
  const RunSink sink = [&](RunEvent&& event) {
    if (auto* answered = std::get_if<CallAnswered>(&event)) ran.answers.push_back(std::move(*answered));
  };
  ran.result = RunAgent(model, std::move(request), sink, cancellation);
  return ran;
}

Ran DoRun(TurnModel& model, RunRequest request) {
  const Cancellation cancellation;
  return DoRun(model, std::move(request), cancellation);
}

TEST_CASE("RunAgent limits: each ends the run with its own reason, and every call has a result") {
  struct Case {
    RunLimits limits;
    RunEnd end;
    int32_t num_turns;
    int32_t num_tool_calls;
  };
  const Case cases[] = {
      {{.max_turns = 3}, RunEnd::kTurns, 3, 2},
      {{.max_tool_calls = 2}, RunEnd::kToolCalls, 3, 2},
      {{.max_total_tokens = 30}, RunEnd::kTotalTokens, 3, 2},  // a turn takes 10 and gives 3
      {{.max_output_tokens = 6}, RunEnd::kOutputTokens, 2, 1},
  };
  for (const Case& each : cases) {
    ScriptedModel model(ManyCalls());
    const Ran ran = DoRun(model, {.tools = {Echo()}, .limits = each.limits});
    INFO(RunEndName(each.end));
    CHECK(ran.result.end == each.end);
    CHECK(ran.result.num_turns == each.num_turns);
    CHECK(ran.result.num_tool_calls == each.num_tool_calls);
    CHECK(ran.result.messages.size() == static_cast<size_t>(each.num_turns) * 2);
    REQUIRE(ran.answers.size() == static_cast<size_t>(each.num_turns));
    CHECK(ran.answers.back().result.is_error);
    CHECK(!ran.answers.front().result.is_error);
  }
}

TEST_CASE("RunAgent limits: a turn may write no more than what is left") {
  ScriptedModel model({Calls(0), SaysText("done")});
  DoRun(model, {.tools = {Echo()}, .limits = {.max_total_tokens = 100, .max_output_tokens = 50}});
  CHECK(model.asked()[0].max_output_tokens == 50);
  CHECK(model.asked()[1].max_output_tokens == 47);
  ScriptedModel total({Calls(0), SaysText("done")});
  DoRun(total, {.tools = {Echo()}, .limits = {.max_total_tokens = 40, .max_output_tokens = 50}});
  CHECK(total.asked()[1].max_output_tokens == 27);
}

TEST_CASE("RunAgent limits: a cut turn is kept, its calls are not run") {
  Turn cut = Calls(0);
  cut.text = "let me see";
  cut.finish = TurnFinish::kLength;
  ScriptedModel model({cut});
  const Ran ran = DoRun(model, {.tools = {Echo()}});
  CHECK(ran.result.end == RunEnd::kOutputTokens);
  CHECK(ran.result.num_tool_calls == 0);
  CHECK(std::get<std::string>(ran.result.messages[0].content) == "let me see");
  REQUIRE(ran.answers.size() == 1);
  CHECK(ran.answers[0].result.text == "not run: the run ended (output_tokens)");
}

TEST_CASE("RunAgent limits: the same call over and over ends it, the same tool with other arguments does not") {
  ScriptedModel circle({Calls(7)});
  const Ran ran = DoRun(circle, {.tools = {Echo()}, .limits = {.max_equal_calls = 3}});
  CHECK(ran.result.end == RunEnd::kEqualCalls);
  CHECK(ran.result.num_tool_calls == 3);
  std::vector<Turn> turns = ManyCalls();
  turns.resize(6);
  turns.push_back(SaysText("done"));
  ScriptedModel straight(turns);
  CHECK(DoRun(straight, {.tools = {Echo()}}).result.end == RunEnd::kAnswered);
}

TEST_CASE("RunAgent limits: time is looked at before each turn, and a tool's deadline is no later than the run's") {
  absl::Time now = absl::UnixEpoch();
  std::vector<absl::Time> deadlines;
  auto tool = MakeTool("echo", [&](std::string_view, absl::Time deadline, const Cancellation&) -> ToolResult {
    deadlines.push_back(deadline);
    now += absl::Seconds(40);
    return {.text = "x"};
  });
  ScriptedModel model(ManyCalls());
  RunRequest request{.tools = {tool}, .now = [&] { return now; }};
  request.limits.deadline = absl::UnixEpoch() + absl::Seconds(60);
  request.limits.tool_time = absl::Seconds(30);
  const Ran ran = DoRun(model, request);
  CHECK(ran.result.end == RunEnd::kTime);
  CHECK(ran.result.num_turns == 2);
  REQUIRE(deadlines.size() == 2);
  CHECK(deadlines[0] == absl::UnixEpoch() + absl::Seconds(30));
  CHECK(deadlines[1] == absl::UnixEpoch() + absl::Seconds(60));
}

TEST_CASE("RunAgent: the model's failure ends the run, and what it had said is kept") {
  Turn broken = SaysText("half an ans");
  broken.status = absl::InternalError("gone");
  ScriptedModel model({broken});
  const Ran ran = DoRun(model, {});
  CHECK(ran.result.end == RunEnd::kFailed);
  CHECK(absl::IsInternal(ran.result.status));
  CHECK(std::get<std::string>(ran.result.messages.at(0).content) == "half an ans");
  Turn late = SaysText("half");
  late.status = absl::DeadlineExceededError("late");
  ScriptedModel slow({late});
  CHECK(DoRun(slow, {}).result.end == RunEnd::kTime);
}

TEST_CASE("RunAgent: cancelling reaches a tool that runs, and no turn follows") {
  Cancellation cancellation;
  auto tool = MakeTool("echo", [&](std::string_view, absl::Time, const Cancellation& given) -> ToolResult {
    cancellation.Cancel();
    return given.is_cancelled() ? ToolError("stopped") : ToolResult{.text = "was not told"};
  });
  ScriptedModel model(ManyCalls());
  const Ran ran = DoRun(model, {.tools = {tool}}, cancellation);
  CHECK(ran.result.end == RunEnd::kCancelled);
  CHECK(ran.answers.at(0).result.text == "stopped");
  CHECK(model.asked().size() == 1);
}

TEST_CASE("RunAgent: a required tool is required in the first turn alone") {
  ScriptedModel model({Calls(0), SaysText("done")});
  DoRun(model, {.tools = {Echo()}, .required_tools = {"echo"}});
  CHECK(model.asked()[0].required_tools == std::vector<std::string>{"echo"});
  CHECK(model.asked()[1].required_tools.empty());
}

TEST_CASE("RunAgent: calls of one turn run at once, as many as allowed, and answer in their order") {
  std::atomic<int> num_running{0}, most{0};
  absl::Notification first_may_end;
  const auto work = [&](std::string_view arguments, absl::Time, const Cancellation&) -> ToolResult {
    const int running = ++num_running;
    for (int seen = most; running > seen && !most.compare_exchange_weak(seen, running);) {
    }
    // The first waits for the second: one after the other, they would never end.
    if (arguments == "{\"n\":0}") first_may_end.WaitForNotification();
    if (arguments == "{\"n\":1}") first_may_end.Notify();
    --num_running;
    if (arguments == "{\"n\":2}") return ToolError("broken");
    return {.text = std::string(arguments)};
  };
  std::vector<ToolCall> calls;
  for (int i = 0; i < 6; ++i) calls.push_back(Calls(i).calls[0]);
  ScriptedModel model({MakesCalls(calls), SaysText("done")});
  const Ran ran = DoRun(model, {.tools = {MakeTool("echo", work)}, .limits = {.max_parallel_tools = 2}});
  CHECK(ran.result.end == RunEnd::kAnswered);
  REQUIRE(ran.answers.size() == 6);
  for (int i = 0; i < 6; ++i) {
    CHECK(ran.answers[i].call == i);
    CHECK(ran.answers[i].result.is_error == (i == 2));
  }
  CHECK(most <= 2);
}

TEST_CASE("RunAgent: a program that hangs is ended at the tool's time, and the run goes on") {
  if (!ProbeSandbox().is_complete()) {
    WARN("SKIPPED: the kernel has no sandbox for programs");
    return;
  }
  constexpr char kHangs[] = R"json({"code":"import time\nwhile True: time.sleep(1)"})json";
  ScriptedModel model({MakesCalls({{"a", "python", kHangs}}), SaysText("done")});
  const Ran ran = DoRun(model, {.tools = {std::make_shared<PythonTool>(PythonToolConfig{})},
                                .limits = {.tool_time = absl::Milliseconds(300)}});
  CHECK(ran.result.end == RunEnd::kAnswered);
  CHECK(absl::StrContains(ran.answers.at(0).result.text, "its time is over"));
  CHECK(waitpid(-1, nullptr, WNOHANG) == -1);  // no child is left, running or dead
}

TEST_CASE("RunAgent: a failure that may pass is tried again, for an idempotent tool alone") {
  for (const bool is_idempotent : {true, false}) {
    int num_calls = 0;
    auto tool = std::make_shared<ScriptedTool>(
        "echo",
        [&](std::string_view, absl::Time, const Cancellation&) -> ToolResult {
          if (++num_calls < 3) return {.is_error = true, .is_transient = true, .text = "busy"};
          return {.text = "there"};
        },
        is_idempotent);
    ScriptedModel model({Calls(0), SaysText("done")});
    const RunLimits limits{.max_tool_attempts = 3, .first_retry_pause = absl::ZeroDuration()};
    const Ran ran = DoRun(model, {.tools = {tool}, .limits = limits});
    CHECK(num_calls == (is_idempotent ? 3 : 1));
    CHECK(ran.answers.at(0).result.is_error == !is_idempotent);
  }
}

TEST_CASE("RunAgent: a lasting failure is not tried again, and a pause that passes the deadline is not made") {
  int num_calls = 0;
  bool is_transient = false;
  auto tool = std::make_shared<ScriptedTool>(
      "echo",
      [&](std::string_view, absl::Time, const Cancellation&) -> ToolResult {
        ++num_calls;
        return {.is_error = true, .is_transient = is_transient, .text = "no"};
      },
      true);
  ScriptedModel lasting({Calls(0), SaysText("done")});
  DoRun(lasting, {.tools = {tool}});
  CHECK(num_calls == 1);
  is_transient = true;
  ScriptedModel passing({Calls(0), SaysText("done")});
  DoRun(passing, {.tools = {tool}, .limits = {.tool_time = absl::Seconds(5), .first_retry_pause = absl::Hours(1)}});
  CHECK(num_calls == 2);
}

TEST_CASE("RunAgent: what a tool gives is repaired and cut to its share") {
  auto tool = MakeTool("echo", [](std::string_view arguments, absl::Time, const Cancellation&) -> ToolResult {
    if (arguments == "{\"n\":0}")
      return {.text =
                  "a\xff"
                  "b"};
    std::string text;
    while (text.size() < 2 * kMaxToolResultBytes) text += "\xE2\x82\xAC";
    return {.text = text};
  });
  ScriptedModel model({Calls(0), Calls(1), SaysText("done")});
  const Ran ran = DoRun(model, {.tools = {tool}});
  CHECK(ran.answers.at(0).result.text ==
        "a\xEF\xBF\xBD"
        "b");
  const std::string& cut = ran.answers.at(1).result.text;
  CHECK(cut.size() <= kMaxToolResultBytes);
  CHECK(cut.size() > kMaxToolResultBytes - 40);
  CHECK(absl::EndsWith(cut, "\xE2\x82\xAC\n[cut: there is more]"));
}

TEST_CASE("RunAgent: arguments that break a tool's schema never reach it, and the model reads why") {
  int num_calls = 0;
  auto tool = MakeTool("echo", [&](std::string_view, absl::Time, const Cancellation&) -> ToolResult {
    ++num_calls;
    return {.text = "x"};
  });
  tool->SetParameters(R"({"type":"object","properties":{"n":{"type":"integer"}},"required":["n"]})");
  ScriptedModel model({MakesCalls({{"a", "echo", "{}"},
                                   {"b", "echo", R"({"n":"one"})"},
                                   {"c", "echo", "not JSON"},
                                   {"d", "echo", "[1]"},
                                   {"e", "echo", R"({"n":1})"}}),
                       SaysText("done")});
  const Ran ran = DoRun(model, {.tools = {tool}});
  CHECK(ran.result.end == RunEnd::kAnswered);
  CHECK(num_calls == 1);
  REQUIRE(ran.answers.size() == 5);
  CHECK(absl::StrContains(ran.answers[0].result.text, "'n' is missing"));
  CHECK(absl::StrContains(ran.answers[1].result.text, "n: must be an integer"));
  CHECK(ran.answers[2].result.is_error);
  CHECK(ran.answers[3].result.is_error);
  CHECK(!ran.answers[4].result.is_error);
}

}  // namespace
}  // namespace millrace
