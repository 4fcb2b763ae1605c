// SPDX-License-Identifier: Apache-2.0
#pragma once
// Whose pages are kept for a follow-up: the prefix that a session's last request left behind, so that it is found again
// when a tool has answered. Pinned pages are the last to be given to others. Engine thread only.
#include <cstdint>
#include <optional>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/time/time.h"
#include "scheduler/page_pool.h"
#include "scheduler/plan.h"

namespace millrace {

struct PinOwner {
  uint64_t session = 0;
  uint64_t salt = 0;  // tells the tenants apart
  double weight = 1;  // the tenant's
};

class SessionPins {
 public:
  // At most `max_pages` different pages are pinned, each for at most `max_time`. `pool` outlives the pins.
  SessionPins(PagePool* pool, int32_t max_pages, absl::Duration max_time)
      : pool_(pool), max_pages_(max_pages), max_time_(max_time) {}

  // The session's pages are these from now on, in the order of its text. Beyond the limit the tenant that would have
  // the most pages per weight gives up one: the last of its session that was pinned longest ago, or, where it has no
  // other, this one's end. So a tenant may have all of them while nobody else asks, and its weighted share when all do.
  // REQUIRES: the pages are named with the owner's salt.
  void Pin(const PinOwner& owner, const std::vector<PageId>& pages, absl::Time now);
  void Release(uint64_t session);
  void ReleaseOldest();                              // REQUIRES: !empty()
  void ReleaseTenant(std::optional<uint64_t> salt);  // all of a tenant's sessions, or everybody's
  void Expire(absl::Time now);

  bool empty() const { return entries_.empty(); }
  absl::Time next_expiry() const { return entries_.empty() ? absl::InfiniteFuture() : entries_.front().expiry; }
  // Pins per page, recounted.
  std::vector<int32_t> Count() const;
  bool IsConsistent() const;  // each tenant's pages add up

 private:
  struct Entry {
    PinOwner owner;
    absl::Time expiry;
    std::vector<PageId> pages;  // not empty
  };
  struct Holder {
    double weight = 1;
    int32_t num_pages = 0;  // different ones, and at least one
  };
  bool MakeRoom(const PinOwner& owner);
  uint64_t LargestHolder(const PinOwner& newcomer) const;
  void DropLastPage(Entry& entry);
  void Erase(std::vector<Entry>::iterator entry);

  PagePool* const pool_;
  const int32_t max_pages_;
  const absl::Duration max_time_;
  std::vector<Entry> entries_;                     // oldest first
  absl::flat_hash_map<uint64_t, Holder> holders_;  // by salt
};

}  // namespace millrace
