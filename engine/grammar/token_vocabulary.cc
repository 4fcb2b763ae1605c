// SPDX-License-Identifier: Apache-2.0
#include "engine/grammar/token_vocabulary.h"

#include <algorithm>

namespace millrace {
namespace {

constexpr size_t kMaxTokenBytes = 4096;

}  // namespace

TokenVocabulary::TokenVocabulary(const Tokenizer& tokenizer, int32_t num_ids)
    : tokenizer_(tokenizer), num_ids_(num_ids), is_control_(static_cast<size_t>(num_ids), 0) {
  std::vector<std::pair<std::string_view, int32_t>> entries;
  for (int32_t id = 0; id < std::min(num_ids, tokenizer.vocab_size()); ++id) {
    if (!tokenizer.HasId(id)) continue;
    const std::string_view bytes = tokenizer.TokenBytes(id);
    if (tokenizer.IsControl(id)) {
      controls_.push_back(id);
      is_control_[static_cast<size_t>(id)] = 1;
    } else if (!bytes.empty() && bytes.size() <= kMaxTokenBytes) {
      entries.emplace_back(bytes, id);
    }
  }
  std::sort(entries.begin(), entries.end());
  std::vector<uint32_t> path;  // nodes of the entry before
  std::string_view before;
  const auto close = [&](size_t depth) {
    for (; path.size() > depth; path.pop_back()) nodes_[path.back()].behind = static_cast<uint32_t>(nodes_.size());
  };
  for (const auto& [bytes, id] : entries) {
    const auto shared = std::mismatch(bytes.begin(), bytes.end(), before.begin(), before.end()).first - bytes.begin();
    close(static_cast<size_t>(shared));
    for (size_t depth = path.size(); depth < bytes.size(); ++depth) {
      path.push_back(static_cast<uint32_t>(nodes_.size()));
      nodes_.push_back({.byte = static_cast<uint8_t>(bytes[depth]), .depth = static_cast<uint16_t>(depth)});
    }
    Node& node = nodes_[path.back()];
    if (node.num_tokens++ == 0) node.first_token = static_cast<uint32_t>(tokens_.size());
    tokens_.push_back(id);
    before = bytes;
  }
  close(0);
}

std::optional<int32_t> TokenVocabulary::FindControl(std::string_view name) const {
  const auto id = tokenizer_.TokenToId(name);
  if (!id.has_value() || *id >= num_ids_ || !is_control(*id)) return std::nullopt;
  return id;
}

}  // namespace millrace
