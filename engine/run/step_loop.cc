// SPDX-License-Identifier: Apache-2.0
#include "engine/run/step_loop.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "kernels/check.h"

namespace millrace {

StepLoop::StepLoop(std::unique_ptr<Scheduler> scheduler, SchedulerConfig config, StepFunctions functions,
                   std::function<void(const StepStats&)> on_step)
    : config_(config),
      functions_(std::move(functions)),
      on_step_(std::move(on_step)),
      scheduler_(std::move(scheduler)) {
  absl::MutexLock lock(&mu_);
  stats_ = scheduler_->stats();
}

StepLoop::~StepLoop() {
  {
    absl::MutexLock lock(&mu_);
    is_stopping_ = true;
  }
  if (thread_.joinable()) thread_.join();
  FailAll();
}

void StepLoop::Start() {
  thread_ = std::thread([this] { Run(); });
}

absl::Status StepLoop::CheckAlive() const {
  if (is_stopping_ || is_failed_) return absl::UnavailableError("the engine is stopping");
  if (is_stuck_) return absl::UnavailableError("the engine does not answer");
  return absl::OkStatus();
}

absl::Status StepLoop::CheckAdmissible(const Request& request) const {
  if (absl::Status status = CheckAlive(); !status.ok()) return status;
  const int64_t num_prompt = static_cast<int64_t>(request.prompt_tokens.size());
  if (num_prompt == 0) return absl::InvalidArgumentError("the prompt has no tokens");
  const int64_t limit =
      std::min<int64_t>(config_.max_model_tokens, static_cast<int64_t>(config_.num_pages) * config_.page_tokens);
  const int64_t num_new = request.kind == Request::Kind::kGenerate ? request.max_new_tokens : 0;
  if (num_prompt + num_new > limit) {
    return absl::InvalidArgumentError(absl::StrCat("the prompt's ", num_prompt, " tokens and ", num_new,
                                                   " new ones exceed the limit of ", limit, " tokens"));
  }
  if (num_waiting_ >= config_.max_queued_requests) {
    return absl::ResourceExhaustedError(absl::StrCat("the queue is full: ", num_waiting_, " requests wait"));
  }
  if (num_waiting_ > 0 && num_waiting_tokens_ + num_prompt > config_.max_queued_tokens) {
    return absl::ResourceExhaustedError(
        absl::StrCat("the queue is full: ", num_waiting_tokens_, " prompt tokens wait"));
  }
  return absl::OkStatus();
}

absl::StatusOr<RequestHandle> StepLoop::Submit(Request request, TokenSink sink) {
  absl::MutexLock lock(&mu_);
  if (absl::Status status = CheckAdmissible(request); !status.ok()) return status;
  request.id = RequestId{next_id_++};
  const RequestId id = request.id;
  const int64_t num_tokens = static_cast<int64_t>(request.prompt_tokens.size());
  entries_[id] = {.sink = std::make_shared<TokenSink>(std::move(sink)), .num_waiting_tokens = num_tokens};
  ++num_waiting_;
  num_waiting_tokens_ += num_tokens;
  inbox_.added.push_back(std::move(request));
  return RequestHandle(id, [this](RequestId cancelled) { Cancel(cancelled); });
}

void StepLoop::Cancel(RequestId id) {
  absl::MutexLock lock(&mu_);
  if (!entries_.contains(id)) return;
  Forget(id);
  inbox_.cancelled.emplace_back(id, num_steps_begun_);
}

void StepLoop::Finish(RequestId id) {
  absl::MutexLock lock(&mu_);
  if (!entries_.contains(id)) return;
  Forget(id);
  inbox_.finished.push_back(id);
}

void StepLoop::ReleaseSession(uint64_t session) {
  absl::MutexLock lock(&mu_);
  inbox_.released.push_back(session);
}

absl::StatusOr<int32_t> StepLoop::ResetPrefixCache(std::optional<uint64_t> salt, absl::Duration limit) {
  const auto reset = std::make_shared<Reset>(Reset{.salt = salt});
  absl::MutexLock lock(&mu_);
  if (absl::Status status = CheckAlive(); !status.ok()) return status;
  inbox_.resets.push_back(reset);
  const auto is_over = [this, &reset]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) {
    return reset->num_pages >= 0 || is_stopping_ || is_failed_;
  };
  mu_.AwaitWithTimeout(absl::Condition(&is_over), limit);
  if (reset->num_pages >= 0) return reset->num_pages;
  if (absl::Status status = CheckAlive(); !status.ok()) return status;
  return absl::DeadlineExceededError("the step under way takes long; the prefix cache is reset after it");
}

void StepLoop::StopWaiting(Entry& entry) {
  if (entry.num_waiting_tokens == 0) return;
  --num_waiting_;
  num_waiting_tokens_ -= entry.num_waiting_tokens;
  entry.num_waiting_tokens = 0;
}

void StepLoop::Forget(RequestId id) {
  const auto found = entries_.find(id);
  if (found == entries_.end()) return;
  StopWaiting(found->second);
  entries_.erase(found);
}

// The engine thread gets on: what the watchdog looks at.
void StepLoop::Beat() {
  last_beat_ = absl::Now();
  is_stuck_ = false;
}

// Until something comes in.
void StepLoop::Rest(absl::Time deadline) {
  last_beat_ = absl::InfiniteFuture();
  is_stuck_ = false;
  const auto has_work = [this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) { return is_stopping_ || !inbox_.empty(); };
  mu_.AwaitWithDeadline(absl::Condition(&has_work), deadline);
}

StepLoop::Inbox StepLoop::TakeInbox(bool wait) {
  absl::MutexLock lock(&mu_);
  if (wait) Rest(next_deadline_);
  Beat();
  return std::exchange(inbox_, Inbox());
}

void StepLoop::Apply(Inbox inbox) {
  uint64_t begun = 0;
  {
    absl::MutexLock lock(&mu_);
    begun = num_steps_begun_;
  }
  const absl::Time now = absl::Now();
  std::vector<TokenEvent> refused;
  for (Request& request : inbox.added) {
    const RequestId id = request.id;
    // Submit keeps the bounds of queue and length, so a refusal here is our own fault; the client still hears of it.
    if (!scheduler_->Add(std::move(request), now).ok()) refused.push_back({.id = id, .finish = FinishReason::kError});
  }
  for (const auto& [id, begun_at_cancel] : inbox.cancelled) {
    scheduler_->Cancel(id);
    disconnect_steps_.push_back(begun - begun_at_cancel);
  }
  for (const RequestId id : inbox.finished) scheduler_->Finish(id);
  for (const uint64_t session : inbox.released) scheduler_->ReleaseSession(session);
  for (const std::shared_ptr<Reset>& reset : inbox.resets) {
    const int32_t num_pages = scheduler_->ResetPrefixCache(reset->salt);
    absl::MutexLock lock(&mu_);
    reset->num_pages = num_pages;
  }
  Deliver(std::move(refused));
}

// One turn of decide, act, learn: of the oldest step in flight. False when there was nothing to compute.
bool StepLoop::Step(StepStats& stats) {
  if (flights_.empty() && !Launch()) return false;
  if (functions_.order == StepOrder::kAhead && device_status_.ok() && scheduler_->CanPlanAhead()) Launch();
  Collect(stats);
  return true;
}

// False: nothing was planned.
bool StepLoop::Launch() {
  const absl::Time plan_begin = absl::Now();
  const StepPlan& plan = scheduler_->Plan(plan_begin);
  Deliver(scheduler_->TakeEvents());
  if (plan.empty()) return false;
  StepStats& stats = flights_.emplace_back();
  stats.step = plan.step;
  stats.num_sequences = static_cast<int32_t>(plan.sequences.size());
  for (const PlannedSequence& planned : plan.sequences) {
    const bool is_decode = planned.first_position >= planned.num_prompt_tokens;
    (is_decode ? stats.num_decode_rows : stats.num_prefill_rows) += planned.num_tokens;
  }
  stats.disconnect_steps = std::exchange(disconnect_steps_, {});
  stats.plan_time = absl::Now() - plan_begin;
  {
    absl::MutexLock lock(&mu_);
    ++num_steps_begun_;
  }
  Compute(stats, [&] { return functions_.launch(plan); });
  return true;
}

void StepLoop::Collect(StepStats& stats) {
  stats = std::move(flights_.front());
  flights_.pop_front();
  if (device_status_.ok()) Compute(stats, [&] { return functions_.collect(&result_); });
  const absl::Time run_end = absl::Now();
  {
    absl::MutexLock lock(&mu_);
    step_end_ = run_end;
  }
  const bool is_usable = device_status_.ok();
  if (!is_usable) flights_.clear();
  Deliver(is_usable ? scheduler_->Commit(result_, run_end) : scheduler_->Abort());
  stats.commit_time = absl::Now() - run_end;
}

// Where a step may hang.
void StepLoop::Compute(StepStats& stats, absl::FunctionRef<absl::Status()> body) {
  const absl::Time begin = absl::Now();
  {
    absl::MutexLock lock(&mu_);
    is_in_step_ = true;
    Beat();
  }
  device_status_ = body();
  {
    absl::MutexLock lock(&mu_);
    is_in_step_ = false;
    Beat();
    is_failed_ = is_failed_ || !device_status_.ok();
  }
  stats.run_time += absl::Now() - begin;
}

void StepLoop::Run() {
  while (true) {
    Apply(TakeInbox(/*wait=*/scheduler_->Idle() && flights_.empty()));
    {
      absl::MutexLock lock(&mu_);
      if (is_stopping_ || is_failed_) break;
    }
    StepStats stats;
    const bool has_stepped = Step(stats);
    if (!has_stepped) stats.disconnect_steps = std::exchange(disconnect_steps_, {});
    next_deadline_ = scheduler_->NextDeadline();
    PublishStats();
    stats.scheduler = scheduler_->stats();
    if (on_step_ && (has_stepped || !stats.disconnect_steps.empty())) on_step_(stats);
    if (!has_stepped && !scheduler_->Idle()) {
      // Requests wait, yet nothing can run until one of them is cancelled or times out.
      absl::MutexLock lock(&mu_);
      Rest(std::min(next_deadline_, absl::Now() + absl::Milliseconds(100)));
    }
  }
  for (; device_status_.ok() && !flights_.empty(); flights_.pop_front()) device_status_ = functions_.collect(&result_);
  FailAll();
}

void StepLoop::PublishStats() {
  SchedulerStats stats = scheduler_->stats();
  auto waiting = scheduler_->WaitingByTenant();
  absl::MutexLock lock(&mu_);
  stats_ = stats;
  waiting_by_tenant_ = std::move(waiting);
}

void StepLoop::Deliver(std::vector<TokenEvent> events) {
  for (TokenEvent& event : events) {
    std::shared_ptr<TokenSink> sink;
    {
      absl::MutexLock lock(&mu_);
      const auto found = entries_.find(event.id);
      if (found == entries_.end()) continue;  // cancelled, finished early or failed by the watchdog
      sink = found->second.sink;
      StopWaiting(found->second);
      if (event.finish != FinishReason::kNone) Forget(event.id);
    }
    (*sink)(std::move(event));
  }
}

StepLoop::Entries StepLoop::TakeEntries() {
  Entries entries = std::exchange(entries_, {});
  num_waiting_ = 0;
  num_waiting_tokens_ = 0;
  for (const auto& [id, entry] : entries) inbox_.cancelled.emplace_back(id, num_steps_begun_);
  return entries;
}

void StepLoop::Fail(const Entries& entries) {
  for (const auto& [id, entry] : entries) (*entry.sink)({.id = id, .finish = FinishReason::kError});
}

void StepLoop::FailAll() {
  Entries entries;
  {
    absl::MutexLock lock(&mu_);
    entries = TakeEntries();
  }
  Fail(entries);
}

EngineHealth StepLoop::CheckHealth(absl::Duration limit) {
  Entries entries;
  {
    absl::MutexLock lock(&mu_);
    if (is_failed_) return EngineHealth::kFailed;
    if (is_stopping_) return EngineHealth::kStopped;
    if (is_stuck_) return EngineHealth::kStuck;
    if (absl::Now() - last_beat_ <= limit) return EngineHealth::kReady;
    is_stuck_ = true;
    // Inside a step the engine thread cannot be calling a sink, and when it returns it will find none. Elsewhere it may
    // be a sink that does not return: whoever called it again would hang as well.
    if (is_in_step_) entries = TakeEntries();
  }
  Fail(entries);
  return EngineHealth::kStuck;
}

SchedulerStats StepLoop::stats() const {
  absl::MutexLock lock(&mu_);
  return stats_;
}

std::vector<std::pair<std::string, int32_t>> StepLoop::waiting_by_tenant() const {
  absl::MutexLock lock(&mu_);
  return waiting_by_tenant_;
}

absl::Time StepLoop::last_step_end() const {
  absl::MutexLock lock(&mu_);
  return step_end_;
}

}  // namespace millrace
