// SPDX-License-Identifier: Apache-2.0
// What a round with a tool costs beside the model's own work: from the call that a model has written to the first token
// of its next turn, with a tool that does nothing, less the time of the steps between. The bundled model on the CPU.
//   tool_round_bench [rounds]
#include <algorithm>
#include <cstdio>
#include <cstdlib>

#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/clock.h"
#include "agent/run.h"
#include "server/agents/generator_model.h"

namespace millrace {
namespace {

class NoTool : public Tool {
 public:
  std::string_view name() const override { return "calculator"; }
  std::string_view description() const override { return "Evaluate an arithmetic expression"; }
  std::string_view parameters() const override {
    return R"({"type":"object","properties":{"expression":{"type":"string"}},"required":["expression"]})";
  }
  ToolResult Call(std::string_view, absl::Time, const Cancellation&) override { return {.text = "5"}; }
};

struct StepTime {
  absl::Mutex mu;
  absl::Duration total ABSL_GUARDED_BY(mu);

  absl::Duration Read() {
    absl::MutexLock lock(&mu);
    return total;
  }
};

double Percentile(std::vector<double> values, double share) {
  std::sort(values.begin(), values.end());
  return values[static_cast<size_t>(share * static_cast<double>(values.size() - 1))];
}

int Main(int num_rounds) {
  StepTime steps;
  EngineOptions options{.model_dir = std::string(MILLRACE_SOURCE_DIR) + "/models/millrace-tiny",
                        .device = "cpu",
                        .num_threads = 1,
                        .kv_cache_bytes = 16 << 20};
  options.on_step = [&](const StepStats& stats) {
    absl::MutexLock lock(&steps.mu);
    steps.total += stats.plan_time + stats.run_time + stats.commit_time;
  };
  auto engine = Engine::Create(options);
  if (!engine.ok()) {
    std::fprintf(stderr, "%s\n", std::string(engine.status().message()).c_str());
    return 1;
  }
  const std::shared_ptr<Generator> generator = Generator::Create(**engine, nullptr, {});
  const auto tool = std::make_shared<NoTool>();
  std::vector<double> overhead_ms, wall_ms, cached;
  const Cancellation cancellation;
  for (int i = 0; i < num_rounds + 5; ++i) {
    GeneratorModel model({.generator = generator, .caller = {.request_id = "bench", .endpoint = "bench"}});
    RunRequest request{.tools = {tool}};
    request.conversation.messages = {{.role = "user", .content = absl::StrCat("What is ", 100 + i, " * 7?")}};
    absl::Time called, first;
    absl::Duration steps_before, steps_after;
    const RunSink sink = [&](RunEvent&& event) {
      if (std::holds_alternative<CallMade>(event)) {
        called = absl::Now();
        steps_before = steps.Read();
      }
      const auto* piece = std::get_if<TextPiece>(&event);
      if (piece == nullptr || piece->turn != 1 || first != absl::Time()) return;
      first = absl::Now();
      steps_after = steps.Read();
    };
    const RunResult result = RunAgent(model, request, sink, cancellation);
    if (i < 5 || result.num_turns != 2 || first == absl::Time()) continue;  // warming up, or it knew the answer
    wall_ms.push_back(absl::ToDoubleMilliseconds(first - called));
    overhead_ms.push_back(absl::ToDoubleMilliseconds((first - called) - (steps_after - steps_before)));
    cached.push_back(static_cast<double>(result.usage.num_cached_tokens));
  }
  if (overhead_ms.empty()) return 1;
  std::printf("rounds %zu\n", overhead_ms.size());
  std::printf("call to first token, ms: p50 %.3f p90 %.3f\n", Percentile(wall_ms, 0.5), Percentile(wall_ms, 0.9));
  std::printf("of it not in steps, ms: p50 %.3f p90 %.3f p99 %.3f\n", Percentile(overhead_ms, 0.5),
              Percentile(overhead_ms, 0.9), Percentile(overhead_ms, 0.99));
  std::printf("cached tokens of both prompts: p50 %.0f\n", Percentile(cached, 0.5));
  return 0;
}

}  // namespace
}  // namespace millrace

int main(int argc, char** argv) { return millrace::Main(argc > 1 ? std::max(1, std::atoi(argv[1])) : 200); }
