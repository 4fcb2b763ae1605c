// SPDX-License-Identifier: Apache-2.0
// Who makes way: the one whose turn it is may find every slot or page held by those who came before. Max-min fairness
// over sequences per weight: a tenant gives one up only where it still has no fewer afterwards than the newcomer's
// tenant has, so nothing displaced can displace back.
#include <algorithm>

#include "scheduler/scheduler_impl.h"

namespace millrace {
namespace {

// A turn is at least this share of a sequence: bounds what is computed again for each token drawn.
constexpr int32_t kTurnDivisor = 16;

// Sequences per weight once `change` more run.
double Share(const TenantAccount& tenant, int32_t change) { return (tenant.num_running() + change) / tenant.weight; }

}  // namespace

// True: others lost their pages to the newcomer, which runs now.
bool SchedulerImpl::Displace() {
  Sequence* newcomer = NextToAdmit();
  if (newcomer == nullptr) return false;
  int32_t num_reserved = 0;
  for (const Sequence* sequence : running_) num_reserved += PagesToCome(*sequence);
  const bool has_slot = static_cast<int32_t>(running_.size()) < config_.max_sequences;
  if (has_slot && MissingPages(newcomer, num_reserved, Found::kIgnored) <= 0) return false;
  if (NextVictim(*newcomer) == nullptr) return false;
  int32_t num_missing = MissingPages(newcomer, num_reserved, Found::kCounted);
  if (has_slot && num_missing <= 0) return false;
  std::vector<Sequence*> victims;
  while (victims.empty() || num_missing > 0) {
    Sequence* victim = NextVictim(*newcomer);
    if (victim == nullptr) break;
    victim->is_leaving = true;
    ++victim->tenant->num_leaving;
    victims.push_back(victim);
    num_missing -= PagesGivenUp(*victim);
  }
  for (Sequence* victim : victims) {
    victim->is_leaving = false;
    --victim->tenant->num_leaving;
  }
  if (num_missing > 0) return false;  // nobody makes way in vain
  for (Sequence* victim : victims) Preempt(victim);
  Start(newcomer);
  return true;
}

// The newest of those that a strictly better priority outranks, else of the tenant that runs most per weight; null:
// nobody has to make way.
Sequence* SchedulerImpl::NextVictim(const Sequence& newcomer) const {
  const TenantAccount& tenant = *newcomer.tenant;
  Sequence* victim = nullptr;
  for (auto place = running_.rbegin(); place != running_.rend(); ++place) {
    Sequence* sequence = *place;
    const int32_t priority = sequence->request.priority;
    if (priority < newcomer.request.priority) break;
    if (sequence->is_leaving || !HadItsTurn(*sequence)) continue;
    if (priority > newcomer.request.priority) return sequence;
    if (sequence == running_.front()) break;  // the best one goes on, so that every request ends
    const bool has_more = Share(*sequence->tenant, -1) >= Share(tenant, 1) && sequence->tenant->served > tenant.served;
    if (!has_more || sequence->tenant == &tenant) continue;
    if (victim == nullptr || Share(*sequence->tenant, -1) > Share(*victim->tenant, -1)) victim = sequence;
  }
  return victim;
}

// Who loses its pages to `sequence`: among it and those behind it the same choice, without a turn to wait for.
Sequence* SchedulerImpl::WorstFrom(const Sequence* sequence) const {
  Sequence* victim = running_.back();
  for (auto place = running_.rbegin(); place != running_.rend(); ++place) {
    if ((*place)->request.priority != victim->request.priority || *place == running_.front()) break;
    if (Share(*(*place)->tenant, -1) > Share(*victim->tenant, -1)) victim = *place;
    if (*place == sequence) break;
  }
  return victim;
}

bool SchedulerImpl::HadItsTurn(const Sequence& sequence) const {
  const int32_t num_drawn = sequence.num_tokens() - sequence.num_tokens_at_start;
  return num_drawn >= std::max(config_.min_turn_tokens, sequence.num_tokens() / kTurnDivisor);
}

// Pages that nobody else holds, those it would still have needed and the one kept for its growth.
int32_t SchedulerImpl::PagesGivenUp(const Sequence& victim) const {
  int32_t num_pages = PagesToCome(victim) + 1;
  for (const PageId page : victim.pages) num_pages += pool_.num_references(page) == 1;
  return num_pages;
}

}  // namespace millrace
