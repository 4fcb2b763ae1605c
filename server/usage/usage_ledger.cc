// SPDX-License-Identifier: Apache-2.0
#include "server/usage/usage_ledger.h"

#include <algorithm>

namespace millrace {

void UsageCounts::Add(const UsageCounts& other) {
  num_completed += other.num_completed;
  num_cancelled += other.num_cancelled;
  num_failed += other.num_failed;
  num_rejected += other.num_rejected;
  num_prompt_tokens += other.num_prompt_tokens;
  num_cached_tokens += other.num_cached_tokens;
  num_generated_tokens += other.num_generated_tokens;
}

void UsageLedger::OnPrefilled(const std::string& tenant, int64_t num_prompt_tokens, int64_t num_cached_tokens) {
  Count(tenant, {.num_prompt_tokens = num_prompt_tokens, .num_cached_tokens = num_cached_tokens});
}

void UsageLedger::OnGenerated(const std::string& tenant, int64_t num_tokens) {
  Count(tenant, {.num_generated_tokens = num_tokens});
}

void UsageLedger::OnFinished(const std::string& tenant, FinishReason finish) {
  UsageCounts counts;
  switch (finish) {
    case FinishReason::kStop:
    case FinishReason::kLength:
      counts.num_completed = 1;
      break;
    case FinishReason::kError:
      counts.num_failed = 1;
      break;
    default:
      counts.num_cancelled = 1;
  }
  Count(tenant, counts);
}

void UsageLedger::OnRejected(const std::string& tenant) { Count(tenant, {.num_rejected = 1}); }

void UsageLedger::Count(const std::string& tenant, const UsageCounts& counts) {
  const absl::CivilDay day = absl::ToCivilDay(clock_(), absl::UTCTimeZone());
  absl::MutexLock lock(&mu_);
  std::string name = tenant.empty() ? "anonymous" : tenant;
  if (totals_.size() >= options_.max_tenants && !totals_.contains(name)) name = "other";
  totals_[name].Add(counts);
  auto [row, is_new] = days_[day].try_emplace(std::move(name));
  row->second.Add(counts);
  if (is_new) ++num_rows_;
  while (num_rows_ > options_.max_rows && days_.size() > 1) {
    num_rows_ -= days_.begin()->second.size();
    days_.erase(days_.begin());
  }
}

std::vector<TenantUsage> UsageLedger::Report() const {
  absl::MutexLock lock(&mu_);
  std::vector<TenantUsage> report;
  for (const auto& [tenant, total] : totals_) {
    TenantUsage& usage = report.emplace_back(TenantUsage{.tenant = tenant, .total = total, .days = {}});
    for (const auto& [day, rows] : days_) {
      if (const auto row = rows.find(tenant); row != rows.end()) usage.days.push_back({day, row->second});
    }
  }
  std::sort(report.begin(), report.end(), [](const auto& a, const auto& b) { return a.tenant < b.tenant; });
  return report;
}

}  // namespace millrace
