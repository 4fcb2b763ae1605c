// SPDX-License-Identifier: Apache-2.0
#include "engine/text/template_json.h"

#include <algorithm>
#include <charconv>
#include <cmath>

#include "absl/strings/str_cat.h"
#include "engine/text/jinja_text.h"
#include "kernels/status_macros.h"

namespace millrace {
namespace {

class Parser {
 public:
  Parser(std::string_view text, const TemplateJsonLimits& limits) : text_(text), limits_(limits) {}

  absl::StatusOr<TemplateValue> Run() {
    if (text_.size() > limits_.max_bytes) {
      return absl::InvalidArgumentError(
          absl::StrCat("JSON of ", text_.size(), " bytes, more than the limit of ", limits_.max_bytes));
    }
    ASSIGN_OR_RETURN(TemplateValue value, ParseValue(0));
    SkipSpace();
    if (at_ != text_.size()) return Fail("text after the document");
    return value;
  }

 private:
  absl::Status Fail(std::string_view what) const {
    return absl::InvalidArgumentError(absl::StrCat("invalid JSON at byte ", at_, ": ", std::string(what)));
  }

  void SkipSpace() {
    while (at_ < text_.size() &&
           (text_[at_] == ' ' || text_[at_] == '\n' || text_[at_] == '\t' || text_[at_] == '\r')) {
      ++at_;
    }
  }

  bool Skip(char c) {
    SkipSpace();
    if (at_ >= text_.size() || text_[at_] != c) return false;
    ++at_;
    return true;
  }

  bool SkipWord(std::string_view word) {
    if (text_.substr(at_, word.size()) != word) return false;
    at_ += word.size();
    return true;
  }

  absl::StatusOr<TemplateValue> ParseValue(int depth) {
    if (depth > limits_.max_depth) return Fail(absl::StrCat("nested deeper than ", limits_.max_depth));
    if (++num_values_ > limits_.max_values) return Fail("too many values");
    SkipSpace();
    if (at_ >= text_.size()) return Fail("the document ends early");
    switch (text_[at_]) {
      case '{':
        return ParseObject(depth);
      case '[':
        return ParseArray(depth);
      case '"': {
        ASSIGN_OR_RETURN(std::string text, ParseString());
        return TemplateValue::String(TemplateString(std::move(text), TextOrigin::kData));
      }
      case 't':
        if (SkipWord("true")) return TemplateValue::Bool(true);
        break;
      case 'f':
        if (SkipWord("false")) return TemplateValue::Bool(false);
        break;
      case 'n':
        if (SkipWord("null")) return TemplateValue::None();
        break;
      default:
        return ParseNumber();
    }
    return Fail("unknown word");
  }

  absl::StatusOr<TemplateValue> ParseObject(int depth) {
    ++at_;
    TemplateValue dict = TemplateValue::Dict();
    if (Skip('}')) return dict;
    while (true) {
      SkipSpace();
      if (at_ >= text_.size() || text_[at_] != '"') return Fail("expected a key");
      ASSIGN_OR_RETURN(std::string key, ParseString());
      if (!Skip(':')) return Fail("expected ':'");
      ASSIGN_OR_RETURN(TemplateValue value, ParseValue(depth + 1));
      dict.as_dict().Set(TemplateValue::String(TemplateString(std::move(key), TextOrigin::kData)), std::move(value));
      if (Skip('}')) return dict;
      if (!Skip(',')) return Fail("expected ',' or '}'");
    }
  }

  absl::StatusOr<TemplateValue> ParseArray(int depth) {
    ++at_;
    std::vector<TemplateValue> items;
    if (Skip(']')) return TemplateValue::List();
    while (true) {
      ASSIGN_OR_RETURN(TemplateValue item, ParseValue(depth + 1));
      items.push_back(std::move(item));
      if (Skip(']')) return TemplateValue::List(std::move(items));
      if (!Skip(',')) return Fail("expected ',' or ']'");
    }
  }

  absl::StatusOr<TemplateValue> ParseNumber() {
    const size_t begin = at_;
    const auto take_digits = [&] {
      const size_t before = at_;
      while (at_ < text_.size() && text_[at_] >= '0' && text_[at_] <= '9') ++at_;
      return at_ > before;
    };
    if (text_[at_] == '-') ++at_;
    const size_t first_digit = at_;
    if (!take_digits()) return Fail("unexpected character");
    if (text_[first_digit] == '0' && at_ > first_digit + 1) return Fail("a number with a leading zero");
    bool is_float = false;
    if (at_ < text_.size() && text_[at_] == '.') {
      is_float = true;
      ++at_;
      if (!take_digits()) return Fail("a fraction without digits");
    }
    if (at_ < text_.size() && (text_[at_] == 'e' || text_[at_] == 'E')) {
      is_float = true;
      ++at_;
      if (at_ < text_.size() && (text_[at_] == '+' || text_[at_] == '-')) ++at_;
      if (!take_digits()) return Fail("an exponent without digits");
    }
    const char* first = text_.data() + begin;
    const char* last = text_.data() + at_;
    int64_t integer = 0;
    if (!is_float && std::from_chars(first, last, integer).ec == std::errc()) return TemplateValue::Int(integer);
    double number = 0;
    if (std::from_chars(first, last, number).ec != std::errc()) return Fail("a number that does not fit");
    return TemplateValue::Float(number);
  }

  absl::StatusOr<std::string> ParseString() {
    std::string out;
    ++at_;
    while (true) {
      const size_t begin = at_;
      while (at_ < text_.size() && text_[at_] != '"' && text_[at_] != '\\' &&
             static_cast<unsigned char>(text_[at_]) >= 0x20) {
        ++at_;
      }
      out.append(text_.substr(begin, at_ - begin));
      if (at_ >= text_.size()) return Fail("the string is not closed");
      if (text_[at_] == '"') {
        ++at_;
        return out;
      }
      if (text_[at_] != '\\') return Fail("a control character in a string");
      RETURN_IF_ERROR(ParseEscape(out));
    }
  }

  absl::Status ParseEscape(std::string& out) {
    static constexpr std::string_view kNames = "\"\\/bfnrt";
    static constexpr std::string_view kMeaning = "\"\\/\b\f\n\r\t";
    ++at_;
    if (at_ >= text_.size()) return Fail("the string is not closed");
    const char c = text_[at_++];
    if (const size_t plain = kNames.find(c); plain != kNames.npos) {
      out += kMeaning[plain];
      return absl::OkStatus();
    }
    if (c != 'u') return Fail("an unknown escape");
    ASSIGN_OR_RETURN(char32_t code, ParseHex());
    if (code >= 0xd800 && code < 0xdc00 && text_.substr(at_, 2) == "\\u") {
      const size_t saved = at_;
      at_ += 2;
      ASSIGN_OR_RETURN(const char32_t low, ParseHex());
      if (low >= 0xdc00 && low < 0xe000) {
        code = 0x10000 + ((code - 0xd800) << 10) + (low - 0xdc00);
      } else {
        at_ = saved;
      }
    }
    AppendCodePoint(code, out);
    return absl::OkStatus();
  }

  absl::StatusOr<char32_t> ParseHex() {
    uint32_t code = 0;
    const std::string_view digits = text_.substr(std::min(at_, text_.size()), 4);
    const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), code, 16);
    if (digits.size() < 4 || error != std::errc() || end != digits.data() + 4) return Fail("a broken \\u escape");
    at_ += 4;
    return static_cast<char32_t>(code);
  }

  std::string_view text_;
  const TemplateJsonLimits& limits_;
  size_t at_ = 0;
  size_t num_values_ = 0;
};

class Writer {
 public:
  Writer(const TemplateJsonStyle& style, TemplateStringBuilder& out)
      : style_(style), out_(out), max_bytes_(out.size_bytes() + style.max_bytes) {}

  absl::Status Write(const TemplateValue& value, int depth) {
    if (depth > kMaxValueDepth) return absl::InvalidArgumentError("a value is nested too deep for JSON");
    if (out_.size_bytes() > max_bytes_) return absl::InvalidArgumentError("a JSON text longer than the limit");
    switch (value.kind()) {
      case TemplateValue::Kind::kNone:
        Put("null");
        return absl::OkStatus();
      case TemplateValue::Kind::kBool:
        Put(value.as_bool() ? "true" : "false");
        return absl::OkStatus();
      case TemplateValue::Kind::kInt:
        Put(std::to_string(value.as_int()));
        return absl::OkStatus();
      case TemplateValue::Kind::kFloat:
        Put(Number(value.as_float()));
        return absl::OkStatus();
      case TemplateValue::Kind::kString:
        WriteString(value.as_string());
        return absl::OkStatus();
      case TemplateValue::Kind::kList:
        if (value.as_list().kind <= ListKind::kTuple) return WriteList(value.as_list(), depth);
        break;
      case TemplateValue::Kind::kDict:
        return WriteDict(value.as_dict(), depth);
      default:
        break;
    }
    return absl::InvalidArgumentError(
        ConcatText({"an object of type ", value.TypeName(), " is not JSON serializable"}));
  }

 private:
  void Put(std::string_view text) { out_.Append(text, TextOrigin::kData); }

  static std::string Number(double value) {
    if (std::isnan(value)) return "NaN";
    if (std::isinf(value)) return value > 0 ? "Infinity" : "-Infinity";
    return FloatRepr(value);
  }

  void NewLine(int depth) {
    if (!style_.is_indented) return;
    Put("\n");
    for (int i = 0; i < depth; ++i) Put(style_.indent);
  }

  void WriteString(const TemplateString& text) {
    static constexpr char kHex[] = "0123456789abcdef";
    Put("\"");
    const std::string_view view = text.view();
    size_t done = 0;
    for (size_t i = 0; i < view.size();) {
      const auto c = static_cast<unsigned char>(view[i]);
      const bool is_plain = c >= 0x20 && c != '"' && c != '\\' && (c < 0x7f || !style_.ensure_ascii || c == 0x7f);
      if (is_plain) {
        ++i;
        continue;
      }
      out_.AppendSlice(text, done, i);
      const size_t num_bytes = c < 0x80 ? 1 : CharBytes(view, i);
      std::string escaped = "\\";
      const auto append_unit = [&escaped](char32_t unit) {
        escaped += 'u';
        for (int shift = 12; shift >= 0; shift -= 4) escaped += kHex[(unit >> shift) & 15];
      };
      static constexpr std::string_view kShort = "\"\\\n\r\t\b\f";
      static constexpr std::string_view kLetters = "\"\\nrtbf";
      if (const size_t known = kShort.find(static_cast<char>(c)); known != kShort.npos) {
        escaped += kLetters[known];
      } else if (const char32_t code = CharAt(view, i); code >= 0x10000) {
        append_unit(0xd800 + ((code - 0x10000) >> 10));
        escaped += '\\';
        append_unit(0xdc00 + ((code - 0x10000) & 0x3ff));
      } else {
        append_unit(code);
      }
      Put(escaped);
      i += num_bytes;
      done = i;
    }
    out_.AppendSlice(text, done, view.size());
    Put("\"");
  }

  absl::Status WriteList(const TemplateList& list, int depth) {
    if (list.items.empty()) {
      Put("[]");
      return absl::OkStatus();
    }
    Put("[");
    for (size_t i = 0; i < list.items.size(); ++i) {
      if (i > 0) Put(style_.item_separator);
      NewLine(depth + 1);
      RETURN_IF_ERROR(Write(list.items[i], depth + 1));
    }
    NewLine(depth);
    Put("]");
    return absl::OkStatus();
  }

  // Keys that are no strings are written as their JSON text in quotes.
  absl::Status WriteKey(const TemplateValue& key) {
    if (key.is_string()) {
      WriteString(key.as_string());
      return absl::OkStatus();
    }
    if (!key.is_none() && !key.is_number()) {
      return absl::InvalidArgumentError("keys must be str, int, float, bool or None");
    }
    Put("\"");
    RETURN_IF_ERROR(Write(key, 0));
    Put("\"");
    return absl::OkStatus();
  }

  absl::Status WriteDict(const TemplateDict& dict, int depth) {
    if (dict.size() == 0) {
      Put("{}");
      return absl::OkStatus();
    }
    std::vector<const TemplateDict::Entry*> entries;
    entries.reserve(dict.size());
    for (const auto& entry : dict.entries()) entries.push_back(&entry);
    if (style_.sort_keys) {
      for (const auto* entry : entries) {
        if (!entry->first.is_string()) return absl::InvalidArgumentError("only string keys can be sorted");
      }
      std::sort(entries.begin(), entries.end(),
                [](const auto* a, const auto* b) { return a->first.text() < b->first.text(); });
    }
    Put("{");
    bool is_first = true;
    for (const auto* entry : entries) {
      if (!is_first) Put(style_.item_separator);
      is_first = false;
      NewLine(depth + 1);
      RETURN_IF_ERROR(WriteKey(entry->first));
      Put(style_.key_separator);
      RETURN_IF_ERROR(Write(entry->second, depth + 1));
    }
    NewLine(depth);
    Put("}");
    return absl::OkStatus();
  }

  const TemplateJsonStyle& style_;
  TemplateStringBuilder& out_;
  size_t max_bytes_;
};

}  // namespace

absl::StatusOr<TemplateValue> ParseJsonValue(std::string_view text, const TemplateJsonLimits& limits) {
  return Parser(text, limits).Run();
}

absl::Status AppendJson(const TemplateValue& value, const TemplateJsonStyle& style, TemplateStringBuilder& out) {
  return Writer(style, out).Write(value, 0);
}

}  // namespace millrace
