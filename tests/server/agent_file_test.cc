// SPDX-License-Identifier: Apache-2.0
#include "server/agents/agent_file.h"

#include <catch2/catch.hpp>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"

namespace millrace {
namespace {

const ToolSet& Tools() {
  static const ToolSet set = *ToolSet::Create({});
  return set;
}

absl::StatusOr<AgentList> Parse(const std::string& text, RunLimits limits = {}) {
  return ParseAgents(text, "a.yaml", {.model_names = {"m", "n"}, .limits = limits, .tools = &Tools()});
}

std::string FaultOf(const std::string& text) {
  const auto agents = Parse(text);
  return agents.ok() ? "" : std::string(agents.status().message());
}

TEST_CASE("Agent file: everything an agent can have", "[agent_file]") {
  const auto agents = Parse(R"(
agents:
- name: sums
  description: Adds up.
  instructions: |
    You add up.
    Nothing else.
  tools: [calculator, clock]
  model: n
  sampling: {temperature: 0, top_p: 0.5, top_k: 7, min_p: 0.1, repetition_penalty: 1.1, seed: 5}
  limits: {max_turns: 3, max_tool_calls: 4, max_output_tokens: 50, max_total_tokens: 900, time: 90s, tool_time: 1500ms}
  tenants: [a, anonymous]
- {name: Bare.1_x}
)");
  REQUIRE(agents.status().ToString() == "OK");
  REQUIRE(agents->size() == 2);
  const Agent& sums = *(*agents)[0];
  CHECK(sums.name == "sums");
  CHECK(sums.description == "Adds up.");
  CHECK(sums.instructions == "You add up.\nNothing else.\n");
  REQUIRE(sums.tools.size() == 2);
  CHECK(sums.tools[0]->name() == "calculator");
  CHECK(sums.model == "n");
  CHECK(sums.temperature == 0.0f);
  CHECK(sums.top_p == 0.5f);
  CHECK(sums.top_k == 7);
  CHECK(sums.min_p == 0.1f);
  CHECK(sums.repetition_penalty == 1.1f);
  CHECK(sums.seed == 5u);
  CHECK(sums.limits.max_turns == 3);
  CHECK(sums.limits.max_tool_calls == 4);
  CHECK(sums.limits.max_output_tokens == 50);
  CHECK(sums.limits.max_total_tokens == 900);
  CHECK(sums.limits.tool_time == absl::Milliseconds(1500));
  CHECK(sums.time == absl::Seconds(90));
  CHECK(LimitsOf(sums, absl::UnixEpoch()).deadline == absl::FromUnixSeconds(90));
  CHECK(sums.Allows({.name = "a"}));
  CHECK(sums.Allows({}));
  CHECK_FALSE(sums.Allows({.name = "b"}));
  const Agent& bare = *(*agents)[1];
  CHECK(bare.model == "m");
  CHECK(bare.tools.empty());
  CHECK(bare.limits.max_turns == RunLimits().max_turns);
  CHECK(LimitsOf(bare, absl::UnixEpoch()).deadline == absl::InfiniteFuture());
  CHECK(bare.Allows({.name = "b"}));
}

TEST_CASE("Agent file: a fault names path and line, and what is known instead", "[agent_file]") {
  const std::pair<const char*, const char*> faults[] = {
      {"agents:\n- name: a\n  tool: [clock]", "a.yaml:3: unknown field 'tool' (did you mean 'tools'?)"},
      {"agents:\n- name: a\n  tools:\n  - clock\n  - clocks",
       "a.yaml:5: this server has no tool 'clocks'; it has: calc"},
      {"agents:\n- name: a\n  tools: [clock, clock]", "a.yaml:3: tools names 'clock' twice"},
      {"agents:\n- name: a\n  tools: clock", "a.yaml:3: tools must be a list of names"},
      {"agents:\n- name: a\n  model: x", "a.yaml:3: there is no model 'x'; there is: m, n"},
      {"agents:\n- name: n", "a.yaml:2: 'n' is the name of a model"},
      {"agents:\n- name: a\n- name: b\n- name: a", "a.yaml:4: 'a' is the name of another agent"},
      {"agents:\n- name: a/b", "a.yaml:2: an agent's name has"},
      {"agents:\n- name: .a", "a.yaml:2: an agent's name has"},
      {"agents:\n- description: x", "a.yaml:2: an agent needs a name"},
      {"agents:\n- name: a\n  name: b", "a.yaml:3: 'name' again"},
      {"agents:\n- name: [a]", "a.yaml:2: name must be a text"},
      {"agents:\n- name: a\n  description: \"\xff\"", "a.yaml:"},
      {"agents:\n- a", "a.yaml:2: an agent must be a map"},
      {"agents: a", "a.yaml:1: agents must be a list"},
      {"- name: a", "a.yaml:1: the file must be a map"},
      {"", "a.yaml:1: the file must be a map"},
      {"{", "a.yaml:"},
      {"agent: []", "a.yaml:1: unknown field 'agent' (did you mean 'agents'?)"},
      {"agents:\n- name: a\n  tenants: []", "a.yaml:3: tenants is empty"},
      {"agents:\n- name: a\n  sampling:\n    temperature: 3", "a.yaml:4: temperature must be a number from 0 to 2"},
      {"agents:\n- name: a\n  sampling: {temperature: .nan}", "a.yaml:3: temperature must be"},
      {"agents:\n- name: a\n  sampling: {seed: -1}", "a.yaml:3: seed must be"},
      {"agents:\n- name: a\n  limits: {max_turns: 17}", "a.yaml:3: max_turns must be a whole number from 1 to 16"},
      {"agents:\n- name: a\n  limits: {max_turns: 0}", "a.yaml:3: max_turns must be"},
      {"agents:\n- name: a\n  limits: {max_tool_calls: 1.5}", "a.yaml:3: max_tool_calls must be"},
      {"agents:\n- name: a\n  limits: {time: 30}", "a.yaml:3: time must be a time such as 30s"},
      {"agents:\n- name: a\n  limits: {time: inf}", "a.yaml:3: time must be"},
      {"agents:\n- name: a\n  limits: {tool_time: 0s}", "a.yaml:3: tool_time must be"},
  };
  for (const auto& [text, begin] : faults) {
    INFO(text);
    const std::string fault = FaultOf(text);
    CAPTURE(fault);
    CHECK(absl::StartsWith(fault, begin));
  }
}

TEST_CASE("Agent file: sizes are bounded", "[agent_file]") {
  const auto with = [](const std::string& field, size_t num_bytes) {
    return FaultOf(absl::StrCat("agents:\n- name: a\n  ", field, ": ", std::string(num_bytes, 'x')));
  };
  CHECK(with("description", 1024).empty());
  CHECK(with("description", 1025) == "a.yaml:3: description is longer than 1024 bytes");
  CHECK(with("instructions", 64 << 10).empty());
  CHECK(absl::StrContains(with("instructions", (64 << 10) + 1), "longer than"));
  CHECK(absl::StrContains(FaultOf("agents:\n- name: " + std::string(65, 'a')), "longer than 64 bytes"));
  std::string many = "agents:\n";
  for (int i = 0; i < 256; ++i) absl::StrAppend(&many, "- name: a", i, "\n");
  CHECK(FaultOf(many).empty());
  CHECK(absl::StrContains(FaultOf(many + "- name: b"), "more than 256 agents"));
  CHECK(absl::StrContains(FaultOf(std::string((4 << 20) + 1, '#')), "larger than 4 MiB"));
  CHECK(absl::StrContains(FaultOf(std::string(100'000, '[')), "a.yaml:"));
}

TEST_CASE("Agent file: limits of every run bound those of an agent, and hold where it has none", "[agent_file]") {
  const RunLimits limits{.max_turns = 4, .max_total_tokens = 100};
  CHECK((*Parse("agents: [{name: a}]", limits))[0]->limits.max_total_tokens == 100);
  CHECK((*Parse("agents: [{name: a, limits: {max_total_tokens: 50}}]", limits))[0]->limits.max_total_tokens == 50);
  CHECK_FALSE(Parse("agents: [{name: a, limits: {max_total_tokens: 101}}]", limits).ok());
  CHECK_FALSE(Parse("agents: [{name: a, limits: {max_turns: 5}}]", limits).ok());
}

TEST_CASE("Agent: its instructions come before the client's, its sampling where there is none", "[agent_file]") {
  const Agent agent{.instructions = "Be brief.", .temperature = 0.5f, .top_k = 3};
  ChatRequest request{.params = {.top_k = 9}};
  request.conversation.messages = {{.role = "user", .content = "hi"}};
  ApplyAgent(agent, request);
  REQUIRE(request.conversation.messages.size() == 2);
  CHECK(request.conversation.messages[0].role == "system");
  CHECK(std::get<std::string>(request.conversation.messages[0].content) == "Be brief.");
  CHECK(request.params.temperature == 0.5f);
  CHECK(request.params.top_k == 9);

  request.conversation.messages = {{.role = "developer", .content = "Be kind."}, {.role = "user", .content = "hi"}};
  ApplyAgent(agent, request);
  REQUIRE(request.conversation.messages.size() == 2);
  CHECK(request.conversation.messages[0].role == "system");
  CHECK(std::get<std::string>(request.conversation.messages[0].content) == "Be brief.\n\nBe kind.");

  request.conversation.messages = {{.role = "system", .content = std::vector<ContentPart>{{.text = "Be kind."}}}};
  ApplyAgent(agent, request);
  const auto& parts = std::get<std::vector<ContentPart>>(request.conversation.messages[0].content);
  REQUIRE(parts.size() == 2);
  CHECK(parts[0].text == "Be brief.\n\n");
}

}  // namespace
}  // namespace millrace
