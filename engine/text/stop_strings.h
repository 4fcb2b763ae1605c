// SPDX-License-Identifier: Apache-2.0
// StopMatcher: ends a text at the first of several stop strings, wherever the pieces that it arrives in are cut, and
// holds back only what may still become one. Owned by one request, used by one thread at a time.
#pragma once

#include <absl/status/statusor.h>

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace millrace {

enum class IncludeStop : uint8_t { kNo, kYes };

// Aho and Corasick, "Efficient string matching", 1975. Time is linear in the text, whatever the stop strings.
class StopMatcher {
 public:
  // InvalidArgument for an empty stop string, or more than 64 KiB of them. None at all is fine and holds nothing back.
  static absl::StatusOr<StopMatcher> Create(const std::vector<std::string>& stops, IncludeStop include);

  // Takes the next piece and appends what can no longer belong to a stop string. True once a stop string is complete:
  // the text is cut in front of it (or behind it, with IncludeStop::kYes) and all further pieces are ignored. The stop
  // string that is complete first counts; of several complete at the same place, the longest.
  bool Push(std::string_view piece, std::string& out);

  // The text ended without a stop string: appends what was held back.
  void Flush(std::string& out);

  // Which of the stop strings was found.
  std::optional<size_t> matched_index() const { return matched_index_; }
  size_t held_bytes() const { return held_.size(); }

 private:
  struct Node {
    int32_t first_child = -1;
    int32_t next_sibling = -1;
    int32_t fallback = 0;    // the longest proper suffix of this node's string that is a node too
    int32_t stop = -1;       // the longest stop string that ends here
    uint32_t num_bytes = 0;  // of this node's string
    char byte = 0;
  };

  StopMatcher() : nodes_(1) {}
  int32_t ChildOf(int32_t node, char byte) const;
  void Insert(std::string_view stop, int32_t index);
  void LinkFallbacks();

  std::vector<Node> nodes_;           // constant after Create
  std::vector<uint32_t> stop_bytes_;  // constant after Create
  IncludeStop include_ = IncludeStop::kNo;
  int32_t state_ = 0;
  std::string held_;
  std::optional<size_t> matched_index_;
};

}  // namespace millrace
