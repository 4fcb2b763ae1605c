// SPDX-License-Identifier: Apache-2.0
// ByteTrie: all strings of a set that begin at a place of a text. Built by one thread, constant afterwards.
#pragma once

#include <array>
#include <cstdint>
#include <string_view>
#include <utility>
#include <vector>

namespace millrace {

class ByteTrie {
 public:
  ByteTrie() { roots_.fill(-1); }
  // Of strings (not empty) and their values (>= 0); the least value counts when a string comes twice.
  explicit ByteTrie(std::vector<std::pair<std::string_view, int32_t>> entries);

  // Whether some string begins with this byte.
  bool MayBegin(char first) const { return roots_[static_cast<uint8_t>(first)] >= 0; }

  // Calls found(num_bytes, value) for each string that `text` begins with, the shortest first.
  template <class Found>
  void ForEachPrefix(std::string_view text, Found&& found) const {
    if (text.empty()) return;
    int32_t node = roots_[static_cast<uint8_t>(text[0])];
    for (size_t i = 1; node >= 0; ++i) {
      if (nodes_[node].value >= 0) found(i, nodes_[node].value);
      if (i == text.size()) return;
      node = ChildOf(node, static_cast<uint8_t>(text[i]));
    }
  }

 private:
  struct Node {
    uint32_t first_child = 0;
    uint16_t num_children = 0;
    uint8_t byte = 0;
    int32_t value = -1;
  };

  int32_t ChildOf(int32_t node, uint8_t byte) const {
    uint32_t low = nodes_[node].first_child;
    uint32_t high = low + nodes_[node].num_children;
    while (low < high) {  // children are sorted by byte
      const uint32_t middle = (low + high) / 2;
      if (nodes_[middle].byte == byte) return static_cast<int32_t>(middle);
      if (nodes_[middle].byte < byte) {
        low = middle + 1;
      } else {
        high = middle;
      }
    }
    return -1;
  }

  std::vector<Node> nodes_;
  std::array<int32_t, 256> roots_;
};

}  // namespace millrace
