// SPDX-License-Identifier: Apache-2.0
#include "engine/text/jinja_lexer.h"

#include <algorithm>
#include <charconv>

#include "absl/strings/str_cat.h"
#include "engine/text/jinja_text.h"
#include "kernels/status_macros.h"

namespace millrace {
namespace {

bool IsNameStart(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_' || static_cast<unsigned char>(c) >= 0x80;
}
bool IsDigit(char c) { return c >= '0' && c <= '9'; }

int HexDigit(char c) {
  if (IsDigit(c)) return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  if (c >= 'A' && c <= 'F') return c - 'A' + 10;
  return -1;
}

// "\r\n" and "\r" become "\n"; one newline at the very end is dropped, as Jinja2 does by default.
std::string NormalizeNewlines(std::string_view source) {
  std::string out;
  out.reserve(source.size());
  for (size_t i = 0; i < source.size(); ++i) {
    if (source[i] == '\r') {
      out += '\n';
      if (i + 1 < source.size() && source[i + 1] == '\n') ++i;
    } else {
      out += source[i];
    }
  }
  if (!out.empty() && out.back() == '\n') out.pop_back();
  return out;
}

class Lexer {
 public:
  explicit Lexer(std::string source) : source_(std::move(source)), text_(source_) {}

  absl::StatusOr<std::vector<JinjaToken>> Run() {
    while (position_ < text_.size()) RETURN_IF_ERROR(LexRoot());
    Push(JinjaTokenKind::kEnd);
    return std::move(tokens_);
  }

 private:
  bool StartsWith(std::string_view prefix) const { return text_.substr(position_, prefix.size()) == prefix; }

  void Push(JinjaTokenKind kind, std::string text = {}) {
    JinjaToken token;
    token.kind = kind;
    token.line = line_;
    token.text = std::move(text);
    tokens_.push_back(std::move(token));
  }

  void AdvanceTo(size_t position) {
    line_ += static_cast<int>(std::count(text_.begin() + static_cast<ptrdiff_t>(position_),
                                         text_.begin() + static_cast<ptrdiff_t>(position), '\n'));
    position_ = position;
  }

  size_t SkipSpace(size_t position) const {
    while (position < text_.size() && IsPythonSpace(CharAt(text_, position))) position += CharBytes(text_, position);
    return position;
  }

  // Text up to the next tag, then the tag.
  absl::Status LexRoot() {
    const size_t open = FindTag();
    if (open == text_.npos) {
      Push(JinjaTokenKind::kData, std::string(text_.substr(position_)));
      AdvanceTo(text_.size());
      return absl::OkStatus();
    }
    const char kind = text_[open + 1];
    const char sign = open + 2 < text_.size() ? text_[open + 2] : ' ';
    const bool has_sign = sign == '-' || sign == '+';
    PushData(open, has_sign ? sign : ' ', /*may_lstrip=*/kind != '{');
    AdvanceTo(open + 2 + (has_sign ? 1 : 0));
    if (kind == '#') return LexComment();
    if (kind == '%') {
      const size_t after = MatchWord(position_, "raw");
      const size_t end = after == text_.npos ? text_.npos : MatchTagEnd(after, "%}", /*trims_newline=*/false);
      if (end != text_.npos) return LexRaw(end);
    }
    Push(kind == '{' ? JinjaTokenKind::kVariableBegin : JinjaTokenKind::kBlockBegin);
    return LexTag(kind == '{' ? "}}" : "%}");
  }

  size_t FindTag() const {
    for (size_t at = text_.find('{', position_); at != text_.npos; at = text_.find('{', at + 1)) {
      if (at + 1 < text_.size() && (text_[at + 1] == '{' || text_[at + 1] == '%' || text_[at + 1] == '#')) return at;
    }
    return text_.npos;
  }

  // The data before a tag, trimmed as the tag's sign and lstrip_blocks ask.
  void PushData(size_t end, char sign, bool may_lstrip) {
    std::string_view data = text_.substr(position_, end - position_);
    if (sign == '-') {
      data = data.substr(0, StripRange(data, StripSide::kRight).end);
    } else if (sign != '+' && may_lstrip) {
      const size_t line_start = data.rfind('\n') + 1;  // npos + 1 is 0
      const std::string_view tail = data.substr(line_start);
      const bool is_blank = StripSpace(tail).end == StripSpace(tail).begin;
      if ((line_start > 0 || is_line_start_) && is_blank) data = data.substr(0, line_start);
    }
    if (!data.empty()) Push(JinjaTokenKind::kData, std::string(data));
  }

  // After `word` with white space around, or npos.
  size_t MatchWord(size_t position, std::string_view word) const {
    position = SkipSpace(position);
    if (text_.substr(position, word.size()) != word) return text_.npos;
    return SkipSpace(position + word.size());
  }

  // After "-%}" with white space, "+%}" or "%}" (with a newline where trim_blocks applies), or npos.
  size_t MatchTagEnd(size_t position, std::string_view close, bool trims_newline, bool takes_plus = false) const {
    if (position < text_.size() && text_[position] == '-' && text_.substr(position + 1, 2) == close) {
      return SkipSpace(position + 3);
    }
    if (takes_plus && position < text_.size() && text_[position] == '+' && text_.substr(position + 1, 2) == close) {
      return position + 3;
    }
    if (text_.substr(position, 2) != close) return text_.npos;
    position += 2;
    if (trims_newline && position < text_.size() && text_[position] == '\n') ++position;
    return position;
  }

  void FinishTag(size_t end) {
    AdvanceTo(end);
    is_line_start_ = end > 0 && text_[end - 1] == '\n';
  }

  absl::Status LexComment() {
    const int line = line_;
    for (size_t at = text_.find("#}", position_); at != text_.npos; at = text_.find("#}", at + 1)) {
      const bool has_sign = at > position_ && (text_[at - 1] == '-' || text_[at - 1] == '+');
      FinishTag(MatchTagEnd(has_sign ? at - 1 : at, "#}", /*trims_newline=*/true, /*takes_plus=*/true));
      return absl::OkStatus();
    }
    return JinjaError(line, "the comment is not closed");
  }

  absl::Status LexRaw(size_t body) {
    const int line = line_;
    FinishTag(body);
    for (size_t at = text_.find("{%", position_); at != text_.npos; at = text_.find("{%", at + 1)) {
      const char sign = at + 2 < text_.size() ? text_[at + 2] : ' ';
      const bool has_sign = sign == '-' || sign == '+';
      const size_t after = MatchWord(at + 2 + (has_sign ? 1 : 0), "endraw");
      if (after == text_.npos) continue;
      const size_t end = MatchTagEnd(after, "%}", /*trims_newline=*/true, /*takes_plus=*/true);
      if (end == text_.npos) continue;
      PushData(at, has_sign ? sign : ' ', /*may_lstrip=*/true);
      FinishTag(end);
      return absl::OkStatus();
    }
    return JinjaError(line, "the raw block is not closed");
  }

  // Tokens of one tag up to and with its end.
  absl::Status LexTag(std::string_view close) {
    const int line = line_;
    const bool is_block = close == "%}";
    std::string open_brackets;
    while (true) {
      AdvanceTo(SkipSpace(position_));
      if (position_ >= text_.size()) return JinjaError(line, "the tag is not closed");
      if (open_brackets.empty()) {
        const size_t end = MatchTagEnd(position_, close, /*trims_newline=*/is_block, /*takes_plus=*/is_block);
        if (end != text_.npos) {
          Push(is_block ? JinjaTokenKind::kBlockEnd : JinjaTokenKind::kVariableEnd);
          FinishTag(end);
          return absl::OkStatus();
        }
      }
      RETURN_IF_ERROR(LexToken(open_brackets));
    }
  }

  absl::Status LexToken(std::string& open_brackets) {
    const char c = text_[position_];
    if (IsDigit(c)) return LexNumber();
    if (IsNameStart(c)) {
      size_t end = position_;
      while (end < text_.size() && (IsNameStart(text_[end]) || IsDigit(text_[end]))) ++end;
      Push(JinjaTokenKind::kName, std::string(text_.substr(position_, end - position_)));
      AdvanceTo(end);
      return absl::OkStatus();
    }
    if (c == '\'' || c == '"') return LexString(c);
    return LexOperator(open_brackets);
  }

  absl::Status LexOperator(std::string& open_brackets) {
    static constexpr std::string_view kOperators[] = {"//", "**", "==", "!=", ">=", "<=", "+", "-", "/",
                                                      "*",  "%",  "~",  "[",  "]",  "(",  ")", "{", "}",
                                                      ">",  "<",  "=",  ".",  ":",  "|",  ",", ";"};
    for (const std::string_view candidate : kOperators) {
      if (!StartsWith(candidate)) continue;
      const char c = candidate[0];
      if (c == '(') open_brackets += ')';
      if (c == '[') open_brackets += ']';
      if (c == '{') open_brackets += '}';
      if (c == ')' || c == ']' || c == '}') {
        if (open_brackets.empty()) return JinjaError(line_, ConcatText({"unexpected '", candidate, "'"}));
        if (open_brackets.back() != c) {
          return JinjaError(line_, ConcatText({"unexpected '", candidate, "', expected '",
                                               std::string_view(&open_brackets.back(), 1), "'"}));
        }
        open_brackets.pop_back();
      }
      Push(JinjaTokenKind::kOperator, std::string(candidate));
      AdvanceTo(position_ + candidate.size());
      return absl::OkStatus();
    }
    return JinjaError(line_, ConcatText({"unexpected character '", text_.substr(position_, 1), "'"}));
  }

  absl::Status LexNumber() {
    // Digits with underscores between; a fraction or exponent makes it a float.
    size_t end = position_;
    int base = 10;
    if (text_[end] == '0' && end + 1 < text_.size()) {
      const char mark = static_cast<char>(text_[end + 1] | 0x20);
      base = mark == 'x' ? 16 : mark == 'o' ? 8 : mark == 'b' ? 2 : 10;
      if (base != 10) end += 2;
    }
    std::string digits;
    const auto take_digits = [&](int digit_base) {
      const size_t before = digits.size();
      while (end < text_.size()) {
        const int value = HexDigit(text_[end]);
        if (value >= 0 && value < digit_base) {
          digits += text_[end];
        } else if (text_[end] != '_' || end + 1 >= text_.size() || HexDigit(text_[end + 1]) < 0) {
          break;
        }
        ++end;
      }
      return digits.size() > before;
    };
    if (!take_digits(base)) return JinjaError(line_, "a number without digits");
    bool is_float = false;
    if (base == 10) {
      if (end + 1 < text_.size() && text_[end] == '.' && IsDigit(text_[end + 1])) {
        is_float = true;
        digits += '.';
        ++end;
        take_digits(10);
      }
      size_t exponent = end + 1;
      if (exponent < text_.size() && (text_[exponent] == '+' || text_[exponent] == '-')) ++exponent;
      if (end < text_.size() && (text_[end] | 0x20) == 'e' && exponent < text_.size() && IsDigit(text_[exponent])) {
        is_float = true;
        digits += 'e';
        if (text_[exponent - 1] == '-') digits += '-';
        end = exponent;
        take_digits(10);
      }
    }
    return PushNumber(digits, base, is_float, end);
  }

  absl::Status PushNumber(const std::string& digits, int base, bool is_float, size_t end) {
    JinjaToken token;
    token.kind = is_float ? JinjaTokenKind::kFloat : JinjaTokenKind::kInteger;
    token.line = line_;
    token.text = digits;
    const char* last = digits.data() + digits.size();
    const auto result = is_float ? std::from_chars(digits.data(), last, token.number)
                                 : std::from_chars(digits.data(), last, token.integer, base);
    if (result.ec != std::errc() || result.ptr != last) {
      return JinjaError(line_, ConcatText({"the number ", digits.substr(0, 40), " does not fit in 64 bits"}));
    }
    tokens_.push_back(std::move(token));
    AdvanceTo(end);
    return absl::OkStatus();
  }

  absl::Status LexString(char quote) {
    std::string value;
    size_t at = position_ + 1;
    while (at < text_.size() && text_[at] != quote) {
      if (text_[at] != '\\' || at + 1 >= text_.size()) {
        value += text_[at++];
      } else {
        RETURN_IF_ERROR(Unescape(at, value));
      }
    }
    if (at >= text_.size()) return JinjaError(line_, "the string is not closed");
    Push(JinjaTokenKind::kString, std::move(value));
    AdvanceTo(at + 1);
    return absl::OkStatus();
  }

  // Python's escapes; an unknown one keeps its backslash.
  absl::Status Unescape(size_t& at, std::string& value) {
    static constexpr std::string_view kPlain = "\\'\"abfnrtv";
    static constexpr std::string_view kMeaning = "\\'\"\a\b\f\n\r\t\v";
    const char c = text_[at + 1];
    if (const size_t plain = kPlain.find(c); plain != kPlain.npos) {
      value += kMeaning[plain];
      at += 2;
      return absl::OkStatus();
    }
    if (c == '\n') {
      at += 2;
      return absl::OkStatus();
    }
    if (c >= '0' && c <= '7') {
      char32_t code = 0;
      size_t end = at + 1;
      while (end < at + 4 && end < text_.size() && text_[end] >= '0' && text_[end] <= '7') {
        code = code * 8 + static_cast<char32_t>(text_[end++] - '0');
      }
      AppendCodePoint(code, value);
      at = end;
      return absl::OkStatus();
    }
    const size_t num_digits = c == 'x' ? 2 : c == 'u' ? 4 : c == 'U' ? 8 : 0;
    if (num_digits == 0) {
      value += '\\';
      ++at;
      return absl::OkStatus();
    }
    char32_t code = 0;
    for (size_t i = 0; i < num_digits; ++i) {
      const int digit = at + 2 + i < text_.size() ? HexDigit(text_[at + 2 + i]) : -1;
      if (digit < 0) return JinjaError(line_, "a truncated \\x, \\u or \\U escape");
      code = code * 16 + static_cast<char32_t>(digit);
    }
    at += 2 + num_digits;
    AppendCodePoint(code, value);
    return absl::OkStatus();
  }

  std::string source_;
  std::string_view text_;
  size_t position_ = 0;
  int line_ = 1;
  bool is_line_start_ = true;
  std::vector<JinjaToken> tokens_;
};

}  // namespace

absl::Status JinjaError(int line, std::string_view what) {
  return absl::InvalidArgumentError(absl::StrCat("chat template line ", line, ": ", std::string(what)));
}

absl::StatusOr<std::vector<JinjaToken>> LexJinja(std::string_view source) {
  return Lexer(NormalizeNewlines(source)).Run();
}

}  // namespace millrace
