// SPDX-License-Identifier: Apache-2.0
#include "engine/text/byte_trie.h"

#include <algorithm>

namespace millrace {

// Level by level: a node stands for the range of sorted strings that share its prefix.
ByteTrie::ByteTrie(std::vector<std::pair<std::string_view, int32_t>> entries) {
  roots_.fill(-1);
  std::erase_if(entries, [](const auto& entry) { return entry.first.empty(); });
  std::sort(entries.begin(), entries.end());
  struct Range {
    size_t begin;
    size_t end;
  };
  std::vector<Range> ranges;  // of each node
  // Adds the nodes for the distinct bytes at `depth` of entries [begin, end).
  const auto add_children = [&](size_t begin, size_t end, size_t depth) {
    for (size_t i = begin; i < end;) {
      const char byte = entries[i].first[depth];
      size_t j = i;
      while (j < end && entries[j].first[depth] == byte) ++j;
      nodes_.push_back({0, 0, static_cast<uint8_t>(byte), -1});
      ranges.push_back({i, j});
      i = j;
    }
  };
  add_children(0, entries.size(), 0);
  for (size_t i = 0; i < nodes_.size(); ++i) roots_[nodes_[i].byte] = static_cast<int32_t>(i);
  size_t level_begin = 0;
  for (size_t depth = 1; level_begin < nodes_.size(); ++depth) {
    const size_t level_end = nodes_.size();
    for (size_t i = level_begin; i < level_end; ++i) {
      auto [begin, end] = ranges[i];
      if (entries[begin].first.size() == depth) nodes_[i].value = entries[begin].second;
      while (begin < end && entries[begin].first.size() == depth) ++begin;
      const size_t first_child = nodes_.size();
      add_children(begin, end, depth);
      nodes_[i].first_child = static_cast<uint32_t>(first_child);
      nodes_[i].num_children = static_cast<uint16_t>(nodes_.size() - first_child);
    }
    level_begin = level_end;
  }
}

}  // namespace millrace
