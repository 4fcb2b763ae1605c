// SPDX-License-Identifier: Apache-2.0
// What a step's results mean for its sequences: tokens appended, requests ended, pages named for good or forgotten.
#include <algorithm>

#include "scheduler/check.h"
#include "scheduler/scheduler_impl.h"

namespace millrace {

std::vector<TokenEvent> SchedulerImpl::Commit(const StepResult& result, absl::Time now) {
  MILLRACE_SCHEDULER_CHECK(is_open_, "only an open plan is committed");
  MILLRACE_SCHEDULER_CHECK(result.step == plan_.step && result.sequences.size() == plan_.sequences.size(),
                           "a result answers the open plan, one entry per planned sequence");
  std::vector<TokenEvent> events = TakeEvents();
  events.reserve(events.size() + plan_.sequences.size());
  for (size_t i = 0; i < plan_.sequences.size(); ++i) {
    const auto found = sequences_.find(plan_.sequences[i].id);
    if (found == sequences_.end() || found->second->num_planned == 0) continue;  // ended meanwhile
    Learn(found->second.get(), result.sequences[i], now, &events);
  }
  ClosePlan();
  ExpireDeadlines(now);
  for (TokenEvent& event : TakeEvents()) events.push_back(std::move(event));
  return events;
}

void SchedulerImpl::Learn(Sequence* sequence, const SequenceResult& result, absl::Time now,
                          std::vector<TokenEvent>* events) {
  TokenEvent event;
  Describe(*sequence, &event);
  sequence->had_event = true;
  if (result.is_failed) {
    // Whatever spoiled the logits may lie in any of its pages: nobody shall find them again.
    for (PageId page : sequence->pages) ForgetPage(page);
    event.finish = FinishReason::kError;
    events->push_back(std::move(event));
    End(sequence);
    return;
  }
  TakePromptLogprobs(sequence, result, &event);
  sequence->num_computed += sequence->num_planned;
  sequence->num_planned = 0;
  if (sequence->num_remaining() == 0) event.finish = Append(sequence, result, &event);
  const FinishReason finish = event.finish;
  const bool is_finished = finish != FinishReason::kNone;
  if (is_finished || event.is_first || !event.tokens.empty() || !event.prompt_logprobs.empty()) {
    events->push_back(std::move(event));
  }
  if (!is_finished) return;
  if (finish != FinishReason::kError) PinForSession(sequence, now);
  End(sequence);
}

FinishReason SchedulerImpl::Append(Sequence* sequence, const SequenceResult& result, TokenEvent* event) {
  const Request& request = sequence->request;
  if (request.kind == Request::Kind::kEmbed) {
    event->embedding = result.embedding;
    return FinishReason::kStop;
  }
  const int32_t token = result.sampled.token;
  if (token < 0) return FinishReason::kError;
  sequence->tokens.push_back(token);
  event->tokens.push_back(result.sampled);
  const std::vector<int32_t>& stops = request.stop_token_ids;
  if (!request.ignore_eos && sequence->num_output_tokens() > request.min_new_tokens &&
      std::find(stops.begin(), stops.end(), token) != stops.end()) {
    event->matched_stop_token = token;
    return FinishReason::kStop;
  }
  return sequence->num_tokens() >= sequence->max_tokens ? FinishReason::kLength : FinishReason::kNone;
}

// The row of position p tells token p + 1. After a preemption rows are computed again: each is given only once.
void SchedulerImpl::TakePromptLogprobs(Sequence* sequence, const SequenceResult& result, TokenEvent* event) {
  for (size_t i = 0; i < result.prompt_logprobs.size(); ++i) {
    if (sequence->num_computed + static_cast<int32_t>(i) != sequence->num_prompt_logprobs) continue;
    event->prompt_logprobs.push_back(result.prompt_logprobs[i]);
    ++sequence->num_prompt_logprobs;
  }
}

void SchedulerImpl::Describe(const Sequence& sequence, TokenEvent* event) const {
  event->id = sequence.request.id;
  event->num_cached_tokens = sequence.num_cached_tokens;
  event->is_first = sequence.was_admitted && !sequence.had_event;
  event->admitted = sequence.admitted;
}

void SchedulerImpl::ClosePlan() {
  is_open_ = false;
  named_in_open_plan_.clear();
  ended_in_open_plan_.clear();
}

std::vector<TokenEvent> SchedulerImpl::Abort() {
  MILLRACE_SCHEDULER_CHECK(is_open_, "only an open plan is aborted");
  for (PageId page : named_in_open_plan_) ForgetPage(page);
  for (const PlannedSequence& planned : plan_.sequences) {
    const auto found = sequences_.find(planned.id);
    if (found == sequences_.end() || found->second->num_planned == 0) continue;
    EndWithEvent(found->second.get(), FinishReason::kError);
  }
  std::sort(named_in_open_plan_.begin(), named_in_open_plan_.end());
  for (Sequence* sequence : running_) DropUnwrittenPages(sequence);
  ClosePlan();
  return TakeEvents();
}

// A prompt may have found pages of the step that failed without having rows in it itself.
void SchedulerImpl::DropUnwrittenPages(Sequence* sequence) {
  const std::vector<PageId>& unwritten = named_in_open_plan_;
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
