// SPDX-License-Identifier: Apache-2.0
#pragma once
// The step loop and its thread: takes requests from an inbox, drives Scheduler and Runner, gives events to sinks.
// The plain order of its verbs is plan, launch, collect, commit; ahead, the next step is planned and launched before
// the one in flight is collected, wherever the scheduler can (Scheduler::CanPlanAhead). Both give the same tokens.
// Threads: Submit/Cancel/Finish/stats from any; Run on the engine thread; CheckHealth from a watchdog.
#include <atomic>
#include <deque>
#include <functional>
#include <memory>
#include <optional>
#include <thread>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/container/flat_hash_map.h"
#include "absl/functional/function_ref.h"
#include "absl/synchronization/mutex.h"
#include "engine/engine.h"

namespace millrace {

// Computes plans in their order: launch begins one, collect waits for the oldest begun and gives its results. At most
// two are begun and not collected. The engine's is the Runner; tests script it.
struct StepFunctions {
  std::function<absl::Status(const StepPlan&)> launch;
  std::function<absl::Status(StepResult*)> collect;
  StepOrder order = StepOrder::kPlain;  // kAuto is kPlain
};

class StepLoop {
 public:
  StepLoop(std::unique_ptr<Scheduler> scheduler, SchedulerConfig config, StepFunctions functions,
           std::function<void(const StepStats&)> on_step);
  ~StepLoop();  // stops: every live request finishes with kError

  void Start();
  absl::StatusOr<RequestHandle> Submit(Request request, TokenSink sink);
  void Finish(RequestId id);
  void ReleaseSession(uint64_t session);
  absl::StatusOr<int32_t> ResetPrefixCache(std::optional<uint64_t> salt, absl::Duration limit);
  SchedulerStats stats() const;
  std::vector<std::pair<std::string, int32_t>> waiting_by_tenant() const;
  EngineHealth CheckHealth(absl::Duration limit);
  absl::Time last_step_end() const;

 private:
  // Shared by who waits and the engine thread.
  struct Reset {
    std::optional<uint64_t> salt;
    int32_t num_pages = -1;  // guarded by mu_; -1: not yet
  };
  struct Inbox {
    std::vector<Request> added;
    std::vector<std::pair<RequestId, uint64_t>> cancelled;  // and the steps begun when it was cancelled
    std::vector<RequestId> finished;
    std::vector<uint64_t> released;  // sessions
    std::vector<std::shared_ptr<Reset>> resets;
    bool empty() const {
      return added.empty() && cancelled.empty() && finished.empty() && released.empty() && resets.empty();
    }
  };
  struct Entry {
    std::shared_ptr<TokenSink> sink;
    int64_t num_waiting_tokens = 0;  // > 0 until first scheduled: counts against the queue's bounds
  };

  void Run();
  Inbox TakeInbox(bool wait);
  void Apply(Inbox inbox);
  bool Step(StepStats& stats);
  bool Launch();
  void Collect(StepStats& stats);
  void Compute(StepStats& stats, absl::FunctionRef<absl::Status()> body);
  void Deliver(std::vector<TokenEvent> events);
  void Cancel(RequestId id);
  void Forget(RequestId id) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void StopWaiting(Entry& entry) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  using Entries = absl::flat_hash_map<RequestId, Entry>;
  Entries TakeEntries() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  static void Fail(const Entries& entries);
  void FailAll();
  void PublishStats();
  void Beat() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void Rest(absl::Time deadline) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  absl::Status CheckAlive() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  absl::Status CheckAdmissible(const Request& request) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);

  const SchedulerConfig config_;
  const StepFunctions functions_;
  const std::function<void(const StepStats&)> on_step_;

  // Engine thread only.
  const std::unique_ptr<Scheduler> scheduler_;
  StepResult result_;
  std::deque<StepStats> flights_;           // of the steps launched and not collected
  std::vector<uint64_t> disconnect_steps_;  // told with the next step that is planned
  absl::Status device_status_;              // the first failure: nothing is computed after it

  mutable absl::Mutex mu_;
  Inbox inbox_ ABSL_GUARDED_BY(mu_);
  Entries entries_ ABSL_GUARDED_BY(mu_);
  uint64_t next_id_ ABSL_GUARDED_BY(mu_) = 1;
  int64_t num_waiting_ ABSL_GUARDED_BY(mu_) = 0;
  int64_t num_waiting_tokens_ ABSL_GUARDED_BY(mu_) = 0;
  uint64_t num_steps_begun_ ABSL_GUARDED_BY(mu_) = 0;
  bool is_stopping_ ABSL_GUARDED_BY(mu_) = false;
  bool is_in_step_ ABSL_GUARDED_BY(mu_) = false;
  bool is_stuck_ ABSL_GUARDED_BY(mu_) = false;
  bool is_failed_ ABSL_GUARDED_BY(mu_) = false;
  absl::Time last_beat_ ABSL_GUARDED_BY(mu_) = absl::InfiniteFuture();  // of the engine thread; infinite: it rests
  absl::Time step_end_ ABSL_GUARDED_BY(mu_) = absl::InfinitePast();
  SchedulerStats stats_ ABSL_GUARDED_BY(mu_);
  std::vector<std::pair<std::string, int32_t>> waiting_by_tenant_ ABSL_GUARDED_BY(mu_);
  absl::Time next_deadline_ = absl::InfiniteFuture();  // engine thread only

  std::thread thread_;
};

}  // namespace millrace
