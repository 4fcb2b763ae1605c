// SPDX-License-Identifier: Apache-2.0
#include "engine/text/precompiled_charsmap.h"

#include <absl/status/status.h>
#include <absl/strings/escaping.h>
#include <unicode/ubrk.h>
#include <unicode/utext.h>

#include <cstring>
#include <memory>

#include "engine/text/utf8.h"

namespace millrace {
namespace {

constexpr size_t kMaxClusterBytes = 6;
constexpr size_t kMaxEntryBytes = 256;

struct CloseBreaks {
  void operator()(UBreakIterator* p) const { ubrk_close(p); }
  void operator()(UText* p) const { utext_close(p); }
};

bool IsPlainAscii(std::string_view text) {
  return std::all_of(text.begin(), text.end(), [](char c) { return static_cast<signed char>(c) > 0 && c != '\r'; });
}

// Borders of grapheme clusters. Without ICU's rules (no data installed) every character is its own.
std::vector<size_t> ClusterEnds(std::string_view text) {
  std::vector<size_t> ends;
  if (!IsPlainAscii(text)) {
    UErrorCode error = U_ZERO_ERROR;
    const std::unique_ptr<UText, CloseBreaks> view(
        utext_openUTF8(nullptr, text.data(), static_cast<int64_t>(text.size()), &error));
    const std::unique_ptr<UBreakIterator, CloseBreaks> breaks(ubrk_open(UBRK_CHARACTER, "en", nullptr, 0, &error));
    if (U_SUCCESS(error)) ubrk_setUText(breaks.get(), view.get(), &error);
    if (U_SUCCESS(error)) {
      ubrk_first(breaks.get());
      for (int32_t end = ubrk_next(breaks.get()); end != UBRK_DONE; end = ubrk_next(breaks.get())) {
        ends.push_back(static_cast<size_t>(end));
      }
      return ends;
    }
  }
  for (size_t i = 0; i < text.size();) {
    i += Utf8At(text, i).num_bytes;
    ends.push_back(i);
  }
  return ends;
}

// The fields of a unit of the double array.
bool HasLeaf(uint32_t unit) { return ((unit >> 8) & 1) == 1; }
uint32_t Value(uint32_t unit) { return unit & 0x7FFFFFFFu; }
uint32_t Label(uint32_t unit) { return unit & 0x800000FFu; }
uint32_t Offset(uint32_t unit) { return (unit >> 10) << ((unit & (1u << 9)) >> 6); }

}  // namespace

absl::StatusOr<PrecompiledCharsmap> PrecompiledCharsmap::Parse(std::string_view base64) {
  std::string bytes;
  if (!absl::Base64Unescape(absl::string_view(base64.data(), base64.size()), &bytes)) {
    return absl::InvalidArgumentError("normalizer Precompiled: precompiled_charsmap is not base64");
  }
  uint32_t trie_bytes = 0;
  if (bytes.size() < 4) return absl::InvalidArgumentError("normalizer Precompiled: precompiled_charsmap is too short");
  std::memcpy(&trie_bytes, bytes.data(), 4);
  if (trie_bytes % 4 != 0 || trie_bytes > bytes.size() - 4 || trie_bytes == 0) {
    return absl::InvalidArgumentError("normalizer Precompiled: the trie's size is not that of its data");
  }
  PrecompiledCharsmap map;
  map.trie_.resize(trie_bytes / 4);
  std::memcpy(map.trie_.data(), bytes.data() + 4, trie_bytes);
  map.strings_ = bytes.substr(4 + trie_bytes);
  map.strings_.push_back('\0');
  if (!IsValidUtf8(map.strings_)) {
    return absl::InvalidArgumentError("normalizer Precompiled: the table holds broken UTF-8");
  }
  for (size_t begin = 0, end; begin < map.strings_.size(); begin = end + 1) {
    end = map.strings_.find('\0', begin);
    if (end - begin > kMaxEntryBytes) {
      return absl::InvalidArgumentError("normalizer Precompiled: an entry of more than 256 bytes");
    }
  }
  return map;
}

std::optional<std::string_view> PrecompiledCharsmap::Find(std::string_view text) const {
  size_t node = Offset(trie_[0]);
  for (const char c : text) {
    const auto byte = static_cast<uint8_t>(c);
    if (byte == 0) return std::nullopt;
    node ^= byte;
    if (node >= trie_.size()) return std::nullopt;
    const uint32_t unit = trie_[node];
    if (Label(unit) != byte) return std::nullopt;
    node ^= Offset(unit);
    if (node >= trie_.size()) return std::nullopt;
    if (!HasLeaf(unit)) continue;
    const size_t begin = Value(trie_[node]);
    if (begin >= strings_.size()) return std::nullopt;
    const std::string_view found(strings_.c_str() + begin);
    // A lying offset may point inside a character.
    return IsValidUtf8(found) ? std::optional<std::string_view>(found) : std::nullopt;
  }
  return std::nullopt;
}

void PrecompiledCharsmap::ApplyToCluster(const TrackedText& text, size_t begin, size_t end,
                                         TrackedWriter& writer) const {
  const std::string_view bytes = text.bytes;
  if (end - begin < kMaxClusterBytes) {
    if (const auto found = Find(bytes.substr(begin, end - begin))) return writer.Write(*found, begin, end);
  }
  for (size_t i = begin; i < end;) {
    const size_t next = i + Utf8At(bytes, i).num_bytes;
    if (const auto found = Find(bytes.substr(i, next - i))) {
      writer.Write(*found, i, next);
    } else {
      writer.Copy(i, next);
    }
    i = next;
  }
}

void PrecompiledCharsmap::Apply(TrackedText& text) const {
  TrackedWriter writer(text);
  size_t begin = 0;
  for (const size_t end : ClusterEnds(text.bytes)) {
    ApplyToCluster(text, begin, end, writer);
    begin = end;
  }
  text = writer.Take();
}

}  // namespace millrace
