// SPDX-License-Identifier: Apache-2.0
#pragma once
// Who uses which KV page. A page is free (unnamed, unused), used (referenced by sequences) or idle (unused, but named
// in the PrefixIndex, so that a later prompt may find it). Idle pages are taken back oldest first. A pin says that a
// session will want the page again: it changes no state, but its owner is to give up pins before pinned pages are
// taken. Engine thread only.
#include <cstdint>
#include <optional>
#include <vector>

#include "scheduler/plan.h"
#include "scheduler/prefix_index.h"

namespace millrace {

class PagePool {
 public:
  // `index` outlives the pool; the pool erases a page's name when it gives the page to someone else.
  PagePool(int32_t num_pages, PrefixIndex* index);

  // A page with one reference: a free one, else the longest idle one. REQUIRES: num_unpinned() > 0. O(1).
  PageId Allocate();
  // One more reference: of a used page, or one that was idle.
  void AddReference(PageId page);
  // The last reference dropped makes the page idle if it is named, else free. Release a sequence's last page first:
  // then the beginning of a prefix stays longest.
  void Release(PageId page);
  // Erases the page's name; an idle page becomes free.
  void Forget(PageId page);
  // Forgets the idle pages without pins: those of `salt`, or all.
  void ForgetIdle(std::optional<uint64_t> salt);
  void Pin(PageId page);    // one more pin. REQUIRES: the page is named
  void Unpin(PageId page);  // one less; an idle page without pins counts as just used

  int32_t num_pages() const { return static_cast<int32_t>(slots_.size()); }
  int32_t num_idle() const { return num_idle_ + num_idle_pinned_; }
  int32_t num_available() const { return num_unpinned() + num_idle_pinned_; }
  int32_t num_unpinned() const { return static_cast<int32_t>(free_.size()) + num_idle_; }  // of the available ones
  int32_t num_used() const { return num_pages() - num_available(); }
  int32_t num_references(PageId page) const { return slots_[page].num_references; }
  int32_t num_pins(PageId page) const { return slots_[page].num_pins; }
  int32_t num_pinned() const { return num_pinned_; }  // pages with a pin, idle or used
  bool is_idle_pinned(PageId page) const { return slots_[page].num_references == 0 && slots_[page].num_pins > 0; }
  // Each page is in exactly one of the three states, and idle exactly when named and unused.
  bool IsConsistent() const;

 private:
  struct Slot {
    int32_t num_references = 0;
    int32_t num_pins = 0;
    PageId older = -1;  // neighbours among idle pages without pins
    PageId newer = -1;
  };
  void BecomeIdle(PageId page);
  void LeaveIdle(PageId page);
  void LinkIdle(PageId page);
  void UnlinkIdle(PageId page);

  PrefixIndex* const index_;
  std::vector<Slot> slots_;
  std::vector<PageId> free_;  // taken from the back
  PageId oldest_idle_ = -1;
  PageId newest_idle_ = -1;
  int32_t num_idle_ = 0;         // without pins
  int32_t num_idle_pinned_ = 0;  // idle all the same
  int32_t num_pinned_ = 0;
};

}  // namespace millrace
