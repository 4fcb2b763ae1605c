// SPDX-License-Identifier: Apache-2.0
#include "engine/text/stop_strings.h"

#include <absl/status/status.h>
#include <absl/strings/str_cat.h>

namespace millrace {
namespace {

constexpr size_t kMaxStopBytes = 64 * 1024;

}  // namespace

absl::StatusOr<StopMatcher> StopMatcher::Create(const std::vector<std::string>& stops, IncludeStop include) {
  StopMatcher matcher;
  matcher.include_ = include;
  size_t num_bytes = 0;
  for (const std::string& stop : stops) {
    num_bytes += stop.size();
    if (stop.empty()) return absl::InvalidArgumentError("a stop string is empty");
    if (num_bytes > kMaxStopBytes) {
      return absl::InvalidArgumentError(absl::StrCat("the stop strings have more than ", kMaxStopBytes, " bytes"));
    }
    matcher.Insert(stop, static_cast<int32_t>(matcher.stop_bytes_.size()));
    matcher.stop_bytes_.push_back(static_cast<uint32_t>(stop.size()));
  }
  matcher.LinkFallbacks();
  return matcher;
}

int32_t StopMatcher::ChildOf(int32_t node, char byte) const {
  int32_t child = nodes_[node].first_child;
  while (child >= 0 && nodes_[child].byte != byte) child = nodes_[child].next_sibling;
  return child;
}

void StopMatcher::Insert(std::string_view stop, int32_t index) {
  int32_t node = 0;
  for (const char byte : stop) {
    int32_t child = ChildOf(node, byte);
    if (child < 0) {
      child = static_cast<int32_t>(nodes_.size());
      Node fresh;
      fresh.next_sibling = nodes_[node].first_child;
      fresh.num_bytes = nodes_[node].num_bytes + 1;
      fresh.byte = byte;
      nodes_.push_back(fresh);
      nodes_[node].first_child = child;
    }
    node = child;
  }
  if (nodes_[node].stop < 0) nodes_[node].stop = index;
}

// Level by level, so that a node's fallback, which is shorter, is done before the node.
void StopMatcher::LinkFallbacks() {
  std::vector<int32_t> order{0};
  for (size_t i = 0; i < order.size(); ++i) {
    const int32_t parent = order[i];
    for (int32_t child = nodes_[parent].first_child; child >= 0; child = nodes_[child].next_sibling) {
      order.push_back(child);
      int32_t fallback = 0;
      if (parent != 0) {
        int32_t candidate = nodes_[parent].fallback;
        while (candidate != 0 && ChildOf(candidate, nodes_[child].byte) < 0) candidate = nodes_[candidate].fallback;
        fallback = std::max(ChildOf(candidate, nodes_[child].byte), 0);
      }
      nodes_[child].fallback = fallback;
      if (nodes_[child].stop < 0) nodes_[child].stop = nodes_[fallback].stop;
    }
  }
}

bool StopMatcher::Push(std::string_view piece, std::string& out) {
  if (matched_index_) return true;
  const size_t held_before = held_.size();
  held_.append(piece);
  for (size_t i = held_before; i < held_.size(); ++i) {
    int32_t next = ChildOf(state_, held_[i]);
    while (next < 0 && state_ != 0) {
      state_ = nodes_[state_].fallback;
      next = ChildOf(state_, held_[i]);
    }
    state_ = next < 0 ? 0 : next;
    const int32_t stop = nodes_[state_].stop;
    if (stop < 0) continue;
    matched_index_ = static_cast<size_t>(stop);
    const size_t end = i + 1;
    out.append(held_, 0, include_ == IncludeStop::kYes ? end : end - stop_bytes_[stop]);
    held_.clear();
    return true;
  }
  const size_t certain_bytes = held_.size() - nodes_[state_].num_bytes;
  out.append(held_, 0, certain_bytes);
  held_.erase(0, certain_bytes);
  return false;
}

void StopMatcher::Flush(std::string& out) {
  if (!matched_index_) out.append(held_);
  held_.clear();
  state_ = 0;
}

}  // namespace millrace
