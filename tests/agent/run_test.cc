// SPDX-License-Identifier: Apache-2.0
#include "agent/run.h"

#include <catch2/catch.hpp>

#include "absl/strings/str_cat.h"
#include "absl/synchronization/barrier.h"
#include "engine/text/template_json.h"
#include "tests/agent/scripted_model.h"

namespace millrace {
namespace {

std::shared_ptr<Tool> Echo(std::string name) {
  return std::make_shared<ScriptedTool>(std::move(name),
                                        [](std::string_view arguments, absl::Time, const Cancellation&) -> ToolResult {
                                          return {.text = absl::StrCat("got ", std::string(arguments))};
                                        });
}

struct Ran {
  RunResult result;
  std::vector<std::string> events;  // one line each
};

std::string Line(const RunEvent& event) {
  if (const auto* began = std::get_if<TurnBegan>(&event)) return absl::StrCat("turn ", began->turn);
  if (const auto* taken = std::get_if<PromptTaken>(&event)) return absl::StrCat("prompt ", taken->num_prompt_tokens);
  if (const auto* piece = std::get_if<ReasoningPiece>(&event)) return "think " + piece->text;
  if (const auto* piece = std::get_if<TextPiece>(&event)) return "say " + piece->text;
  if (const auto* made = std::get_if<CallMade>(&event)) {
    return absl::StrCat("call ", made->call, made->owner == CallOwner::kClient ? " theirs " : " ours ",
                        made->tool_call.name);
  }
  if (const auto* answered = std::get_if<CallAnswered>(&event)) {
    return absl::StrCat("result ", answered->call, answered->result.is_error ? " error " : " ", answered->result.text);
  }
  if (const auto* ended = std::get_if<TurnEnded>(&event)) return absl::StrCat("end of turn ", ended->turn);
  return absl::StrCat("end ", std::string(RunEndName(std::get<RunEnded>(event).end)));
}

Ran DoRun(ScriptedModel& model, RunRequest request, const Cancellation& cancellation) {
  Ran ran;
  ran.result =
      RunAgent(model, std::move(request), [&](RunEvent&& event) { ran.events.push_back(Line(event)); }, cancellation);
  return ran;
}

Ran DoRun(ScriptedModel& model, RunRequest request) {
  const Cancellation cancellation;
  return DoRun(model, std::move(request), cancellation);
}

TEST_CASE("RunAgent: a question, a call, its result, the answer") {
  ScriptedModel model({MakesCalls({{"id1", "echo", R"({"a":1})"}}), SaysText("done")});
  const Ran ran =
      DoRun(model, {.conversation = {.messages = {{.role = "user", .content = "go"}}}, .tools = {Echo("echo")}});
  CHECK(ran.result.end == RunEnd::kAnswered);
  CHECK(ran.events == std::vector<std::string>{"turn 0", "call 0 ours echo", "result 0 got {\"a\":1}", "end of turn 0",
                                               "turn 1", "say done", "end of turn 1", "end answered"});
  REQUIRE(model.asked().size() == 2);
  const std::vector<ChatMessage>& seen = model.asked()[1].conversation.messages;
  REQUIRE(seen.size() == 3);
  CHECK(seen[1].tool_calls[0].id == "id1");
  CHECK(seen[2].role == "tool");
  CHECK(seen[2].tool_call_id == "id1");
  CHECK(std::get<std::string>(seen[2].content) == "got {\"a\":1}");
  CHECK(ran.result.messages.size() == 3);
  CHECK(ran.result.usage.num_prompt_tokens == 20);
  CHECK(ran.result.usage.num_cached_tokens == 10);
  CHECK(ran.result.num_turns == 2);
  CHECK(ran.result.num_tool_calls == 1);
}

TEST_CASE("RunAgent: a last message is gone on with once; the turn behind it is one of its own") {
  ScriptedModel model({MakesCalls({{"id1", "echo", "{}"}}), SaysText("done")});
  const Conversation begun{
      .messages = {{.role = "user", .content = "go"}, {.role = "assistant", .content = "Let me see:"}},
      .adds_generation_prompt = false,
      .continues_final_message = true};
  DoRun(model, {.conversation = begun, .tools = {Echo("echo")}});
  REQUIRE(model.asked().size() == 2);
  CHECK(model.asked()[0].conversation.continues_final_message);
  CHECK_FALSE(model.asked()[1].conversation.continues_final_message);
  CHECK(model.asked()[1].conversation.adds_generation_prompt);
}

TEST_CASE("RunAgent: a call of the client's tool ends the run, and our calls of that turn are run first") {
  RunRequest request{.tools = {Echo("echo")}};
  request.conversation.tools = *ParseJsonValue(R"([{"type":"function","function":{"name":"theirs"}}])");
  ScriptedModel model({MakesCalls({{"a", "theirs", "{}"}, {"b", "echo", "{}"}})});
  const Ran ran = DoRun(model, request);
  CHECK(ran.result.end == RunEnd::kClientCalls);
  REQUIRE(ran.result.client_calls.size() == 1);
  CHECK(ran.result.client_calls[0].id == "a");
  CHECK(ran.events == std::vector<std::string>{"turn 0", "call 0 theirs theirs", "call 1 ours echo", "result 1 got {}",
                                               "end of turn 0", "end client_calls"});
  CHECK(model.asked()[0].conversation.tools.as_list().items.size() == 2);
}

TEST_CASE("RunAgent: without tools of ours every call is the client's") {
  ScriptedModel model({MakesCalls({{"a", "anything", "{}"}})});
  CHECK(DoRun(model, {}).result.end == RunEnd::kClientCalls);
}

TEST_CASE("RunAgent: an unknown tool is a result that names the ones there are") {
  ScriptedModel model({MakesCalls({{"a", "ech", "{}"}}), SaysText("sorry")});
  const Ran ran = DoRun(model, {.tools = {Echo("echo"), Echo("other")}});
  CHECK(ran.result.end == RunEnd::kAnswered);
  CHECK(ran.events[2] == "result 0 error there is no tool 'ech'; there are: echo, other");
}

TEST_CASE("RunAgent: tells that a turn's prompt was taken, before what the model writes") {
  Turn turn = SaysText("done");
  turn.usage.num_prompt_tokens = 7;
  ScriptedModel model({turn});
  model.tells_prompt = true;
  CHECK(DoRun(model, {}).events ==
        std::vector<std::string>{"turn 0", "prompt 7", "say done", "end of turn 0", "end answered"});
}

TEST_CASE("RunAgent: two tools of one name are refused") {
  ScriptedModel model({SaysText("never")});
  const Ran ran = DoRun(model, {.tools = {Echo("echo"), Echo("echo")}});
  CHECK(ran.result.end == RunEnd::kFailed);
  CHECK(absl::IsInvalidArgument(ran.result.status));
  CHECK(model.asked().empty());
}

}  // namespace
}  // namespace millrace
