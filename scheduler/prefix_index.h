// SPDX-License-Identifier: Apache-2.0
#pragma once
// Which page holds which prefix. A full page is named by a hash chain: its tokens, its parent's name, the tenant's
// salt. A match also compares tokens, parent and salt, so a wrong page would need a 128-bit collision of the parent's
// chain. Owned by the scheduler; engine thread only. Knows nothing of references: PagePool does.
#include <cstdint>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/types/span.h"
#include "scheduler/plan.h"

namespace millrace {

// The name of a page's content and of all before it.
struct PageHash {
  uint64_t high = 0;
  uint64_t low = 0;
  friend bool operator==(PageHash, PageHash) = default;
  template <typename H>
  friend H AbslHashValue(H h, PageHash hash) {
    return H::combine(std::move(h), hash.low);
  }
};

// What a page holds: the identity that a match must meet in full.
struct PageContent {
  PageHash hash;    // of everything below
  PageHash parent;  // of the page before; zero for the first
  uint64_t salt = 0;
  absl::Span<const int32_t> tokens;  // page_tokens of them
};

class PrefixIndex {
 public:
  PrefixIndex(int32_t num_pages, int32_t page_tokens, uint64_t key);

  // SipHash-2-4 with 128-bit output (Aumasson and Bernstein, 2012) over parent, salt and tokens, keyed.
  PageHash Hash(PageHash parent, uint64_t salt, absl::Span<const int32_t> tokens) const;
  // The page that holds this content, or -1.
  PageId Find(const PageContent& content) const;
  // Names `page`'s content. REQUIRES: the page has no name and no other page has this one (see Find).
  void Insert(PageId page, const PageContent& content);
  // Forgets a page's name, if it has one.
  void Erase(PageId page);
  bool Contains(PageId page) const { return entries_[page].is_set; }
  uint64_t salt(PageId page) const { return entries_[page].salt; }
  int32_t num_entries() const { return static_cast<int32_t>(by_hash_.size()); }
  // Every name leads to its page and back.
  bool IsConsistent() const;

 private:
  struct Entry {
    PageHash hash;
    PageHash parent;
    uint64_t salt = 0;
    bool is_set = false;
  };
  absl::Span<const int32_t> Tokens(PageId page) const;

  const int32_t page_tokens_;
  const uint64_t key_;
  std::vector<Entry> entries_;   // by page
  std::vector<int32_t> tokens_;  // [num_pages, page_tokens]
  absl::flat_hash_map<PageHash, PageId> by_hash_;
};

}  // namespace millrace
