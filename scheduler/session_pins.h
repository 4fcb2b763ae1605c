// SPDX-License-Identifier: Apache-2.0
#pragma once
// Whose pages are kept for a follow-up: the prefix that a session's last request left behind, so that it is found again
// when a tool has answered. Pinned pages are the last to be given to others. Engine thread only.
#include <cstdint>
#include <vector>

#include "absl/time/time.h"
#include "scheduler/page_pool.h"
#include "scheduler/plan.h"

namespace millrace {

class SessionPins {
 public:
  // At most `max_pages` different pages are pinned, each for at most `max_time`. `pool` outlives the pins.
  SessionPins(PagePool* pool, int32_t max_pages, absl::Duration max_time)
      : pool_(pool), max_pages_(max_pages), max_time_(max_time) {}

  // The session's pages are these from now on, in the order of its text. Beyond the limit the sessions that were pinned
  // longest ago give up theirs, and at last this one the end of its own.
  void Pin(uint64_t session, const std::vector<PageId>& pages, absl::Time now);
  void Release(uint64_t session);
  void ReleaseOldest();  // REQUIRES: !empty()
  void ReleaseAll();
  void Expire(absl::Time now);

  bool empty() const { return entries_.empty(); }
  absl::Time next_expiry() const { return entries_.empty() ? absl::InfiniteFuture() : entries_.front().expiry; }
  // Pins per page, recounted.
  std::vector<int32_t> Count() const;

 private:
  struct Entry {
    uint64_t session = 0;
    absl::Time expiry;
    std::vector<PageId> pages;
  };
  void Erase(std::vector<Entry>::iterator entry);

  PagePool* const pool_;
  const int32_t max_pages_;
  const absl::Duration max_time_;
  std::vector<Entry> entries_;  // oldest first
};

}  // namespace millrace
