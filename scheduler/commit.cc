// SPDX-License-Identifier: Apache-2.0
// What a step's results mean for its sequences: tokens appended, requests ended, pages named for good or forgotten.
#include <algorithm>

#include "scheduler/check.h"
#include "scheduler/scheduler_impl.h"

namespace millrace {

std::vector<TokenEvent> SchedulerImpl::Commit(const StepResult& result, absl::Time now) {
  MILLRACE_SCHEDULER_CHECK(num_open_ > 0, "only an open plan is committed");
  OpenStep& step = oldest();
  MILLRACE_SCHEDULER_CHECK(result.step == step.plan.step && result.sequences.size() == step.plan.sequences.size(),
                           "a result answers the oldest open plan, one entry per planned sequence");
  Assume(step);
  std::vector<TokenEvent> events = TakeEvents();
  events.reserve(events.size() + step.plan.sequences.size());
  for (size_t i = 0; i < step.plan.sequences.size(); ++i) {
    Learn(step.plan.sequences[i], result.sequences[i], now, &events);
  }
  CloseOldest();
  ExpireDeadlines(now);
  for (TokenEvent& event : TakeEvents()) events.push_back(std::move(event));
  return events;
}

// Counts a step in flight as computed: its tokens are known to come.
void SchedulerImpl::Assume(OpenStep& step) {
  if (step.is_assumed) return;
  step.is_assumed = true;
  for (const PlannedSequence& planned : step.plan.sequences) {
    Sequence* sequence = Find(planned);
    if (sequence == nullptr) continue;
    sequence->num_computed += sequence->num_planned;
    sequence->num_planned = 0;
    sequence->is_drawing = planned.samples;
    if (planned.samples && planned.request->kind == Request::Kind::kGenerate) sequence->tokens.push_back(kUnknownToken);
  }
}

// The sequence may have been preempted since: what was computed counts all the same.
void SchedulerImpl::Learn(const PlannedSequence& planned, const SequenceResult& result, absl::Time now,
                          std::vector<TokenEvent>* events) {
  Sequence* sequence = Find(planned);
  if (sequence == nullptr) return;  // ended meanwhile
  TokenEvent event;
  Describe(*sequence, &event);
  sequence->had_event = true;
  if (result.is_failed) {
    ForgetPages(sequence);
    event.finish = FinishReason::kError;
    events->push_back(std::move(event));
    End(sequence);
    return;
  }
  // The row of position p tells token p + 1. After a preemption rows are computed again: each is given only once.
  for (size_t i = 0; i < result.prompt_logprobs.size(); ++i) {
    if (planned.first_position + static_cast<int32_t>(i) != sequence->num_prompt_logprobs) continue;
    event.prompt_logprobs.push_back(result.prompt_logprobs[i]);
    ++sequence->num_prompt_logprobs;
  }
  if (planned.samples) event.finish = Append(sequence, result, &event);
  const FinishReason finish = event.finish;
  const bool is_finished = finish != FinishReason::kNone;
  if (is_finished || event.is_first || !event.tokens.empty() || !event.prompt_logprobs.empty()) {
    events->push_back(std::move(event));
  }
  if (is_finished) {
    if (finish != FinishReason::kError) PinForSession(sequence, now);
    End(sequence);
  } else if (num_open_ > 1 && sequence->is_running) {
    NameFullPages(sequence, &latest().named);  // its row in the next step may fill one
  }
}

FinishReason SchedulerImpl::Append(Sequence* sequence, const SequenceResult& result, TokenEvent* event) {
  const Request& request = sequence->request;
  sequence->is_drawing = false;
  if (request.kind == Request::Kind::kEmbed) {
    event->embedding = result.embedding;
    return FinishReason::kStop;
  }
  const int32_t token = result.sampled.token;
  if (token < 0) return FinishReason::kError;
  sequence->tokens.back() = token;
  event->tokens.push_back(result.sampled);
  const std::vector<int32_t>& stops = request.stop_token_ids;
  if (!request.ignore_eos && sequence->num_output_tokens() > request.min_new_tokens &&
      std::find(stops.begin(), stops.end(), token) != stops.end()) {
    event->matched_stop_token = token;
    return FinishReason::kStop;
  }
  return sequence->num_tokens() >= sequence->max_tokens ? FinishReason::kLength : FinishReason::kNone;
}

void SchedulerImpl::Describe(const Sequence& sequence, TokenEvent* event) const {
  event->id = sequence.request.id;
  event->num_cached_tokens = sequence.num_cached_tokens;
  event->is_first = sequence.was_admitted && !sequence.had_event;
  event->admitted = sequence.admitted;
}

// Whatever spoiled its logits may lie in any of its pages: nobody shall find them again. By their names, as it may have
// given the pages up since.
void SchedulerImpl::ForgetPages(Sequence* sequence) {
  for (size_t number = 0; number < sequence->page_hashes.size(); ++number) {
    const PageId page = index_.Find(ContentOf(sequence, static_cast<int32_t>(number)));
    if (page >= 0) ForgetPage(page);
  }
}

void SchedulerImpl::CloseOldest() {
  OpenStep& step = oldest();
  step.is_assumed = false;
  step.named.clear();
  step.ended.clear();
  --num_open_;
}

std::vector<TokenEvent> SchedulerImpl::Abort() {
  MILLRACE_SCHEDULER_CHECK(num_open_ > 0, "only an open plan is aborted");
  std::vector<PageId> unwritten;
  for (uint64_t step = num_steps_ - num_open_ + 1; step <= num_steps_; ++step) {
    const OpenStep& open = steps_[step % 2];
    unwritten.insert(unwritten.end(), open.named.begin(), open.named.end());
    for (const PlannedSequence& planned : open.plan.sequences) {
      if (Sequence* sequence = Find(planned); sequence != nullptr) EndWithEvent(sequence, FinishReason::kError);
    }
  }
  for (PageId page : unwritten) ForgetPage(page);
  std::sort(unwritten.begin(), unwritten.end());
  for (Sequence* sequence : running_) DropUnwrittenPages(sequence, unwritten);
  while (num_open_ > 0) CloseOldest();
  return TakeEvents();
}

// A prompt may have found pages of a step that failed without having rows in it itself.
void SchedulerImpl::DropUnwrittenPages(Sequence* sequence, const std::vector<PageId>& unwritten) {
  const auto first = std::find_if(sequence->pages.begin(), sequence->pages.end(), [&unwritten](PageId page) {
    return std::binary_search(unwritten.begin(), unwritten.end(), page);
  });
  if (first == sequence->pages.end()) return;
  for (auto page = sequence->pages.end(); page != first;) pool_.Release(*--page);
  sequence->pages.erase(first, sequence->pages.end());
  const int32_t num_left = static_cast<int32_t>(sequence->pages.size());
  sequence->num_computed = num_left * config_.page_tokens;
  sequence->num_named_pages = std::min(sequence->num_named_pages, num_left);
}

}  // namespace millrace
