// SPDX-License-Identifier: Apache-2.0
#include "scheduler/session_pins.h"

#include <algorithm>
#include <set>
#include <utility>

namespace millrace {

void SessionPins::Pin(const PinOwner& owner, const std::vector<PageId>& pages, absl::Time now) {
  Release(owner.session);
  Entry entry{.owner = owner, .expiry = now + max_time_};
  for (const PageId page : pages) {
    const bool is_new = pool_->num_pins(page) == 0;
    if (is_new && !MakeRoom(owner)) break;
    pool_->Pin(page);
    entry.pages.push_back(page);
    Holder& holder = holders_[owner.salt];
    holder.weight = owner.weight;
    holder.num_pages += is_new;
  }
  if (!entry.pages.empty()) entries_.push_back(std::move(entry));
}

// For one page more. False: the newcomer is the one to go without.
bool SessionPins::MakeRoom(const PinOwner& owner) {
  while (pool_->num_pinned() >= max_pages_) {
    const uint64_t salt = LargestHolder(owner);
    const auto entry =
        std::find_if(entries_.begin(), entries_.end(), [salt](const Entry& each) { return each.owner.salt == salt; });
    if (entry == entries_.end()) return false;
    DropLastPage(*entry);
    if (entry->pages.empty()) entries_.erase(entry);
  }
  return true;
}

// The salt of the tenant with the most pages per weight, once the newcomer has its page. Where another has as many it
// is the newcomer: taking turns with one page helps nobody.
uint64_t SessionPins::LargestHolder(const PinOwner& newcomer) const {
  const auto own = holders_.find(newcomer.salt);
  const int32_t num_own = own == holders_.end() ? 0 : own->second.num_pages;
  uint64_t largest = newcomer.salt;
  double share = (num_own + 1) / newcomer.weight;
  for (const auto& [salt, holder] : holders_) {
    if (salt == newcomer.salt || holder.num_pages / holder.weight <= share) continue;
    largest = salt;
    share = holder.num_pages / holder.weight;
  }
  return largest;
}

void SessionPins::Release(uint64_t session) {
  const auto found = std::find_if(entries_.begin(), entries_.end(),
                                  [session](const Entry& entry) { return entry.owner.session == session; });
  if (found != entries_.end()) Erase(found);
}

void SessionPins::ReleaseOldest() { Erase(entries_.begin()); }

void SessionPins::ReleaseTenant(std::optional<uint64_t> salt) {
  for (size_t i = entries_.size(); i-- > 0;) {
    if (!salt || entries_[i].owner.salt == *salt) Erase(entries_.begin() + static_cast<std::ptrdiff_t>(i));
  }
}

void SessionPins::Expire(absl::Time now) {
  while (!entries_.empty() && entries_.front().expiry <= now) ReleaseOldest();
}

// The last page first: as with a sequence's, the beginning of a prefix stays longest.
void SessionPins::DropLastPage(Entry& entry) {
  const PageId page = entry.pages.back();
  entry.pages.pop_back();
  pool_->Unpin(page);
  if (pool_->num_pins(page) > 0) return;
  const auto holder = holders_.find(entry.owner.salt);
  if (--holder->second.num_pages == 0) holders_.erase(holder);
}

void SessionPins::Erase(std::vector<Entry>::iterator entry) {
  while (!entry->pages.empty()) DropLastPage(*entry);
  entries_.erase(entry);
}

std::vector<int32_t> SessionPins::Count() const {
  std::vector<int32_t> counts(pool_->num_pages(), 0);
  for (const Entry& entry : entries_) {
    for (const PageId page : entry.pages) ++counts[page];
  }
  return counts;
}

bool SessionPins::IsConsistent() const {
  absl::flat_hash_map<uint64_t, std::set<PageId>> pages;
  for (const Entry& entry : entries_) {
    if (entry.pages.empty()) return false;
    pages[entry.owner.salt].insert(entry.pages.begin(), entry.pages.end());
  }
  return pages.size() == holders_.size() && std::all_of(pages.begin(), pages.end(), [this](const auto& of_salt) {
           const auto holder = holders_.find(of_salt.first);
           return holder != holders_.end() && holder->second.num_pages == static_cast<int32_t>(of_salt.second.size());
         });
}

}  // namespace millrace
