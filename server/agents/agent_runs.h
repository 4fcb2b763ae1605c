// SPDX-License-Identifier: Apache-2.0
#pragma once
// Agent runs of this server: a bounded number at once, each on a thread of its own, since a run blocks on its model and
// its tools. Owned by the composition root; thread-safe.
#include <functional>
#include <list>
#include <memory>
#include <thread>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "agent/cancellation.h"
#include "agent/run.h"
#include "server/agents/tool_set.h"
#include "server/pipeline/generation.h"
#include "server/pipeline/requests.h"

namespace millrace {

// Learns what becomes of runs; called on their threads.
class RunObserver {
 public:
  virtual ~RunObserver() = default;
  virtual void OnRunBegan() = 0;
  virtual void OnRunEnded(const Caller& caller, const RunResult& result, absl::Duration duration) = 0;
  // A turn that a limit or a full queue did not let run: it ends the run.
  virtual void OnTurnRefused(const Caller& caller, const absl::Status& status) = 0;
  // `tool`: its name; "unknown" where the model made one up.
  virtual void OnToolCalled(std::string_view tool, const ToolResult& result, absl::Duration duration) = 0;
};

struct AgentRunArgs {
  std::shared_ptr<Generator> generator;
  Caller caller;            // of every turn
  GenerationParams params;  // likewise, but for max_tokens: RunLimits::max_output_tokens holds instead
  RunRequest request;
  RunSink sink;                              // on the run's thread
  std::function<void(RunResult&&)> on_done;  // likewise, once, after everything else; may be null
};

class AgentRuns {
 public:
  struct Options {
    int max_runs = 256;  // at once
    RunLimits limits;    // what a request may tighten
  };
  // `observer` may be null; it outlives the runs.
  AgentRuns(ToolSet tools, Options options, RunObserver* observer);
  // Cancels what still runs, and waits for it.
  ~AgentRuns();

  // What cancels the run, from any thread; it may outlive the run. ResourceExhausted: too many run already.
  // Unavailable: they are being stopped.
  absl::StatusOr<std::shared_ptr<Cancellation>> Start(AgentRunArgs args);
  // Refuses new runs and cancels all; does not wait.
  void Stop();

  const ToolSet& tools() const { return tools_; }
  const RunLimits& limits() const { return options_.limits; }
  int num_running() const;

 private:
  struct Entry {
    std::shared_ptr<Cancellation> cancellation;
    std::thread thread;
    bool is_over = false;
  };
  using Entries = std::list<Entry>;
  void Execute(AgentRunArgs args, const Cancellation& cancellation) const;
  void Reap() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);

  const ToolSet tools_;
  const Options options_;
  RunObserver* const observer_;
  mutable absl::Mutex mu_;
  Entries entries_ ABSL_GUARDED_BY(mu_);
  int num_running_ ABSL_GUARDED_BY(mu_) = 0;
  bool is_stopping_ ABSL_GUARDED_BY(mu_) = false;
};

}  // namespace millrace
