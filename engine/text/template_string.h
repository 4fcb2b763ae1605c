// SPDX-License-Identifier: Apache-2.0
#pragma once
// A string that remembers where each of its bytes came from: written by the template's author, or data of a request.
// Only the author's bytes may become control tokens, so every string operation of the template engine keeps the
// runs apart. Immutable and cheap to copy; copies may be read from any thread.
#include <cstddef>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace millrace {

enum class TextOrigin : bool { kData = false, kTemplate = true };

// Bytes [end of the run before, end) share one origin.
struct TextRun {
  size_t end = 0;
  TextOrigin origin = TextOrigin::kData;
};

class TemplateString {
 public:
  TemplateString() = default;  // empty
  TemplateString(std::string text, TextOrigin origin);

  std::string_view view() const { return rep_ ? std::string_view(rep_->text) : std::string_view(); }
  size_t size_bytes() const { return rep_ ? rep_->text.size() : 0; }
  bool is_empty() const { return size_bytes() == 0; }
  // Runs in order, adjacent ones of different origin; empty for the empty string.
  std::vector<TextRun> runs() const;
  bool is_all(TextOrigin origin) const;

  // Bytes [begin, end). REQUIRES: begin <= end <= size_bytes().
  TemplateString Slice(size_t begin, size_t end) const;
  // The same bytes, all counted as data: for transformations that lose track.
  TemplateString AsData() const;
  // Marked as HTML-safe by the `safe` filter; it only answers the test `escaped`.
  TemplateString AsMarkup() const;
  bool is_markup() const { return rep_ != nullptr && rep_->is_markup; }

 private:
  friend class TemplateStringBuilder;
  struct Rep {
    std::string text;
    std::vector<TextRun> mixed;  // empty when all bytes have `origin`
    TextOrigin origin = TextOrigin::kData;
    bool is_markup = false;
  };
  std::shared_ptr<const Rep> rep_;
};

// Collects pieces; one thread.
class TemplateStringBuilder {
 public:
  void Append(std::string_view text, TextOrigin origin);
  void Append(const TemplateString& text) { AppendSlice(text, 0, text.size_bytes()); }
  // REQUIRES: begin <= end <= text.size_bytes().
  void AppendSlice(const TemplateString& text, size_t begin, size_t end);
  void Reserve(size_t text_bytes) { text_.reserve(text_bytes); }
  size_t size_bytes() const { return text_.size(); }
  // Leaves the builder empty.
  TemplateString Build();

 private:
  void Extend(TextOrigin origin);

  std::string text_;
  std::vector<TextRun> runs_;
};

}  // namespace millrace
