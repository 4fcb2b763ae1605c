// SPDX-License-Identifier: Apache-2.0
#pragma once
// The step loop and its thread: takes requests from an inbox, drives Scheduler and Runner, gives events to sinks.
// Threads: Submit/Cancel/Finish/stats from any; Run on the engine thread; CheckHealth from a watchdog.
#include <atomic>
#include <functional>
#include <memory>
#include <thread>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/container/flat_hash_map.h"
#include "absl/synchronization/mutex.h"
#include "engine/engine.h"

namespace millrace {

// Computes a plan. The engine's is Runner::Run; tests script it.
using RunStep = std::function<absl::Status(const StepPlan&, StepResult*)>;

class StepLoop {
 public:
  StepLoop(std::unique_ptr<Scheduler> scheduler, SchedulerConfig config, RunStep run_step,
           std::function<void(const StepStats&)> on_step);
  ~StepLoop();  // stops: every live request finishes with kError

  void Start();
  absl::StatusOr<RequestHandle> Submit(Request request, TokenSink sink);
  void Finish(RequestId id);
  void ReleaseSession(uint64_t session);
  SchedulerStats stats() const;
  std::vector<std::pair<std::string, int32_t>> waiting_by_tenant() const;
  EngineHealth CheckHealth(absl::Duration limit);
  absl::Time last_step_end() const;

 private:
  struct Inbox {
    std::vector<Request> added;
    std::vector<std::pair<RequestId, uint64_t>> cancelled;  // and the steps begun when it was cancelled
    std::vector<RequestId> finished;
    std::vector<uint64_t> released;  // sessions
    bool empty() const { return added.empty() && cancelled.empty() && finished.empty() && released.empty(); }
  };
  struct Entry {
    std::shared_ptr<TokenSink> sink;
    int64_t num_waiting_tokens = 0;  // > 0 until first scheduled: counts against the queue's bounds
  };

  void Run();
  Inbox TakeInbox(bool wait);
  void Apply(Inbox inbox, StepStats& stats);
  bool Step(StepStats& stats);
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
  absl::Status CheckAdmissible(const Request& request) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);

  const SchedulerConfig config_;
  const RunStep run_step_;
  const std::function<void(const StepStats&)> on_step_;

  // Engine thread only.
  const std::unique_ptr<Scheduler> scheduler_;
  StepResult result_;

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
