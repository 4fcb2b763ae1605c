// SPDX-License-Identifier: Apache-2.0
#include "scheduler/fair_queue.h"

#include <algorithm>

#include "scheduler/check.h"

namespace millrace {
namespace {

// Idle tenants whose books are kept, so that leaving for a moment sheds no debt; beyond, all idle ones are forgotten.
constexpr size_t kMaxIdleTenants = 4096;

}  // namespace

bool FairQueue::Belongs(const TenantAccount& account, List list) {
  switch (list) {
    case kActive:
      return account.num_live > 0;
    case kWaiting:
      return !account.waiting.empty();
    case kShortWaiting:
      return !account.short_waiting.empty();
  }
  return false;
}

void FairQueue::Enlist(TenantAccount* account, List list) {
  if (account->is_listed[list]) return;
  account->is_listed[list] = true;
  heaps_[list].push_back({account->served, account->serial, account});
  std::push_heap(heaps_[list].begin(), heaps_[list].end(), Later());
}

TenantAccount* FairQueue::Least(List list) {
  std::vector<Entry>& heap = heaps_[list];
  while (!heap.empty()) {
    TenantAccount* account = heap.front().account;
    if (Belongs(*account, list) && heap.front().served == account->served) return account;
    std::pop_heap(heap.begin(), heap.end(), Later());
    heap.pop_back();
    account->is_listed[list] = false;
    if (Belongs(*account, list)) Enlist(account, list);
  }
  return nullptr;
}

TenantAccount* FairQueue::Join(const Tenant& tenant) {
  auto [found, is_new] = accounts_.try_emplace(tenant.name);
  if (is_new) {
    found->second = std::make_unique<TenantAccount>();
    found->second->name = tenant.name;
    found->second->serial = next_serial_++;
  }
  TenantAccount* account = found->second.get();
  account->weight = std::clamp(tenant.weight, 1e-3, 1e6);
  if (account->num_live++ == 0) {
    if (const TenantAccount* least = Least(kActive)) account->served = std::max(account->served, least->served);
    ++num_active_;
    Enlist(account, kActive);
  }
  return account;
}

void FairQueue::Leave(TenantAccount* account) {
  MILLRACE_SCHEDULER_CHECK(account->num_live > 0, "a tenant is left once per request");
  if (--account->num_live > 0) return;
  --num_active_;
  if (num_active_ == 0 || accounts_.size() - num_active_ > kMaxIdleTenants) ForgetIdleTenants();
}

void FairQueue::ForgetIdleTenants() {
  for (std::vector<Entry>& heap : heaps_) {
    std::erase_if(heap, [](const Entry& entry) { return entry.account->num_live == 0; });
    std::make_heap(heap.begin(), heap.end(), Later());
  }
  absl::erase_if(accounts_, [](const auto& named) { return named.second->num_live == 0; });
}

void FairQueue::Push(Sequence* sequence) {
  TenantAccount* account = sequence->tenant;
  account->waiting.insert(sequence);
  Enlist(account, kWaiting);
  if (!sequence->is_long) {
    account->short_waiting.insert(sequence);
    Enlist(account, kShortWaiting);
  }
  ++num_waiting_;
  num_waiting_tokens_ += sequence->num_prompt_tokens;
}

void FairQueue::Remove(Sequence* sequence) {
  const size_t num_erased = sequence->tenant->waiting.erase(sequence);
  MILLRACE_SCHEDULER_CHECK(num_erased == 1, "only a waiting sequence leaves the queue");
  if (!sequence->is_long) sequence->tenant->short_waiting.erase(sequence);
  --num_waiting_;
  num_waiting_tokens_ -= sequence->num_prompt_tokens;
}

Sequence* FairQueue::Front(Which which) {
  if (which == Which::kShort) {
    TenantAccount* account = Least(kShortWaiting);
    return account == nullptr ? nullptr : *account->short_waiting.begin();
  }
  TenantAccount* account = Least(kWaiting);
  return account == nullptr ? nullptr : *account->waiting.begin();
}

std::vector<std::pair<std::string, int32_t>> FairQueue::WaitingByTenant() const {
  std::vector<std::pair<std::string, int32_t>> waiting;
  for (const auto& [name, account] : accounts_) {
    if (!account->waiting.empty()) waiting.emplace_back(name, static_cast<int32_t>(account->waiting.size()));
  }
  std::sort(waiting.begin(), waiting.end());
  return waiting;
}

bool FairQueue::IsConsistent() const {
  int32_t num_waiting = 0, num_active = 0;
  int64_t num_tokens = 0;
  for (const auto& [name, account] : accounts_) {
    num_active += account->num_live > 0;
    num_waiting += static_cast<int32_t>(account->waiting.size());
    size_t num_short = 0;
    for (const Sequence* sequence : account->waiting) {
      if (sequence->tenant != account.get() || sequence->is_running) return false;
      num_tokens += sequence->num_prompt_tokens;
      num_short += !sequence->is_long;
    }
    if (num_short != account->short_waiting.size()) return false;
    for (List list : {kActive, kWaiting, kShortWaiting}) {
      if (Belongs(*account, list) && !account->is_listed[list]) return false;
    }
  }
  return num_waiting == num_waiting_ && num_active == num_active_ && num_tokens == num_waiting_tokens_;
}

}  // namespace millrace
