// SPDX-License-Identifier: Apache-2.0
#include "server/agents/run_observer.h"

#include <cmath>

namespace millrace {
namespace {

class Observer : public RunObserver {
 public:
  Observer(Metrics& metrics, RequestObserver& requests, Log* log) : metrics_(metrics), requests_(requests), log_(log) {}

  void OnRunBegan() override { metrics_.OnRunBegan(); }
  void OnRunEnded(const Caller& caller, const RunResult& result, absl::Duration duration) override {
    metrics_.OnRunEnded(result, duration);
    if (log_ == nullptr) return;
    log_->Info("agent run", {{"request_id", caller.request_id},
                             {"endpoint", caller.endpoint},
                             {"tenant", caller.tenant.name},
                             {"end", RunEndName(result.end)},
                             {"turns", int64_t{result.num_turns}},
                             {"tool_calls", int64_t{result.num_tool_calls}},
                             {"prompt_tokens", result.usage.num_prompt_tokens},
                             {"cached_tokens", result.usage.num_cached_tokens},
                             {"generated_tokens", result.usage.num_output_tokens},
                             {"total_ms", std::round(absl::ToDoubleMicroseconds(duration)) / 1000}});
  }
  void OnTurnRefused(const Caller& caller, const absl::Status& status) override {
    requests_.OnRejected(caller, status);
  }
  void OnToolCalled(std::string_view tool, const ToolResult& result, absl::Duration duration) override {
    metrics_.OnToolCalled(tool, result, duration);
  }

 private:
  Metrics& metrics_;
  RequestObserver& requests_;
  Log* const log_;
};

}  // namespace

std::unique_ptr<RunObserver> MakeRunObserver(Metrics& metrics, RequestObserver& requests, Log* log) {
  return std::make_unique<Observer>(metrics, requests, log);
}

}  // namespace millrace
