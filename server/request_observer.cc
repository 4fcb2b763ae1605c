// SPDX-License-Identifier: Apache-2.0
#include "server/request_observer.h"

#include <cmath>

#include "server/wire/api_error.h"

namespace millrace {
namespace {

// Milliseconds with three digits; negative and missing times are 0.
double Milliseconds(absl::Time from, absl::Time to) {
  if (from == absl::InfinitePast() || to == absl::InfinitePast() || to < from) return 0;
  return std::round(absl::ToDoubleMicroseconds(to - from)) / 1000;
}

class Observer : public RequestObserver {
 public:
  Observer(Metrics& metrics, Log* log, UsageLedger* usage) : metrics_(metrics), log_(log), usage_(usage) {}

  void OnPrefilled(const Caller& caller, int32_t num_prompt_tokens, int32_t num_cached_tokens) override {
    metrics_.OnPrefilled(caller.tenant.name, num_prompt_tokens, num_cached_tokens);
    if (usage_ != nullptr) usage_->OnPrefilled(caller.tenant.name, num_prompt_tokens, num_cached_tokens);
  }
  void OnGenerated(const Caller& caller, int32_t num_tokens) override {
    metrics_.OnGenerated(caller.tenant.name, num_tokens);
    if (usage_ != nullptr) usage_->OnGenerated(caller.tenant.name, num_tokens);
  }
  void OnFirstToken(const Caller&, absl::Duration since_received) override { metrics_.OnFirstToken(since_received); }
  void OnInterTokenLatency(absl::Duration latency) override { metrics_.OnInterTokenLatency(latency); }

  void OnFinished(const RequestRecord& record) override {
    metrics_.OnFinished(record);
    if (usage_ != nullptr) usage_->OnFinished(record.caller.tenant.name, record.finish);
    if (log_ == nullptr) return;
    const absl::Time prefill_end = record.first_token == absl::InfinitePast() ? record.finished : record.first_token;
    log_->Info("request", {{"request_id", record.caller.request_id},
                           {"endpoint", record.caller.endpoint},
                           {"tenant", record.caller.tenant.name},
                           {"key", record.caller.key_name},
                           {"remote", record.caller.remote},
                           {"finish_reason", FinishReasonName(record.finish)},
                           {"cache", CacheOutcomeName(record.cache)},
                           {"choices", int64_t{record.num_choices}},
                           {"prompt_tokens", int64_t{record.num_prompt_tokens}},
                           {"cached_tokens", int64_t{record.num_cached_tokens}},
                           {"generated_tokens", int64_t{record.num_generated_tokens}},
                           {"text_ms", Milliseconds(record.caller.received, record.submitted)},
                           {"queue_ms", Milliseconds(record.submitted, record.scheduled)},
                           {"prefill_ms", Milliseconds(record.scheduled, prefill_end)},
                           {"decode_ms", Milliseconds(record.first_token, record.last_token)},
                           {"total_ms", Milliseconds(record.caller.received, record.finished)}});
  }

  void OnRejected(const Caller& caller, const absl::Status& status) override {
    if (const std::string reason = RejectionReason(status); !reason.empty()) {
      metrics_.OnRejected(caller.tenant.name, reason);
      if (usage_ != nullptr) usage_->OnRejected(caller.tenant.name);
    }
    if (log_ == nullptr) return;
    const ApiError error = ToApiError(status);
    log_->Info("request refused", {{"request_id", caller.request_id},
                                   {"endpoint", caller.endpoint},
                                   {"status", int64_t{error.http_status}},
                                   {"code", error.code},
                                   {"param", std::string_view(error.param).substr(0, 200)},
                                   {"tenant", caller.tenant.name},
                                   {"key", caller.key_name},
                                   {"remote", caller.remote}});
  }

 private:
  Metrics& metrics_;
  Log* const log_;
  UsageLedger* const usage_;
};

}  // namespace

std::unique_ptr<RequestObserver> MakeRequestObserver(Metrics& metrics, Log* log, UsageLedger* usage) {
  return std::make_unique<Observer>(metrics, log, usage);
}

}  // namespace millrace
