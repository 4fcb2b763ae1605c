// SPDX-License-Identifier: Apache-2.0
#include "scheduler/page_pool.h"

#include "scheduler/check.h"

namespace millrace {

PagePool::PagePool(int32_t num_pages, PrefixIndex* index) : index_(index), slots_(num_pages) {
  free_.reserve(num_pages);
  for (PageId page = num_pages - 1; page >= 0; --page) free_.push_back(page);
}

PageId PagePool::Allocate() {
  MILLRACE_SCHEDULER_CHECK(num_unpinned() > 0, "a page is allocated only when one without pins is available");
  PageId page;
  if (!free_.empty()) {
    page = free_.back();
    free_.pop_back();
  } else {
    page = oldest_idle_;
    UnlinkIdle(page);
    index_->Erase(page);
  }
  slots_[page].num_references = 1;
  return page;
}

void PagePool::AddReference(PageId page) {
  Slot& slot = slots_[page];
  if (slot.num_references == 0) {
    MILLRACE_SCHEDULER_CHECK(index_->Contains(page), "an unused page is shared only when it is named");
    LeaveIdle(page);
  }
  ++slot.num_references;
}

void PagePool::Release(PageId page) {
  Slot& slot = slots_[page];
  MILLRACE_SCHEDULER_CHECK(slot.num_references > 0, "a page is released once per reference");
  if (--slot.num_references > 0) return;
  if (index_->Contains(page)) {
    BecomeIdle(page);
  } else {
    free_.push_back(page);
  }
}

void PagePool::Forget(PageId page) {
  MILLRACE_SCHEDULER_CHECK(slots_[page].num_pins == 0, "a pinned page is not forgotten");
  if (!index_->Contains(page)) return;
  index_->Erase(page);
  if (slots_[page].num_references > 0) return;
  UnlinkIdle(page);
  free_.push_back(page);
}

void PagePool::ForgetIdle(std::optional<uint64_t> salt) {
  for (PageId page = oldest_idle_; page >= 0;) {
    const PageId newer = slots_[page].newer;
    if (!salt || index_->salt(page) == *salt) Forget(page);
    page = newer;
  }
}

void PagePool::Pin(PageId page) {
  MILLRACE_SCHEDULER_CHECK(index_->Contains(page), "only what can be found again is pinned");
  Slot& slot = slots_[page];
  if (slot.num_pins++ > 0) return;
  ++num_pinned_;
  if (slot.num_references > 0) return;
  UnlinkIdle(page);
  ++num_idle_pinned_;
}

void PagePool::Unpin(PageId page) {
  Slot& slot = slots_[page];
  MILLRACE_SCHEDULER_CHECK(slot.num_pins > 0, "a page is unpinned once per pin");
  if (--slot.num_pins > 0) return;
  --num_pinned_;
  if (slot.num_references > 0) return;
  --num_idle_pinned_;
  LinkIdle(page);
}

void PagePool::BecomeIdle(PageId page) {
  if (slots_[page].num_pins > 0) {
    ++num_idle_pinned_;
  } else {
    LinkIdle(page);
  }
}

void PagePool::LeaveIdle(PageId page) {
  if (slots_[page].num_pins > 0) {
    --num_idle_pinned_;
  } else {
    UnlinkIdle(page);
  }
}

void PagePool::LinkIdle(PageId page) {
  slots_[page].older = newest_idle_;
  slots_[page].newer = -1;
  (newest_idle_ >= 0 ? slots_[newest_idle_].newer : oldest_idle_) = page;
  newest_idle_ = page;
  ++num_idle_;
}

void PagePool::UnlinkIdle(PageId page) {
  const Slot& slot = slots_[page];
  (slot.older >= 0 ? slots_[slot.older].newer : oldest_idle_) = slot.newer;
  (slot.newer >= 0 ? slots_[slot.newer].older : newest_idle_) = slot.older;
  --num_idle_;
}

bool PagePool::IsConsistent() const {
  enum : uint8_t { kUnseen, kFree, kIdle };
  std::vector<uint8_t> seen(slots_.size(), kUnseen);
  for (PageId page : free_) {
    if (seen[page] != kUnseen || slots_[page].num_references != 0 || index_->Contains(page)) return false;
    seen[page] = kFree;
  }
  int32_t num_idle = 0;
  for (PageId page = oldest_idle_; page >= 0; page = slots_[page].newer, ++num_idle) {
    if (seen[page] != kUnseen || slots_[page].num_references != 0 || !index_->Contains(page)) return false;
    if (slots_[page].num_pins != 0) return false;
    seen[page] = kIdle;
  }
  if (num_idle != num_idle_) return false;
  int32_t num_pinned = 0;
  int32_t num_idle_pinned = 0;
  for (PageId page = 0; page < num_pages(); ++page) {
    if (slots_[page].num_pins == 0) continue;
    if (!index_->Contains(page)) return false;
    ++num_pinned;
    if (slots_[page].num_references > 0) continue;
    ++num_idle_pinned;
    if (seen[page] != kUnseen) return false;
    seen[page] = kIdle;
  }
  if (num_pinned != num_pinned_ || num_idle_pinned != num_idle_pinned_) return false;
  for (size_t page = 0; page < slots_.size(); ++page) {
    if ((slots_[page].num_references > 0) != (seen[page] == kUnseen)) return false;
  }
  return true;
}

}  // namespace millrace
