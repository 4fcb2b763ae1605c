// SPDX-License-Identifier: Apache-2.0
#include "engine/text/added_tokens.h"

#include <algorithm>
#include <cstring>

#include "engine/text/unicode.h"
#include "engine/text/utf8.h"

namespace millrace {
namespace {

bool IsAloneAsWord(std::string_view text, size_t begin, size_t end) {
  const bool free_left = begin == 0 || !IsWordChar(Utf8Before(text, begin).code_point);
  const bool free_right = end == text.size() || !IsWordChar(Utf8At(text, end).code_point);
  return free_left && free_right;
}

size_t SkipSpacesLeft(std::string_view text, size_t begin, size_t limit) {
  while (begin > limit) {
    const Utf8Char c = Utf8Before(text, begin);
    if (!IsWhiteSpace(c.code_point)) break;
    begin -= c.num_bytes;
  }
  return std::max(begin, limit);
}

size_t SkipSpacesRight(std::string_view text, size_t end) {
  while (end < text.size()) {
    const Utf8Char c = Utf8At(text, end);
    if (!IsWhiteSpace(c.code_point)) break;
    end += c.num_bytes;
  }
  return end;
}

std::vector<std::pair<std::string_view, int32_t>> Entries(const std::vector<std::string>& patterns) {
  std::vector<std::pair<std::string_view, int32_t>> entries;
  entries.reserve(patterns.size());
  for (size_t i = 0; i < patterns.size(); ++i) entries.emplace_back(patterns[i], static_cast<int32_t>(i));
  return entries;
}

}  // namespace

bool IsControlToken(const AddedToken& token) {
  if (token.special) return true;
  for (size_t i = 0; i < token.content.size();) {
    const Utf8Char c = Utf8At(token.content, i);
    if (!IsWhiteSpace(c.code_point) && c.code_point != 0x2581) return true;
    i += c.num_bytes;
  }
  return false;
}

AddedTokenFinder::AddedTokenFinder(const std::vector<AddedToken>& tokens, const std::vector<std::string>& patterns)
    : trie_(Entries(patterns)) {
  for (const AddedToken& token : tokens) {
    tokens_.push_back({token.id, token.lstrip, token.rstrip, token.single_word, IsControlToken(token)});
  }
}

void AddedTokenFinder::Split(std::string_view text, const std::vector<uint8_t>& from_user, bool all_from_user,
                             std::vector<Part>& parts) const {
  size_t text_begin = 0;  // of the text not yet in a part
  for (size_t i = 0; i < text.size();) {
    if (!trie_.MayBegin(text[i])) {
      ++i;
      continue;
    }
    size_t match_bytes = 0;
    int32_t match = -1;
    const auto is_user = [&](size_t num_bytes) {
      return all_from_user || (!from_user.empty() && std::memchr(from_user.data() + i, 1, num_bytes) != nullptr);
    };
    trie_.ForEachPrefix(text.substr(i), [&](size_t num_bytes, int32_t index) {
      if (tokens_[index].is_control && is_user(num_bytes)) return;
      match_bytes = num_bytes;
      match = index;
    });
    if (match < 0) {
      ++i;
      continue;
    }
    const Entry& entry = tokens_[match];
    size_t begin = i;
    size_t end = i + match_bytes;
    i = end;
    if (entry.single_word && !IsAloneAsWord(text, begin, end)) continue;
    if (entry.lstrip) begin = SkipSpacesLeft(text, begin, text_begin);
    if (entry.rstrip) end = SkipSpacesRight(text, end);
    if (text_begin < begin) parts.push_back({text_begin, begin, -1});
    parts.push_back({begin, end, entry.id});
    text_begin = i = end;
  }
  if (text_begin < text.size()) parts.push_back({text_begin, text.size(), -1});
}

}  // namespace millrace
