// SPDX-License-Identifier: Apache-2.0
#pragma once
// A scheduler that is checked after each of its verbs.
#include <catch2/catch.hpp>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "scheduler/scheduler.h"

namespace millrace::testing {

class CheckedScheduler final : public Scheduler {
 public:
  explicit CheckedScheduler(std::unique_ptr<Scheduler> scheduler) : scheduler_(std::move(scheduler)) {}
  absl::Status Add(Request request, absl::Time now) override {
    return Checked(scheduler_->Add(std::move(request), now));
  }
  void Cancel(RequestId id) override {
    scheduler_->Cancel(id);
    Check();
  }
  void Finish(RequestId id) override {
    scheduler_->Finish(id);
    Check();
  }
  void ReleaseSession(uint64_t session) override {
    scheduler_->ReleaseSession(session);
    Check();
  }
  const StepPlan& Plan(absl::Time now) override {
    const StepPlan& plan = scheduler_->Plan(now);
    Check();
    return plan;
  }
  bool CanPlanAhead() const override { return scheduler_->CanPlanAhead(); }
  std::vector<TokenEvent> Commit(const StepResult& result, absl::Time now) override {
    return Checked(scheduler_->Commit(result, now));
  }
  std::vector<TokenEvent> Abort() override { return Checked(scheduler_->Abort()); }
  std::vector<TokenEvent> TakeEvents() override { return scheduler_->TakeEvents(); }
  bool Idle() const override { return scheduler_->Idle(); }
  absl::Time NextDeadline() const override { return scheduler_->NextDeadline(); }
  SchedulerStats stats() const override { return scheduler_->stats(); }
  std::vector<std::pair<std::string, int32_t>> WaitingByTenant() const override {
    return scheduler_->WaitingByTenant();
  }
  int32_t ResetPrefixCache(std::optional<uint64_t> salt) override { return scheduler_->ResetPrefixCache(salt); }
  absl::Status CheckIntegrity() const override { return scheduler_->CheckIntegrity(); }

 private:
  void Check() const {
    const absl::Status status = scheduler_->CheckIntegrity();
    if (!status.ok()) FAIL(status.ToString());  // an exception on the engine thread: the test process ends
  }
  template <typename T>
  T Checked(T result) const {
    Check();
    return result;
  }
  const std::unique_ptr<Scheduler> scheduler_;
};

}  // namespace millrace::testing
