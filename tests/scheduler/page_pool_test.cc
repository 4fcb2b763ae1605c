// SPDX-License-Identifier: Apache-2.0
#include "scheduler/page_pool.h"

#include <catch2/catch.hpp>
#include <vector>

namespace millrace {
namespace {

PageContent Content(const PrefixIndex& index, const std::vector<int32_t>& tokens, uint64_t salt = 0) {
  return {index.Hash({}, salt, tokens), {}, salt, tokens};
}

TEST_CASE("PagePool: a page is free again when its last reference drops") {
  PrefixIndex index(2, 4, 0);
  PagePool pool(2, &index);
  const PageId page = pool.Allocate();
  pool.AddReference(page);
  pool.Release(page);
  CHECK(pool.num_available() == 1);
  pool.Release(page);
  CHECK(pool.num_available() == 2);
  CHECK(pool.num_idle() == 0);
  CHECK(pool.IsConsistent());
}

TEST_CASE("PagePool: named pages stay findable when unused, and the longest idle one is taken back first") {
  PrefixIndex index(3, 2, 0);
  PagePool pool(3, &index);
  const std::vector<std::vector<int32_t>> tokens = {{1, 2}, {3, 4}, {5, 6}};
  std::vector<PageId> pages;
  for (const auto& content : tokens) {
    pages.push_back(pool.Allocate());
    index.Insert(pages.back(), Content(index, content));
  }
  pool.Release(pages[1]);
  pool.Release(pages[0]);
  pool.Release(pages[2]);
  CHECK(pool.num_idle() == 3);
  CHECK(index.Find(Content(index, tokens[1])) == pages[1]);
  CHECK(pool.Allocate() == pages[1]);
  CHECK(index.Find(Content(index, tokens[1])) == -1);
  pool.AddReference(pages[0]);  // found again: no longer idle
  CHECK(pool.Allocate() == pages[2]);
  CHECK(pool.num_available() == 0);
  CHECK(pool.IsConsistent());
}

TEST_CASE("PagePool: forgetting turns idle pages into free ones and leaves used ones to their users") {
  PrefixIndex index(2, 2, 0);
  PagePool pool(2, &index);
  const std::vector<int32_t> first = {1, 2}, second = {3, 4};
  const PageId used = pool.Allocate(), idle = pool.Allocate();
  index.Insert(used, Content(index, first));
  index.Insert(idle, Content(index, second));
  pool.Release(idle);
  pool.ForgetIdle(std::nullopt);
  CHECK(pool.num_idle() == 0);
  CHECK(index.Find(Content(index, first)) == used);
  pool.Forget(used);
  CHECK(index.num_entries() == 0);
  pool.Release(used);
  CHECK(pool.num_available() == 2);
  CHECK(pool.IsConsistent());
}

TEST_CASE("PrefixIndex: a name depends on tokens, parent, salt and key") {
  PrefixIndex index(1, 3, 5), other_key(1, 3, 6);
  const std::vector<int32_t> tokens = {1, 2, 3}, swapped = {2, 1, 3};
  const PageHash hash = index.Hash({}, 0, tokens);
  CHECK(hash == index.Hash({}, 0, tokens));
  CHECK_FALSE(hash == index.Hash({}, 0, swapped));
  CHECK_FALSE(hash == index.Hash({}, 1, tokens));
  CHECK_FALSE(hash == index.Hash(hash, 0, tokens));
  CHECK_FALSE(hash == other_key.Hash({}, 0, tokens));
}

TEST_CASE("PrefixIndex: an equal hash over other tokens is no match") {
  PrefixIndex index(1, 2, 0);
  const std::vector<int32_t> tokens = {1, 2}, others = {3, 4};
  PageContent content = Content(index, tokens);
  index.Insert(0, content);
  CHECK(index.Find(content) == 0);
  content.tokens = others;
  CHECK(index.Find(content) == -1);
  content = Content(index, tokens);
  content.salt = 9;
  CHECK(index.Find(content) == -1);
}

}  // namespace
}  // namespace millrace
