// SPDX-License-Identifier: Apache-2.0
#include "server/agents/agent_runs.h"

#include <system_error>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "agent/call_tools.h"
#include "server/agents/generator_model.h"

namespace millrace {

AgentRuns::AgentRuns(ToolSet tools, Options options, RunObserver* observer)
    : tools_(std::move(tools)), options_(std::move(options)), observer_(observer) {}

AgentRuns::~AgentRuns() {
  Stop();
  Entries entries;
  {
    absl::MutexLock lock(&mu_);
    const auto is_done = [this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) { return num_running_ == 0; };
    mu_.Await(absl::Condition(&is_done));
    entries.swap(entries_);
  }
  for (Entry& entry : entries) entry.thread.join();
}

void AgentRuns::Stop() {
  absl::MutexLock lock(&mu_);
  is_stopping_ = true;
  for (const Entry& entry : entries_) entry.cancellation->Cancel();
}

int AgentRuns::num_running() const {
  absl::MutexLock lock(&mu_);
  return num_running_;
}

// Threads whose run is over have nothing left to do but to end.
void AgentRuns::Reap() {
  for (auto entry = entries_.begin(); entry != entries_.end();) {
    if (entry->is_over) {
      entry->thread.join();
      entry = entries_.erase(entry);
    } else {
      ++entry;
    }
  }
}

absl::StatusOr<std::shared_ptr<Cancellation>> AgentRuns::Start(AgentRunArgs args) {
  auto cancellation = std::make_shared<Cancellation>();
  absl::MutexLock lock(&mu_);
  if (is_stopping_) return absl::UnavailableError("the server is shutting down");
  Reap();
  if (num_running_ >= options_.max_runs) {
    return absl::ResourceExhaustedError(absl::StrCat("the server is full: ", num_running_, " agent runs"));
  }
  Entry& entry = entries_.emplace_back();
  entry.cancellation = cancellation;
  try {
    entry.thread = std::thread([this, &entry, cancellation, args = std::move(args)]() mutable {
      Execute(std::move(args), *cancellation);
      absl::MutexLock done(&mu_);
      entry.is_over = true;
      --num_running_;
    });
  } catch (const std::system_error&) {
    entries_.pop_back();
    return absl::ResourceExhaustedError("the server is full: the system gives no more threads");
  }
  ++num_running_;
  return cancellation;
}

void AgentRuns::Execute(AgentRunArgs args, const Cancellation& cancellation) const {
  const absl::Time begin = absl::Now();
  const auto on_done = std::move(args.on_done);
  std::vector<std::string> called;  // by call
  const RunSink sink = [&](RunEvent&& event) {
    if (observer_ != nullptr) {
      if (const auto* made = std::get_if<CallMade>(&event)) {
        called.resize(static_cast<size_t>(made->call) + 1);
        const bool is_known = FindTool(args.request.tools, made->tool_call.name) != nullptr;
        called.back() = is_known ? made->tool_call.name : "unknown";
      } else if (const auto* answered = std::get_if<CallAnswered>(&event)) {
        observer_->OnToolCalled(called[static_cast<size_t>(answered->call)], answered->result, answered->duration);
      }
    }
    if (args.sink) args.sink(std::move(event));
  };
  if (observer_ != nullptr) observer_->OnRunBegan();
  const Caller caller = args.caller;
  GeneratorModel model({.generator = std::move(args.generator),
                        .caller = std::move(args.caller),
                        .params = std::move(args.params),
                        .on_refused = [&](const absl::Status& status) {
                          if (observer_ != nullptr) observer_->OnTurnRefused(caller, status);
                        }});
  RunResult result = RunAgent(model, args.request, sink, cancellation);
  if (observer_ != nullptr) observer_->OnRunEnded(caller, result, absl::Now() - begin);
  if (on_done) on_done(std::move(result));
}

}  // namespace millrace
