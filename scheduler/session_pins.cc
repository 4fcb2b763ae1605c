// SPDX-License-Identifier: Apache-2.0
#include "scheduler/session_pins.h"

#include <algorithm>
#include <utility>

namespace millrace {

void SessionPins::Pin(uint64_t session, const std::vector<PageId>& pages, absl::Time now) {
  Release(session);
  Entry entry{.session = session, .expiry = now + max_time_};
  for (const PageId page : pages) {
    while (pool_->num_pins(page) == 0 && pool_->num_pinned() >= max_pages_ && !entries_.empty()) ReleaseOldest();
    if (pool_->num_pins(page) == 0 && pool_->num_pinned() >= max_pages_) break;
    pool_->Pin(page);
    entry.pages.push_back(page);
  }
  if (!entry.pages.empty()) entries_.push_back(std::move(entry));
}

void SessionPins::Release(uint64_t session) {
  const auto found = std::find_if(entries_.begin(), entries_.end(),
                                  [session](const Entry& entry) { return entry.session == session; });
  if (found != entries_.end()) Erase(found);
}

void SessionPins::ReleaseOldest() { Erase(entries_.begin()); }

void SessionPins::ReleaseAll() {
  while (!entries_.empty()) Erase(entries_.end() - 1);
}

void SessionPins::Expire(absl::Time now) {
  while (!entries_.empty() && entries_.front().expiry <= now) ReleaseOldest();
}

// The last page first: as with a sequence's, the beginning of a prefix stays longest.
void SessionPins::Erase(std::vector<Entry>::iterator entry) {
  for (auto page = entry->pages.rbegin(); page != entry->pages.rend(); ++page) pool_->Unpin(*page);
  entries_.erase(entry);
}

std::vector<int32_t> SessionPins::Count() const {
  std::vector<int32_t> counts(pool_->num_pages(), 0);
  for (const Entry& entry : entries_) {
    for (const PageId page : entry.pages) ++counts[page];
  }
  return counts;
}

}  // namespace millrace
