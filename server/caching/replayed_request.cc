// SPDX-License-Identifier: Apache-2.0
#include "server/caching/replayed_request.h"

#include <algorithm>
#include <utility>

#include "absl/time/clock.h"

namespace millrace {

ReplayedRequest::ReplayedRequest(Args args)
    : args_(std::move(args)),
      num_tokens_(args_.num_prompt_tokens.size() * static_cast<size_t>(args_.num_choices_per_prompt)),
      num_open_(num_tokens_.size()) {
  RequestRecord& record = args_.record;
  record.num_choices = static_cast<int32_t>(num_open_);
  for (const int32_t num_tokens : args_.num_prompt_tokens) record.num_prompt_tokens += num_tokens;
  record.num_cached_tokens = record.num_prompt_tokens;
  record.submitted = absl::Now();
  record.scheduled = record.first_token = record.last_token = record.finished = absl::InfinitePast();
}

ReplayedRequest::~ReplayedRequest() {
  if (num_open_ > 0) Finish(FinishReason::kCancelled);
}

bool ReplayedRequest::OnDelta(TextDelta&& delta) {
  const auto choice = static_cast<size_t>(delta.choice);
  const auto num_each = static_cast<size_t>(args_.num_choices_per_prompt);
  delta.num_cached_tokens = choice % num_each == 0 ? args_.num_prompt_tokens[choice / num_each] : 0;
  RequestRecord& record = args_.record;
  const auto num_new = static_cast<int32_t>(delta.tokens.size());
  if (num_new > 0) {
    record.last_token = absl::Now();
    if (record.first_token == absl::InfinitePast()) {
      record.first_token = record.last_token;
      if (args_.observer != nullptr) {
        args_.observer->OnFirstToken(record.caller, record.first_token - record.caller.received);
      }
    }
  }
  record.num_generated_tokens += num_new;
  num_tokens_[choice] += num_new;
  if (delta.finish != FinishReason::kNone && --num_open_ == 0) Finish(delta.finish);
  return args_.sink(std::move(delta));
}

// Before the client can see the end, as everywhere.
void ReplayedRequest::Finish(FinishReason finish) {
  RequestRecord& record = args_.record;
  record.max_generated_tokens = *std::max_element(num_tokens_.begin(), num_tokens_.end());
  record.finish = finish;
  record.finished = absl::Now();
  args_.lease.Settle(0);
  if (args_.observer != nullptr) args_.observer->OnFinished(record);
}

}  // namespace millrace
