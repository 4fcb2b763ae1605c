// SPDX-License-Identifier: Apache-2.0
// The bundled model as an agent: it calls tools that really run, and answers from what they say.
#include <catch2/catch.hpp>
#include <thread>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "absl/synchronization/notification.h"
#include "agent/sandbox/sandbox.h"
#include "server/agents/agent_runs.h"

namespace millrace {
namespace {

struct Model {
  Model() {
    EngineOptions options{.model_dir = std::string(MILLRACE_SOURCE_DIR) + "/models/millrace-tiny",
                          .device = "cpu",
                          .num_threads = 1,
                          .kv_cache_bytes = 16 << 20};
    options.on_step = [this](const StepStats& stats) {
      absl::MutexLock lock(&mu);
      num_prefill_rows += stats.num_prefill_rows;
    };
    auto made = Engine::Create(options);
    REQUIRE(made.status().ToString() == "OK");
    engine = *std::move(made);
    generator = Generator::Create(*engine, nullptr, {});
  }

  RunResult Ask(AgentRuns& runs, std::string question) {
    absl::Notification done;
    RunResult result;
    AgentRunArgs args{.generator = generator, .caller = {.request_id = "r", .endpoint = "test"}};
    args.request.conversation.messages = {{.role = "user", .content = std::move(question)}};
    args.request.tools = runs.tools().all();
    args.on_done = [&](RunResult&& ended) {
      result = std::move(ended);
      done.Notify();
    };
    REQUIRE(runs.Start(std::move(args)).ok());
    done.WaitForNotification();
    return result;
  }

  absl::Mutex mu;
  int64_t num_prefill_rows = 0;
  std::unique_ptr<Engine> engine;
  std::shared_ptr<Generator> generator;
};

std::string Said(const RunResult& result) {
  const auto* text = result.messages.empty() ? nullptr : std::get_if<std::string>(&result.messages.back().content);
  return text != nullptr ? *text : "";
}

TEST_CASE("Bundled model: a question, the calculator's result, the answer; the second turn computes what is new",
          "[bundled]") {
  Model model;
  const int32_t page_tokens = model.engine->scheduler_config().page_tokens;
  AgentRuns runs(*ToolSet::Create({.enabled = {"calculator"}}), {}, nullptr);
  const RunResult result = model.Ask(runs, "What is 123 * 456?");
  CHECK(result.end == RunEnd::kAnswered);
  CHECK(result.num_turns == 2);
  CHECK(result.num_tool_calls == 1);
  CHECK(absl::StrContains(Said(result), "56088"));
  // All of the first turn was found again, but for what did not fill a page, and the last token, which is drawn only.
  const TurnUsage& usage = result.usage;
  CHECK(usage.num_cached_tokens > 0);
  CHECK(usage.num_cached_tokens % page_tokens == 0);
  absl::MutexLock lock(&model.mu);
  // The warm-up's one row too.
  CHECK(model.num_prefill_rows == 1 + usage.num_prompt_tokens - usage.num_cached_tokens);
  // Prompts are P and P + O + new: what the second found is P + O - 1, to a page.
  const int64_t found_at_least = (usage.num_prompt_tokens - model.num_prefill_rows) / page_tokens * page_tokens;
  CHECK(usage.num_cached_tokens >= found_at_least);
}

TEST_CASE("Bundled model: a program that it wrote runs in the sandbox, and its output is the answer", "[bundled]") {
  if (!ProbeSandbox().is_complete()) {
    WARN("SKIPPED: the kernel has no sandbox for programs");
    return;
  }
  auto tools = ToolSet::Create({.enabled = {"python"}});
  REQUIRE(tools.status().ToString() == "OK");
  Model model;
  AgentRuns runs(*std::move(tools), {}, nullptr);
  const RunResult result = model.Ask(runs, "Use Python to add up 17, 250, 8.");
  CHECK(result.end == RunEnd::kAnswered);
  CHECK(result.num_tool_calls == 1);
  REQUIRE(result.messages.size() == 3);
  CHECK(std::get<std::string>(result.messages[1].content) == "275\n");
  CHECK(absl::StrContains(Said(result), "275"));
}

TEST_CASE("Bundled model: runs side by side keep apart, and leave no pinned page behind", "[bundled]") {
  Model model;
  AgentRuns runs(*ToolSet::Create({.enabled = {"calculator"}}), {}, nullptr);
  std::vector<std::thread> threads;
  std::vector<std::string> said(4);
  for (int i = 0; i < 4; ++i) {
    threads.emplace_back([&, i] { said[i] = Said(model.Ask(runs, absl::StrCat("What is ", 123 + i, " * 456?"))); });
  }
  for (std::thread& thread : threads) thread.join();
  for (int i = 0; i < 4; ++i) {
    INFO(said[i]);
    CHECK(absl::StrContains(said[i], absl::StrCat((123 + i) * 456)));
  }
  // The release is on its way to the engine's thread: a request behind it sees that it has come.
  absl::Notification done;
  while (runs.num_running() > 0) std::this_thread::yield();
  auto last = model.generator->Complete({}, {.prompts = {std::string("x")}, .params = {.max_tokens = 1}},
                                        [&](TextDelta&& delta) {
                                          if (delta.finish != FinishReason::kNone) done.Notify();
                                          return true;
                                        });
  REQUIRE(last.ok());
  done.WaitForNotification();
  const auto is_free = [&] { return model.engine->stats().num_pages_pinned == 0; };
  while (!is_free()) std::this_thread::yield();
  CHECK(is_free());
}

}  // namespace
}  // namespace millrace
