// SPDX-License-Identifier: Apache-2.0
#pragma once
// The scheduler behind scheduler.h. Split by verb: scheduler_impl.cc (take in, end), planner.cc (decide), displace.cc
// (make way), commit.cc (learn), integrity.cc (check). Engine thread only.
//
// Guarantees, by construction:
// - Running sequences are planned best first, and pages are taken only from worse ones that this step has not planned
//   yet. So the best running sequence always gets its pages, and by induction every request ends: it makes way only
//   for a strictly better priority.
// - Long prompts get a bounded share of a step's rows while others want rows, and a bounded number runs at once.
// - A page is named as soon as rows that fill it are planned and all its tokens are known; whoever finds it is planned
//   in this step or later.
#include <algorithm>
#include <array>
#include <memory>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "scheduler/fair_queue.h"
#include "scheduler/page_pool.h"
#include "scheduler/prefix_index.h"
#include "scheduler/scheduler.h"
#include "scheduler/sequence.h"
#include "scheduler/session_pins.h"

namespace millrace {

class SchedulerImpl final : public Scheduler {
 public:
  // REQUIRES: a config that Scheduler::Create accepts.
  explicit SchedulerImpl(const SchedulerConfig& config);

  absl::Status Add(Request request, absl::Time now) override;
  void Cancel(RequestId id) override;
  void Finish(RequestId id) override;
  void ReleaseSession(uint64_t session) override { pins_.Release(session); }
  const StepPlan& Plan(absl::Time now) override;
  bool CanPlanAhead() const override;
  std::vector<TokenEvent> Commit(const StepResult& result, absl::Time now) override;
  std::vector<TokenEvent> Abort() override;
  std::vector<TokenEvent> TakeEvents() override;
  bool Idle() const override { return sequences_.empty(); }
  absl::Time NextDeadline() const override;
  SchedulerStats stats() const override;
  std::vector<std::pair<std::string, int32_t>> WaitingByTenant() const override { return queue_.WaitingByTenant(); }
  int32_t ResetPrefixCache(std::optional<uint64_t> salt) override;
  absl::Status CheckIntegrity() const override;

 private:
  // A plan and what hangs on it while it is open.
  struct OpenStep {
    StepPlan plan;
    bool is_assumed = false;                       // its rows count as computed
    std::vector<std::unique_ptr<Sequence>> ended;  // the plan points into them
    std::vector<PageId> named;                     // while it was the latest plan
  };
  OpenStep& draft() { return steps_[(num_steps_ + 1) % 2]; }
  OpenStep& latest() { return steps_[num_steps_ % 2]; }
  const OpenStep& latest() const { return steps_[num_steps_ % 2]; }
  OpenStep& oldest() { return steps_[(num_steps_ + 1 - num_open_) % 2]; }
  // The planned sequence, or null if it has ended.
  Sequence* Find(const PlannedSequence& planned) const;

  // --- scheduler_impl.cc
  absl::Status CheckRequest(const Request& request) const;
  int32_t MaxTokens(const Request& request) const;
  void End(Sequence* sequence);
  void EndWithEvent(Sequence* sequence, FinishReason reason);
  void ExpireDeadlines(absl::Time now);
  void ReleasePages(Sequence* sequence);
  void PinForSession(Sequence* sequence, absl::Time now);
  void ForgetPage(PageId page);
  // Its place among the running ones, whether it runs or not.
  std::vector<Sequence*>::iterator PlaceOf(Sequence* sequence) {
    return std::lower_bound(running_.begin(), running_.end(), sequence, BetterSequence());
  }

  // --- planner.cc
  void BeginPlan();
  void PlanRunning();
  void PlanPrefill(Sequence* sequence);
  void AdmitWaiting();
  bool Admit(Sequence* sequence);
  void Start(Sequence* sequence);
  Sequence* NextToAdmit();
  enum class Found : uint8_t { kIgnored, kCounted };
  int32_t MissingPages(Sequence* sequence, int32_t num_reserved, Found found);
  void ExtendPrefills();
  const StepPlan& EmitPlan();
  bool MakeRoomForRow(Sequence* sequence);
  void Preempt(Sequence* victim);
  void ReuseNextPages(Sequence* sequence);
  PageId FindPage(Sequence* sequence, int32_t page_number);
  int32_t FirstTurnRows(const Sequence& sequence) const;
  int32_t ChunkRows(const Sequence& sequence, int32_t limit) const;
  void Schedule(Sequence* sequence, int32_t num_rows);
  void NameFullPages(Sequence* sequence, std::vector<PageId>* named);
  PageContent ContentOf(Sequence* sequence, int32_t page_number) const;
  int32_t PagesFor(int32_t num_tokens) const { return (num_tokens + config_.page_tokens - 1) / config_.page_tokens; }
  // That its known tokens will still need.
  int32_t PagesToCome(const Sequence& sequence) const {
    return PagesFor(sequence.num_tokens()) - static_cast<int32_t>(sequence.pages.size());
  }

  // --- displace.cc
  bool Displace();
  Sequence* NextVictim(const Sequence& newcomer) const;
  Sequence* WorstFrom(const Sequence* sequence) const;
  bool HadItsTurn(const Sequence& sequence) const;
  int32_t PagesGivenUp(const Sequence& victim) const;

  // --- commit.cc
  void Assume(OpenStep& step);
  void Learn(const PlannedSequence& planned, const SequenceResult& result, absl::Time now,
             std::vector<TokenEvent>* events);
  FinishReason Append(Sequence* sequence, const SequenceResult& result, TokenEvent* event);
  void Describe(const Sequence& sequence, TokenEvent* event) const;
  void ForgetPages(Sequence* sequence);
  void CloseOldest();
  void DropUnwrittenPages(Sequence* sequence, const std::vector<PageId>& unwritten);

  // --- integrity.cc
  absl::Status CheckSequences() const;
  bool HasKnownTokens(const Sequence& sequence) const;
  absl::Status CheckReferences() const;

  const SchedulerConfig config_;  // with the defaults filled in
  PrefixIndex index_;
  PagePool pool_;
  SessionPins pins_;
  FairQueue queue_;
  absl::flat_hash_map<RequestId, std::unique_ptr<Sequence>> sequences_;
  std::vector<Sequence*> running_;                       // best first
  std::set<std::pair<absl::Time, uint64_t>> deadlines_;  // (deadline, arrival), finite ones only
  absl::flat_hash_map<uint64_t, Sequence*> by_deadline_arrival_;
  std::vector<TokenEvent> events_;  // given to no one yet
  uint64_t next_arrival_ = 0;

  // Step s lies in steps_[s % 2].
  std::array<OpenStep, 2> steps_;
  uint64_t num_steps_ = 0;
  uint64_t num_open_ = 0;  // the latest ones: at most the one in flight and the one planned ahead

  // Of the plan being made.
  int32_t prefill_rows_left_ = 0;
  int32_t chunk_rows_ = 0;  // what a long prompt may take before all had their turn
  int32_t num_long_running_ = 0;
  absl::Time plan_time_ = absl::InfinitePast();  // given to the latest Plan
  int32_t num_reserved_pages_ = 0;               // known tokens of running sequences will still need them
  bool has_preempted_ = false;

  uint64_t num_preemptions_ = 0;
  uint64_t prefix_query_tokens_ = 0;
  uint64_t prefix_hit_tokens_ = 0;
};

}  // namespace millrace
