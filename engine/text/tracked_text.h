// SPDX-License-Identifier: Apache-2.0
// TrackedText: text on its way through the normalizers, remembering which bytes came from a user, so that a control
// token is never recognised in what a user wrote, however it was normalised. One call's data.
#pragma once

#include <algorithm>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace millrace {

struct TrackedText {
  std::string bytes;
  // One flag for each byte: 1 where any source of it was a user's. Empty: not tracked (all of one origin).
  std::vector<uint8_t> from_user;

  bool is_tracked() const { return !from_user.empty(); }
};

// Writes the new version of a text from left to right.
class TrackedWriter {
 public:
  explicit TrackedWriter(const TrackedText& source) : source_(source) { out_.bytes.reserve(source.bytes.size() + 16); }

  // Appends `text`, which stands for the source bytes [begin, end).
  void Write(std::string_view text, size_t begin, size_t end) {
    out_.bytes.append(text);
    if (!source_.is_tracked()) return;
    const auto first = source_.from_user.begin() + static_cast<ptrdiff_t>(begin);
    const auto last = source_.from_user.begin() + static_cast<ptrdiff_t>(end);
    const uint8_t flag = std::find(first, last, 1) == last ? 0 : 1;
    out_.from_user.insert(out_.from_user.end(), text.size(), flag);
  }

  // Appends the source bytes [begin, end) as they are.
  void Copy(size_t begin, size_t end) {
    out_.bytes.append(source_.bytes, begin, end - begin);
    if (!source_.is_tracked()) return;
    const auto first = source_.from_user.begin() + static_cast<ptrdiff_t>(begin);
    out_.from_user.insert(out_.from_user.end(), first, first + static_cast<ptrdiff_t>(end - begin));
  }

  TrackedText Take() { return std::move(out_); }

 private:
  const TrackedText& source_;
  TrackedText out_;
};

}  // namespace millrace
