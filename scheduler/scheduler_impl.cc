// SPDX-License-Identifier: Apache-2.0
#include "scheduler/scheduler_impl.h"

#include <algorithm>
#include <cmath>

#include "absl/strings/str_cat.h"
#include "scheduler/check.h"

namespace millrace {
namespace {

SchedulerConfig WithDefaults(SchedulerConfig config) {
  // A sequence that decodes takes a row of every step, so more could not all run.
  config.max_sequences = std::min(config.max_sequences, config.max_step_tokens);
  if (config.max_chunk_tokens == 0) {
    config.max_chunk_tokens =
        std::max(config.max_step_tokens / 4, std::min(config.page_tokens, config.max_step_tokens));
  }
  return config;
}

absl::Status CheckPositive(const char* name, int64_t value) {
  if (value > 0) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat(name, " must be positive, not ", value));
}

}  // namespace

absl::StatusOr<std::unique_ptr<Scheduler>> Scheduler::Create(const SchedulerConfig& config) {
  const std::pair<const char*, int64_t> positives[] = {
      {"num_pages", config.num_pages},
      {"page_tokens", config.page_tokens},
      {"max_sequences", config.max_sequences},
      {"max_step_tokens", config.max_step_tokens},
      {"max_model_tokens", config.max_model_tokens},
      {"max_queued_requests", config.max_queued_requests},
      {"max_queued_tokens", config.max_queued_tokens},
      {"max_long_prefills", config.max_long_prefills},
      {"min_turn_tokens", config.min_turn_tokens},
  };
  for (const auto& [name, value] : positives) {
    if (absl::Status status = CheckPositive(name, value); !status.ok()) return status;
  }
  if (!(config.max_pinned_share >= 0 && config.max_pinned_share <= 1)) {
    return absl::InvalidArgumentError(absl::StrCat("max_pinned_share must be in 0..1, not ", config.max_pinned_share));
  }
  if (config.max_chunk_tokens < 0) {
    return absl::InvalidArgumentError(absl::StrCat("max_chunk_tokens must not be negative: ", config.max_chunk_tokens));
  }
  return std::make_unique<SchedulerImpl>(config);
}

SchedulerImpl::SchedulerImpl(const SchedulerConfig& config)
    : config_(WithDefaults(config)),
      index_(config.num_pages, config.page_tokens, config.prefix_hash_key),
      pool_(config.num_pages, &index_),
      pins_(&pool_, static_cast<int32_t>(config.num_pages * config.max_pinned_share), config.max_pin_time) {
  running_.reserve(config_.max_sequences);
  for (OpenStep& step : steps_) step.plan.sequences.reserve(config_.max_sequences);
}

int32_t SchedulerImpl::MaxTokens(const Request& request) const {
  const int64_t num_prompt = static_cast<int64_t>(request.prompt_tokens.size());
  if (request.kind == Request::Kind::kEmbed) return static_cast<int32_t>(num_prompt);
  // The last token drawn is never computed, so it needs no slot.
  const int64_t room = int64_t{config_.num_pages} * config_.page_tokens + 1;
  const int64_t wanted = num_prompt + std::max<int32_t>(request.max_new_tokens, 1);
  return static_cast<int32_t>(std::min({wanted, int64_t{config_.max_model_tokens}, room}));
}

absl::Status SchedulerImpl::CheckRequest(const Request& request) const {
  const int64_t num_prompt = static_cast<int64_t>(request.prompt_tokens.size());
  if (num_prompt == 0) return absl::InvalidArgumentError("the prompt has no tokens");
  if (!(request.tenant.weight > 0) || !std::isfinite(request.tenant.weight)) {
    return absl::InvalidArgumentError(absl::StrCat("a tenant's weight must be positive, not ", request.tenant.weight));
  }
  const int64_t num_new = request.kind == Request::Kind::kEmbed ? 0 : 1;
  if (num_prompt + num_new > config_.max_model_tokens) {
    return absl::InvalidArgumentError(absl::StrCat("the prompt has ", num_prompt, " tokens; the model takes at most ",
                                                   config_.max_model_tokens, ", output included"));
  }
  const int64_t num_slots = int64_t{config_.num_pages} * config_.page_tokens;
  if (num_prompt > num_slots) {
    return absl::InvalidArgumentError(
        absl::StrCat("the prompt has ", num_prompt, " tokens; all KV pages together hold ", num_slots));
  }
  if (sequences_.contains(request.id)) {
    return absl::AlreadyExistsError(absl::StrCat("request ", request.id.value, " is already here"));
  }
  return absl::OkStatus();
}

absl::Status SchedulerImpl::Add(Request request, absl::Time now) {
  if (absl::Status status = CheckRequest(request); !status.ok()) return status;
  const int64_t num_prompt = static_cast<int64_t>(request.prompt_tokens.size());
  auto sequence = std::make_unique<Sequence>();
  sequence->arrival = next_arrival_++;
  sequence->num_prompt_tokens = static_cast<int32_t>(num_prompt);
  sequence->max_tokens = MaxTokens(request);
  sequence->is_long = num_prompt > config_.max_chunk_tokens;
  sequence->tokens = request.prompt_tokens;
  sequence->tenant = queue_.Join(request.tenant);
  sequence->request = std::move(request);
  queue_.Push(sequence.get());
  if (sequence->request.deadline != absl::InfiniteFuture()) {
    deadlines_.emplace(sequence->request.deadline, sequence->arrival);
    by_deadline_arrival_[sequence->arrival] = sequence.get();
  }
  const RequestId id = sequence->request.id;
  sequences_.emplace(id, std::move(sequence));
  return absl::OkStatus();
}

void SchedulerImpl::Cancel(RequestId id) {
  const auto found = sequences_.find(id);
  if (found != sequences_.end()) EndWithEvent(found->second.get(), FinishReason::kCancelled);
}

void SchedulerImpl::Finish(RequestId id) {
  const auto found = sequences_.find(id);
  if (found == sequences_.end()) return;
  PinForSession(found->second.get(), plan_time_);
  End(found->second.get());
}

// What its text has in common with a follow-up: the full pages of what is computed, wherever they lie by now.
void SchedulerImpl::PinForSession(Sequence* sequence, absl::Time now) {
  if (sequence->request.session == 0 || sequence->request.kind != Request::Kind::kGenerate) return;
  std::vector<PageId> pages;
  const int32_t num_full = config_.enable_prefix_caching ? sequence->num_computed / config_.page_tokens : 0;
  for (int32_t number = 0; number < num_full; ++number) {
    const PageId page = index_.Find(ContentOf(sequence, number));
    if (page < 0) break;
    pages.push_back(page);
  }
  const PinOwner owner{
      .session = sequence->request.session, .salt = sequence->request.tenant.salt, .weight = sequence->tenant->weight};
  pins_.Pin(owner, pages, now);
}

int32_t SchedulerImpl::ResetPrefixCache(std::optional<uint64_t> salt) {
  const int32_t num_before = pool_.num_idle();
  pins_.ReleaseTenant(salt);
  pool_.ForgetIdle(salt);
  return num_before - pool_.num_idle();
}

// A page whose content is spoilt. It may be in a session's text or in several: rare enough to give up all pins.
void SchedulerImpl::ForgetPage(PageId page) {
  if (pool_.num_pins(page) > 0) pins_.ReleaseTenant(std::nullopt);
  pool_.Forget(page);
}

void SchedulerImpl::ReleasePages(Sequence* sequence) {
  for (auto page = sequence->pages.rbegin(); page != sequence->pages.rend(); ++page) pool_.Release(*page);
  // The numbers stay readable for the spans of a plan that was just made; only the references go.
  sequence->num_named_pages = 0;
}

void SchedulerImpl::End(Sequence* sequence) {
  if (sequence->is_running) {
    const auto place = PlaceOf(sequence);
    MILLRACE_SCHEDULER_CHECK(place != running_.end() && *place == sequence, "a running sequence is in its place");
    running_.erase(place);
    ReleasePages(sequence);
  } else {
    queue_.Remove(sequence);
  }
  if (by_deadline_arrival_.erase(sequence->arrival) > 0) {
    deadlines_.erase({sequence->request.deadline, sequence->arrival});
  }
  queue_.Leave(sequence->tenant);
  auto node = sequences_.extract(sequence->request.id);
  if (num_open_ > 0) latest().ended.push_back(std::move(node.mapped()));
}

Sequence* SchedulerImpl::Find(const PlannedSequence& planned) const {
  const auto found = sequences_.find(planned.id);
  // An ended one stays where it was while the plan is open, so that another of its id lies elsewhere.
  const bool is_same = found != sequences_.end() && &found->second->request == planned.request;
  return is_same ? found->second.get() : nullptr;
}

void SchedulerImpl::EndWithEvent(Sequence* sequence, FinishReason reason) {
  TokenEvent event;
  Describe(*sequence, &event);
  event.finish = reason;
  events_.push_back(std::move(event));
  End(sequence);
}

void SchedulerImpl::ExpireDeadlines(absl::Time now) {
  while (!deadlines_.empty() && deadlines_.begin()->first <= now) {
    EndWithEvent(by_deadline_arrival_.at(deadlines_.begin()->second), FinishReason::kDeadline);
  }
}

absl::Time SchedulerImpl::NextDeadline() const {
  const absl::Time of_requests = deadlines_.empty() ? absl::InfiniteFuture() : deadlines_.begin()->first;
  return std::min(of_requests, pins_.next_expiry());
}

std::vector<TokenEvent> SchedulerImpl::TakeEvents() { return std::exchange(events_, {}); }

SchedulerStats SchedulerImpl::stats() const {
  SchedulerStats stats;
  stats.num_running = static_cast<int32_t>(running_.size());
  stats.num_waiting = queue_.num_waiting();
  stats.num_waiting_tokens = queue_.num_waiting_tokens();
  stats.num_pages_total = pool_.num_pages();
  stats.num_pages_used = pool_.num_used();
  stats.num_pages_cached = pool_.num_idle();
  stats.num_pages_pinned = pool_.num_pinned();
  stats.num_preemptions = num_preemptions_;
  stats.prefix_query_tokens = prefix_query_tokens_;
  stats.prefix_hit_tokens = prefix_hit_tokens_;
  return stats;
}

}  // namespace millrace
