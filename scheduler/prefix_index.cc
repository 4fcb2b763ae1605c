// SPDX-License-Identifier: Apache-2.0
#include "scheduler/prefix_index.h"

#include <algorithm>
#include <bit>

#include "scheduler/check.h"

namespace millrace {
namespace {

class SipHash128 {
 public:
  explicit SipHash128(uint64_t key) {
    const uint64_t second = key * 0x9e3779b97f4a7c15ull + 0x6a09e667f3bcc909ull;
    v0_ = 0x736f6d6570736575ull ^ key;
    v1_ = 0x646f72616e646f6dull ^ second ^ 0xee;
    v2_ = 0x6c7967656e657261ull ^ key;
    v3_ = 0x7465646279746573ull ^ second;
  }
  void Add(uint64_t word) {
    v3_ ^= word;
    Rounds(2);
    v0_ ^= word;
    ++num_words_;
  }
  PageHash Finish() {
    Add((num_words_ * 8) << 56);
    v2_ ^= 0xee;
    Rounds(4);
    PageHash hash;
    hash.low = v0_ ^ v1_ ^ v2_ ^ v3_;
    v1_ ^= 0xdd;
    Rounds(4);
    hash.high = v0_ ^ v1_ ^ v2_ ^ v3_;
    return hash;
  }

 private:
  void Rounds(int count) {
    for (int i = 0; i < count; ++i) {
      v0_ += v1_;
      v1_ = std::rotl(v1_, 13) ^ v0_;
      v0_ = std::rotl(v0_, 32);
      v2_ += v3_;
      v3_ = std::rotl(v3_, 16) ^ v2_;
      v0_ += v3_;
      v3_ = std::rotl(v3_, 21) ^ v0_;
      v2_ += v1_;
      v1_ = std::rotl(v1_, 17) ^ v2_;
      v2_ = std::rotl(v2_, 32);
    }
  }
  uint64_t v0_, v1_, v2_, v3_;
  uint64_t num_words_ = 0;
};

}  // namespace

PrefixIndex::PrefixIndex(int32_t num_pages, int32_t page_tokens, uint64_t key)
    : page_tokens_(page_tokens), key_(key), entries_(num_pages), tokens_(size_t{1} * num_pages * page_tokens) {
  by_hash_.reserve(num_pages);
}

PageHash PrefixIndex::Hash(PageHash parent, uint64_t salt, absl::Span<const int32_t> tokens) const {
  SipHash128 hash(key_);
  hash.Add(parent.high);
  hash.Add(parent.low);
  hash.Add(salt);
  size_t i = 0;
  for (; i + 1 < tokens.size(); i += 2) {
    hash.Add(static_cast<uint32_t>(tokens[i]) | uint64_t{static_cast<uint32_t>(tokens[i + 1])} << 32);
  }
  if (i < tokens.size()) hash.Add(static_cast<uint32_t>(tokens[i]));
  return hash.Finish();
}

absl::Span<const int32_t> PrefixIndex::Tokens(PageId page) const {
  return absl::MakeConstSpan(tokens_).subspan(size_t{1} * page * page_tokens_, page_tokens_);
}

PageId PrefixIndex::Find(const PageContent& content) const {
  const auto found = by_hash_.find(content.hash);
  if (found == by_hash_.end()) return -1;
  const Entry& entry = entries_[found->second];
  const bool is_same =
      entry.parent == content.parent && entry.salt == content.salt && Tokens(found->second) == content.tokens;
  return is_same ? found->second : -1;
}

void PrefixIndex::Insert(PageId page, const PageContent& content) {
  MILLRACE_SCHEDULER_CHECK(!entries_[page].is_set, "a page is named once");
  // A hash collision leaves the newcomer without a name: it is never shared, only computed again.
  if (!by_hash_.emplace(content.hash, page).second) return;
  entries_[page] = {content.hash, content.parent, content.salt, true};
  std::copy(content.tokens.begin(), content.tokens.end(), tokens_.begin() + size_t{1} * page * page_tokens_);
}

void PrefixIndex::Erase(PageId page) {
  if (!entries_[page].is_set) return;
  by_hash_.erase(entries_[page].hash);
  entries_[page].is_set = false;
}

bool PrefixIndex::IsConsistent() const {
  int32_t num_set = 0;
  for (size_t page = 0; page < entries_.size(); ++page) {
    if (!entries_[page].is_set) continue;
    ++num_set;
    const auto found = by_hash_.find(entries_[page].hash);
    if (found == by_hash_.end() || found->second != static_cast<PageId>(page)) return false;
    if (Hash(entries_[page].parent, entries_[page].salt, Tokens(page)) != entries_[page].hash) return false;
  }
  return num_set == num_entries();
}

}  // namespace millrace
