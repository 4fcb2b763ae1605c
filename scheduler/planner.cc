// SPDX-License-Identifier: Apache-2.0
// How a step is decided: running sequences best first, then newcomers, then what rows are left to long prompts.
#include <algorithm>

#include "scheduler/check.h"
#include "scheduler/scheduler_impl.h"

namespace millrace {

bool SchedulerImpl::CanPlanAhead() const {
  if (num_open_ != 1 || latest().is_assumed) return false;
  const std::vector<PlannedSequence>& planned = latest().plan.sequences;
  return std::none_of(planned.begin(), planned.end(), [](const PlannedSequence& sequence) {
    const Request& request = *sequence.request;
    return sequence.samples && (request.grammar != nullptr || request.sampling.has_penalties());
  });
}

const StepPlan& SchedulerImpl::Plan(absl::Time now) {
  MILLRACE_SCHEDULER_CHECK(num_open_ == 0 || CanPlanAhead(), "a plan is made ahead only where it can be");
  if (num_open_ > 0) Assume(latest());
  plan_time_ = now;
  ExpireDeadlines(now);
  pins_.Expire(now);
  BeginPlan();
  if (Displace()) {
    BeginPlan();
    has_preempted_ = true;
  }
  PlanRunning();
  // Whoever was just preempted must not come back into the pages it lost.
  if (!has_preempted_) AdmitWaiting();
  ExtendPrefills();
  return EmitPlan();
}

void SchedulerImpl::BeginPlan() {
  int32_t num_decoding = 0;
  num_long_running_ = 0;
  for (const Sequence* sequence : running_) {
    if (sequence->ends_when_drawn()) continue;
    num_decoding += sequence->is_decoding();
    num_long_running_ += sequence->num_remaining() > config_.max_chunk_tokens;
  }
  prefill_rows_left_ = config_.max_step_tokens - num_decoding;
  // At least a quarter of the rows stays for newcomers while all long prompts take their turn.
  const int32_t share = prefill_rows_left_ / (config_.max_long_prefills + 1);
  chunk_rows_ = std::max(std::min(share, config_.max_chunk_tokens), std::min(config_.page_tokens, prefill_rows_left_));
  num_reserved_pages_ = 0;
  has_preempted_ = false;
  draft().plan.sequences.clear();
  draft().plan.num_rows = 0;
}

void SchedulerImpl::PlanRunning() {
  // By index: preemption takes from behind `i`, or this one itself.
  for (size_t i = 0; i < running_.size();) {
    Sequence* sequence = running_[i];
    if (sequence->ends_when_drawn()) {
      ++i;
      continue;
    }
    if (sequence->is_decoding()) {
      if (MakeRoomForRow(sequence)) Schedule(sequence, 1);
    } else {
      PlanPrefill(sequence);
    }
    if (!sequence->is_running) continue;
    num_reserved_pages_ += PagesToCome(*sequence);
    ++i;
  }
}

void SchedulerImpl::PlanPrefill(Sequence* sequence) {
  ReuseNextPages(sequence);
  if (prefill_rows_left_ == 0 || !MakeRoomForRow(sequence)) return;
  const int32_t num_rows = ChunkRows(*sequence, FirstTurnRows(*sequence));
  Schedule(sequence, num_rows);
  prefill_rows_left_ -= num_rows;
}

// A long prompt's turn is a share of the rows; a short one's all of it, if they are left.
int32_t SchedulerImpl::FirstTurnRows(const Sequence& sequence) const {
  const bool is_long = sequence.num_remaining() > config_.max_chunk_tokens;
  return std::min(is_long ? chunk_rows_ : config_.max_chunk_tokens, prefill_rows_left_);
}

// Pages come from sequences that are worse and not planned yet. False: there are none and it waits with what it has, or
// its own tenant has the most to spare and it made way itself.
bool SchedulerImpl::MakeRoomForRow(Sequence* sequence) {
  if (sequence->num_computed < static_cast<int32_t>(sequence->pages.size()) * config_.page_tokens) return true;
  while (pool_.num_available() == 0) {
    Sequence* victim = WorstFrom(sequence);
    if (victim == running_.back() && victim == sequence) return false;
    Preempt(victim);
    if (victim == sequence) return false;
  }
  return true;
}

void SchedulerImpl::Preempt(Sequence* victim) {
  MILLRACE_SCHEDULER_CHECK(victim->num_planned == 0, "a planned sequence is not preempted");
  running_.erase(PlaceOf(victim));
  ReleasePages(victim);
  victim->pages.clear();
  victim->num_computed = 0;
  victim->is_running = false;
  queue_.Push(victim);
  has_preempted_ = true;
  ++num_preemptions_;
}

void SchedulerImpl::AdmitWaiting() {
  while (static_cast<int32_t>(running_.size()) < config_.max_sequences && prefill_rows_left_ > 0) {
    Sequence* sequence = NextToAdmit();
    // The one whose turn it is waits for its pages, and all others behind it: else small ones would starve it.
    if (sequence == nullptr || !Admit(sequence)) return;
  }
}

Sequence* SchedulerImpl::NextToAdmit() {
  const bool takes_long = num_long_running_ < config_.max_long_prefills;
  return queue_.Front(takes_long ? FairQueue::Which::kAny : FairQueue::Which::kShort);
}

// How many more would have to be available, counting a page for each running sequence to grow into, so that newcomers
// do not cause preemptions at once. Pages found cost nothing where someone uses them already; pinned ones are no room
// for anyone but who finds them.
int32_t SchedulerImpl::MissingPages(Sequence* sequence, int32_t num_reserved, Found found) {
  const int32_t num_needed = PagesFor(sequence->num_tokens());
  const int32_t num_spare = pool_.num_unpinned() - num_reserved;
  int32_t num_missing = num_needed + static_cast<int32_t>(running_.size()) - num_spare;
  for (int32_t number = 0; number < num_needed && num_missing > 0 && found == Found::kCounted; ++number) {
    const PageId page = FindPage(sequence, number);
    if (page < 0) break;
    num_missing -= pool_.num_references(page) > 0 || pool_.is_idle_pinned(page);
  }
  return num_missing;
}

bool SchedulerImpl::Admit(Sequence* sequence) {
  // Where not even the running ones can grow, what is found does not help.
  const bool may_find = static_cast<int32_t>(running_.size()) < pool_.num_available() - num_reserved_pages_;
  const Found found = may_find ? Found::kCounted : Found::kIgnored;
  if (!running_.empty() && MissingPages(sequence, num_reserved_pages_, found) > 0) return false;
  Start(sequence);
  num_long_running_ += sequence->num_remaining() > config_.max_chunk_tokens;
  const int32_t num_rows = ChunkRows(*sequence, FirstTurnRows(*sequence));
  Schedule(sequence, num_rows);
  prefill_rows_left_ -= num_rows;
  num_reserved_pages_ += PagesToCome(*sequence);
  return true;
}

// From the queue to the running ones, with the pages it finds.
void SchedulerImpl::Start(Sequence* sequence) {
  queue_.Remove(sequence);
  running_.insert(PlaceOf(sequence), sequence);
  sequence->is_running = true;
  sequence->num_tokens_at_start = sequence->num_tokens();
  ReuseNextPages(sequence);
  if (sequence->was_admitted) return;
  sequence->was_admitted = true;
  sequence->admitted = plan_time_;
  sequence->num_cached_tokens = sequence->num_computed;
  prefix_query_tokens_ += sequence->num_prompt_tokens;
}

// Rows that newcomers did not want go to the prompts that are not complete, best first.
void SchedulerImpl::ExtendPrefills() {
  for (Sequence* sequence : running_) {
    if (prefill_rows_left_ == 0) return;
    const int32_t num_known = sequence->num_computed + sequence->num_planned;
    if (sequence->num_planned == 0 || num_known == sequence->num_tokens()) continue;
    // Somebody planned the next page already: it is found there in the next step.
    if (num_known % config_.page_tokens == 0 && FindPage(sequence, num_known / config_.page_tokens) >= 0) continue;
    if (num_known % config_.page_tokens == 0 && pool_.num_available() == 0) continue;
    const int32_t num_rows = ChunkRows(*sequence, prefill_rows_left_);
    Schedule(sequence, num_rows);
    prefill_rows_left_ -= num_rows;
  }
}

// How many of at most `limit` rows to plan next: all that is left, else up to a page's end if it can be, so that pages
// become shareable as they are computed. REQUIRES: room for one row.
int32_t SchedulerImpl::ChunkRows(const Sequence& sequence, int32_t limit) const {
  const int32_t begin = sequence.num_computed + sequence.num_planned;
  const int64_t num_slots =
      (static_cast<int64_t>(sequence.pages.size()) + pool_.num_available()) * config_.page_tokens - begin;
  const int32_t num_rows =
      static_cast<int32_t>(std::min<int64_t>(num_slots, std::min(limit, sequence.num_tokens() - begin)));
  const int32_t end = begin + num_rows;
  const int32_t page_end = end - end % config_.page_tokens;
  return end < sequence.num_tokens() && page_end > begin ? page_end - begin : num_rows;
}

void SchedulerImpl::Schedule(Sequence* sequence, int32_t num_rows) {
  sequence->num_planned += num_rows;
  const int32_t end = sequence->num_computed + sequence->num_planned;
  while (static_cast<int32_t>(sequence->pages.size()) < PagesFor(end)) {
    while (pool_.num_unpinned() == 0) pins_.ReleaseOldest();
    sequence->pages.push_back(pool_.Allocate());
  }
  if (end > sequence->num_charged) {
    queue_.Charge(sequence->tenant, std::min(num_rows, end - sequence->num_charged));
    sequence->num_charged = end;
  }
  draft().plan.num_rows += num_rows;
  NameFullPages(sequence, &draft().named);
}

void SchedulerImpl::NameFullPages(Sequence* sequence, std::vector<PageId>* named) {
  if (!config_.enable_prefix_caching) return;
  const int32_t num_written = sequence->num_computed + sequence->num_planned;
  const int32_t num_known = sequence->num_tokens() - (sequence->is_drawing ? 1 : 0);
  const int32_t num_full = std::min(num_written, num_known) / config_.page_tokens;
  for (; sequence->num_named_pages < num_full; ++sequence->num_named_pages) {
    const PageContent content = ContentOf(sequence, sequence->num_named_pages);
    if (index_.Find(content) >= 0) continue;  // computed twice: this copy stays private
    const PageId page = sequence->pages[sequence->num_named_pages];
    index_.Insert(page, content);
    named->push_back(page);
  }
}

PageContent SchedulerImpl::ContentOf(Sequence* sequence, int32_t page_number) const {
  std::vector<PageHash>& hashes = sequence->page_hashes;
  const uint64_t salt = sequence->request.tenant.salt;
  const absl::Span<const int32_t> tokens = sequence->tokens;
  for (int32_t number = static_cast<int32_t>(hashes.size()); number <= page_number; ++number) {
    const auto page_tokens = tokens.subspan(size_t{1} * number * config_.page_tokens, config_.page_tokens);
    hashes.push_back(index_.Hash(number == 0 ? PageHash{} : hashes.back(), salt, page_tokens));
  }
  return {hashes[page_number], page_number == 0 ? PageHash{} : hashes[page_number - 1], salt,
          tokens.subspan(size_t{1} * page_number * config_.page_tokens, config_.page_tokens)};
}

// The page that holds this one's tokens already, or -1. The page with the last token is always computed: its row gives
// the logits.
PageId SchedulerImpl::FindPage(Sequence* sequence, int32_t page_number) {
  if (!config_.enable_prefix_caching || !sequence->may_reuse()) return -1;
  if (int64_t{page_number + 1} * config_.page_tokens > sequence->num_tokens() - 1) return -1;
  return index_.Find(ContentOf(sequence, page_number));
}

// Moves past pages that another request has computed or planned meanwhile. A prompt does so before each of its chunks:
// equal prompts that run side by side share the work.
void SchedulerImpl::ReuseNextPages(Sequence* sequence) {
  while (sequence->num_computed % config_.page_tokens == 0) {
    const int32_t number = sequence->num_computed / config_.page_tokens;
    const PageId page = FindPage(sequence, number);
    if (page < 0) return;
    pool_.AddReference(page);
    sequence->pages.push_back(page);
    sequence->num_computed += config_.page_tokens;
    sequence->num_named_pages = number + 1;
    if (sequence->num_computed <= sequence->num_charged) continue;  // it was here before a preemption
    sequence->num_charged = sequence->num_computed;                 // what is found costs its tenant nothing
    prefix_hit_tokens_ += config_.page_tokens;
  }
}

const StepPlan& SchedulerImpl::EmitPlan() {
  StepPlan& plan = draft().plan;
  for (const bool wants_decodes : {true, false}) {
    for (Sequence* sequence : running_) {
      if (sequence->num_planned == 0 || sequence->is_decoding() != wants_decodes) continue;
      PlannedSequence planned;
      planned.id = sequence->request.id;
      planned.request = &sequence->request;
      planned.first_position = sequence->num_computed;
      planned.num_tokens = sequence->num_planned;
      planned.tokens = sequence->tokens;
      planned.num_prompt_tokens = sequence->num_prompt_tokens;
      planned.pages = sequence->pages;
      planned.samples = sequence->num_computed + sequence->num_planned == sequence->num_tokens();
      if (sequence->is_drawing) planned.drawn_by = sequence->plan_index;
      sequence->plan_index = static_cast<int32_t>(plan.sequences.size());
      plan.sequences.push_back(planned);
    }
  }
  if (plan.empty()) return plan;
  plan.step = ++num_steps_;
  ++num_open_;
  return plan;
}

}  // namespace millrace
