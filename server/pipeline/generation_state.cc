// SPDX-License-Identifier: Apache-2.0
#include "server/pipeline/generation_state.h"

#include <algorithm>
#include <utility>

#include "absl/time/clock.h"
#include "engine/load/model_info.h"

namespace millrace {

GenerationState::GenerationState(GenerationStateArgs args)
    : engine_(args.engine),
      tokenizer_(args.engine.tokenizer()),
      observer_(args.observer),
      params_(std::move(args.params)),
      num_prompt_tokens_(std::move(args.num_prompt_tokens)),
      num_choices_per_prompt_(args.num_choices_per_prompt),
      hides_output_(args.hides_output),
      sink_(std::move(args.sink)),
      choices_(num_prompt_tokens_.size() * static_cast<size_t>(num_choices_per_prompt_)),
      num_open_(static_cast<int32_t>(choices_.size())),
      lease_(std::move(args.lease)) {
  for (Choice& choice : choices_) {
    const SkipSpecial skip = params_.skips_special_tokens ? SkipSpecial::kYes : SkipSpecial::kNo;
    choice.detokenizer.emplace(tokenizer_, skip, args.text_start);
    choice.matcher.emplace(args.matcher);
  }
  record_.caller = std::move(args.caller);
  record_.num_choices = num_open_;
  for (const int32_t num_tokens : num_prompt_tokens_) record_.num_prompt_tokens += num_tokens;
  record_.max_new_tokens = args.max_new_tokens;
  record_.submitted = absl::Now();
  record_.scheduled = record_.first_token = record_.last_token = record_.finished = absl::InfinitePast();
}

void GenerationState::AddHandle(RequestHandle handle) {
  absl::MutexLock lock(&mu_);
  if (!is_cancelled_) handles_.push_back(std::move(handle));
  // Otherwise the parameter's destructor cancels it, after the lock is gone.
}

void GenerationState::Cancel() {
  std::vector<RequestHandle> handles;  // dropped after the lock is gone
  absl::MutexLock lock(&mu_);
  is_cancelled_ = true;
  handles.swap(handles_);
}

void GenerationState::Discard() {
  {
    absl::MutexLock lock(&mu_);
    is_discarded_ = true;
  }
  Cancel();
}

bool GenerationState::has_listener() {
  absl::MutexLock lock(&mu_);
  return !is_cancelled_;
}

void GenerationState::OnEvent(int32_t index, TokenEvent&& event, absl::Time when) {
  Choice& choice = choices_[static_cast<size_t>(index)];
  if (choice.is_over || !has_listener()) return;
  NoteTimes(index, event, when);
  TextDelta delta{
      .choice = index, .num_cached_tokens = counts_prompt(index) ? event.num_cached_tokens : 0, .finish = event.finish};
  for (const TokenResult& result : event.prompt_logprobs) delta.prompt_logprobs.push_back(Describe(result));
  const int32_t num_tokens_before = choice.num_tokens;
  if (hides_output_) {
    if (event.finish == FinishReason::kStop) delta.finish = FinishReason::kLength;
  } else {
    AppendText(choice, event, delta);
  }
  NoteTokens(index, event, choice.num_tokens - num_tokens_before);
  delta.embedding = std::move(event.embedding);
  const bool ended_early = delta.finish != FinishReason::kNone && event.finish == FinishReason::kNone;
  if (ended_early) engine_.Finish(event.id);
  const FinishReason finish = delta.finish;
  const bool has_news = finish != FinishReason::kNone || !delta.tokens.empty() || !delta.prompt_logprobs.empty();
  // The record is written before the client can see the end, so that a scrape after an answer counts it.
  if (finish != FinishReason::kNone) Close(choice, finish, when);
  if (has_news && !sink_(std::move(delta)) && num_open_ > 0) {
    Cancel();
    OnCancelled(when);
  }
}

void GenerationState::OnCancelled(absl::Time when) {
  for (Choice& choice : choices_) {
    if (!choice.is_over) Close(choice, FinishReason::kCancelled, when);
  }
}

void GenerationState::NoteTimes(int32_t index, const TokenEvent& event, absl::Time when) {
  Choice& choice = choices_[static_cast<size_t>(index)];
  if (event.is_first) {
    // An engine that does not say when the first step began is taken at its first sign of life.
    const absl::Time scheduled = event.admitted == absl::InfinitePast() ? when : event.admitted;
    if (record_.scheduled == absl::InfinitePast()) record_.scheduled = scheduled;
    if (counts_prompt(index)) record_.num_cached_tokens += event.num_cached_tokens;
  }
  if (event.tokens.empty()) return;
  const bool is_first_of_all = record_.first_token == absl::InfinitePast();
  if (is_first_of_all) record_.first_token = when;
  if (observer_ != nullptr) {
    if (is_first_of_all) observer_->OnFirstToken(record_.caller, when - record_.caller.received);
    if (choice.last_token != absl::InfinitePast()) observer_->OnInterTokenLatency(when - choice.last_token);
  }
  choice.last_token = record_.last_token = when;
}

// Counters grow with the tokens, not when a request ends: rates over minutes would otherwise come in jumps.
void GenerationState::NoteTokens(int32_t index, const TokenEvent& event, int32_t num_new_tokens) {
  Choice& choice = choices_[static_cast<size_t>(index)];
  record_.num_generated_tokens += num_new_tokens;
  // Errors of a whole step or of the engine say nothing about this request: they come from an engine that has failed,
  // or without the request's times.
  if (event.finish == FinishReason::kError && event.admitted != absl::InfinitePast() &&
      engine_.CheckHealth(absl::InfiniteDuration()) != EngineHealth::kFailed) {
    record_.is_corrupted = true;
  }
  const bool is_prefilled = !event.tokens.empty() || !event.embedding.empty();
  if (is_prefilled && !std::exchange(choice.is_prefilled, true) && counts_prompt(index)) {
    const int32_t num_tokens = num_prompt_tokens_[static_cast<size_t>(index / num_choices_per_prompt_)];
    num_prefilled_tokens_ += num_tokens;
    if (observer_ != nullptr) observer_->OnPrefilled(record_.caller, num_tokens, event.num_cached_tokens);
  }
  if (num_new_tokens > 0 && observer_ != nullptr) observer_->OnGenerated(record_.caller, num_new_tokens);
}

// Text up to the stop token, if there is one; a stop string ends the choice before the engine would.
void GenerationState::AppendText(Choice& choice, const TokenEvent& event, TextDelta& delta) {
  for (const TokenResult& result : event.tokens) {
    ++choice.num_tokens;
    delta.tokens.push_back(result.token);
    if (params_.num_logprobs >= 0) delta.logprobs.push_back(Describe(result));
    const bool is_stop_token = event.finish == FinishReason::kStop && result.token == event.matched_stop_token;
    if (is_stop_token && !params_.includes_stop_text) continue;
    std::string text;
    choice.detokenizer->Push(result.token, text);
    if (choice.num_tokens <= params_.min_tokens) {
      delta.text += text;
    } else if (PushText(choice, text, delta)) {
      return;
    }
  }
  if (event.finish == FinishReason::kNone) return;
  FinishText(choice, delta);
  const std::vector<int32_t>& wanted = params_.stop_token_ids;
  if (delta.finish == FinishReason::kStop && delta.stop_reason.index() == 0 &&
      std::find(wanted.begin(), wanted.end(), event.matched_stop_token) != wanted.end()) {
    delta.stop_reason = event.matched_stop_token;
  }
}

// True when a stop string is complete: the choice is over.
bool GenerationState::PushText(Choice& choice, std::string_view text, TextDelta& delta) {
  if (!choice.matcher->Push(text, delta.text)) return false;
  delta.finish = FinishReason::kStop;
  delta.stop_reason = params_.stop[*choice.matcher->matched_index()];
  return true;
}

// What was held back: half a character, or the beginning of a stop string that never came.
void GenerationState::FinishText(Choice& choice, TextDelta& delta) {
  std::string text;
  choice.detokenizer->Finish(text);
  if (!PushText(choice, text, delta)) choice.matcher->Flush(delta.text);
}

TokenText GenerationState::DescribeTop(const TopLogprob& top) const {
  return {.token = top.token, .bytes = std::string(tokenizer_.TokenBytes(top.token)), .logprob = top.logprob};
}

TokenText GenerationState::Describe(const TokenResult& result) const {
  TokenText text{.token = result.token,
                 .bytes = std::string(tokenizer_.TokenBytes(result.token)),
                 .logprob = result.logprob,
                 .rank = result.rank};
  for (size_t i = 0; i < result.top.size(); ++i) {
    text.top.push_back(DescribeTop(result.top[i]));
    text.top.back().rank = static_cast<int32_t>(i) + 1;
  }
  return text;
}

void GenerationState::Close(Choice& choice, FinishReason finish, absl::Time when) {
  choice.is_over = true;
  record_.max_generated_tokens = std::max(record_.max_generated_tokens, choice.num_tokens);
  if (--num_open_ > 0) return;
  record_.finish = finish;
  record_.finished = when;
  {
    absl::MutexLock lock(&mu_);
    if (is_discarded_) return;
  }
  lease_.Settle(num_prefilled_tokens_ + record_.num_generated_tokens);
  if (observer_ != nullptr) observer_->OnFinished(record_);
}

}  // namespace millrace
