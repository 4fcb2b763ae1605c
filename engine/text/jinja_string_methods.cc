// SPDX-License-Identifier: Apache-2.0
// The methods of Python's str that templates call. Pieces keep their origin.
#include <algorithm>

#include "engine/text/jinja_evaluator.h"
#include "engine/text/jinja_format.h"
#include "engine/text/jinja_string.h"
#include "engine/text/jinja_text.h"
#include "kernels/status_macros.h"

namespace millrace {
namespace {

using Result = absl::StatusOr<TemplateValue>;
using Ev = JinjaEvaluator;

absl::Status ChargeScan(Ev& evaluator, std::string_view text) {
  return evaluator.Charge(static_cast<int64_t>(text.size() / 64));
}

absl::StatusOr<std::string_view> TextArg(Ev& evaluator, const TemplateValue& value) {
  if (value.is_undefined()) return evaluator.Error(value.UndefinedMessage());
  if (!value.is_string()) return evaluator.Error(ConcatText({"expected a string, not ", value.TypeName()}));
  return value.text();
}

// An optional count argument; -1 when absent.
absl::StatusOr<int64_t> CountArg(Ev& evaluator, const JinjaArgs& args, size_t index, std::string_view name) {
  const TemplateValue* value = args.Get(index, name);
  if (value == nullptr) return int64_t{-1};
  return evaluator.ToInt(*value, name);
}

template <StripSide side>
Result Strip(Ev& evaluator, const TemplateValue& self, const JinjaArgs& args) {
  std::string_view chars;
  if (const TemplateValue* given = args.Get(0, "chars"); given != nullptr && !given->is_none()) {
    ASSIGN_OR_RETURN(chars, TextArg(evaluator, *given));
    if (chars.empty()) return self;
  }
  RETURN_IF_ERROR(ChargeScan(evaluator, self.text()));
  const TextRange range = StripRange(self.text(), side, chars);
  return evaluator.NewString(self.as_string().Slice(range.begin, range.end));
}

template <CaseMapping mapping>
Result MapCaseOf(Ev& evaluator, const TemplateValue& self, const JinjaArgs& args) {
  RETURN_IF_ERROR(evaluator.Charge(static_cast<int64_t>(self.text().size() / 8)));
  return evaluator.NewString(MapCase(self.as_string(), mapping));
}

template <TextClass char_class>
Result IsClass(Ev& evaluator, const TemplateValue& self, const JinjaArgs& args) {
  RETURN_IF_ERROR(evaluator.Charge(static_cast<int64_t>(self.text().size() / 8)));
  return TemplateValue::Bool(IsAllOfClass(self.text(), char_class));
}

template <CaseMapping mapping>
Result IsCase(Ev& evaluator, const TemplateValue& self, const JinjaArgs& args) {
  RETURN_IF_ERROR(evaluator.Charge(static_cast<int64_t>(self.text().size() / 8)));
  return TemplateValue::Bool(IsAllCased(self.text(), mapping));
}

enum class TextEnd { kStart, kEnd };

template <TextEnd end>
Result HasAffix(Ev& evaluator, const TemplateValue& self, const JinjaArgs& args) {
  if (args.positional.empty()) return evaluator.Error("startswith() and endswith() need an argument");
  std::string_view text = self.text();
  if (const TemplateValue* start = args.Get(1, "start"); start != nullptr && !start->is_none()) {
    ASSIGN_OR_RETURN(const int64_t from, evaluator.ToInt(*start, "start"));
    const auto count = static_cast<int64_t>(CountChars(text));
    const int64_t index = from < 0 ? std::max<int64_t>(from + count, 0) : from;
    if (index > count) return TemplateValue::Bool(false);
    text.remove_prefix(CharOffset(text, static_cast<size_t>(index)));
  }
  std::vector<TemplateValue> candidates = {args.positional[0]};
  if (args.positional[0].is_list()) candidates = args.positional[0].as_list().items;
  for (const TemplateValue& candidate : candidates) {
    ASSIGN_OR_RETURN(const std::string_view affix, TextArg(evaluator, candidate));
    RETURN_IF_ERROR(evaluator.Charge(1));
    if (end == TextEnd::kStart ? text.starts_with(affix) : text.ends_with(affix)) return TemplateValue::Bool(true);
  }
  return TemplateValue::Bool(false);
}

template <TextEnd end>
Result RemoveAffix(Ev& evaluator, const TemplateValue& self, const JinjaArgs& args) {
  if (args.positional.empty()) return evaluator.Error("an affix is needed");
  ASSIGN_OR_RETURN(const std::string_view affix, TextArg(evaluator, args.positional[0]));
  const size_t text_bytes = self.text().size();
  if (end == TextEnd::kStart && self.text().starts_with(affix)) {
    return evaluator.NewString(self.as_string().Slice(affix.size(), text_bytes));
  }
  if (end == TextEnd::kEnd && self.text().ends_with(affix)) {
    return evaluator.NewString(self.as_string().Slice(0, text_bytes - affix.size()));
  }
  return self;
}

// Adds text[begin, end) to `items`, charged.
absl::Status AddPiece(Ev& evaluator, const TemplateString& text, TextRange range, std::vector<TemplateValue>& items) {
  ASSIGN_OR_RETURN(TemplateValue piece, evaluator.NewString(text.Slice(range.begin, range.end)));
  RETURN_IF_ERROR(evaluator.Charge(1));
  RETURN_IF_ERROR(evaluator.ChargeBytes(sizeof(TemplateValue)));
  items.push_back(std::move(piece));
  return absl::OkStatus();
}

// split() without separator: runs of white space part the words.
Result SplitWords(Ev& evaluator, const TemplateString& text, int64_t max_splits, bool is_from_right) {
  const std::string_view view = text.view();
  std::vector<TemplateValue> items;
  TextRange rest = StripSpace(view);
  while (rest.begin < rest.end) {
    if (max_splits >= 0 && static_cast<int64_t>(items.size()) >= max_splits) {
      RETURN_IF_ERROR(AddPiece(evaluator, text, rest, items));
      break;
    }
    TextRange word = rest;
    if (is_from_right) {
      word.begin = word.end;
      while (word.begin > rest.begin) {
        size_t start = word.begin - 1;
        while (start > rest.begin && (static_cast<unsigned char>(view[start]) & 0xc0) == 0x80) --start;
        if (IsPythonSpace(CharAt(view, start))) break;
        word.begin = start;
      }
      rest.end = rest.begin + StripRange(view.substr(rest.begin, word.begin - rest.begin), StripSide::kRight).end;
    } else {
      word.end = word.begin;
      while (word.end < rest.end && !IsPythonSpace(CharAt(view, word.end))) word.end += CharBytes(view, word.end);
      rest.begin = word.end + StripRange(view.substr(word.end, rest.end - word.end), StripSide::kLeft).begin;
    }
    RETURN_IF_ERROR(AddPiece(evaluator, text, word, items));
  }
  if (is_from_right) std::reverse(items.begin(), items.end());
  return evaluator.NewList(std::move(items));
}

Result SplitFromRight(Ev& evaluator, const TemplateString& text, std::string_view separator, int64_t max_splits) {
  const std::string_view view = text.view();
  // rfind is quadratic for hostile text, so its worst case is charged.
  RETURN_IF_ERROR(evaluator.Charge(static_cast<int64_t>(view.size() / 64 * std::min<size_t>(separator.size(), 64))));
  std::vector<TemplateValue> items;
  size_t end = view.size();
  while (max_splits < 0 || static_cast<int64_t>(items.size()) < max_splits) {
    if (end < separator.size()) break;
    const size_t found = view.rfind(separator, end - separator.size());
    if (found == view.npos) break;
    RETURN_IF_ERROR(AddPiece(evaluator, text, {found + separator.size(), end}, items));
    end = found;
  }
  RETURN_IF_ERROR(AddPiece(evaluator, text, {0, end}, items));
  std::reverse(items.begin(), items.end());
  return evaluator.NewList(std::move(items));
}

template <TextEnd from>
Result Split(Ev& evaluator, const TemplateValue& self, const JinjaArgs& args) {
  ASSIGN_OR_RETURN(const int64_t max_splits, CountArg(evaluator, args, 1, "maxsplit"));
  RETURN_IF_ERROR(ChargeScan(evaluator, self.text()));
  const TemplateValue* given = args.Get(0, "sep");
  const TemplateString& text = self.as_string();
  if (given == nullptr || given->is_none()) return SplitWords(evaluator, text, max_splits, from == TextEnd::kEnd);
  ASSIGN_OR_RETURN(const std::string_view separator, TextArg(evaluator, *given));
  if (separator.empty()) return evaluator.Error("empty separator");
  if (from == TextEnd::kEnd) return SplitFromRight(evaluator, text, separator, max_splits);
  std::vector<TemplateValue> items;
  size_t begin = 0;
  while (max_splits < 0 || static_cast<int64_t>(items.size()) < max_splits) {
    const size_t found = FindText(text.view(), separator, begin);
    if (found == text.view().npos) break;
    RETURN_IF_ERROR(AddPiece(evaluator, text, {begin, found}, items));
    begin = found + separator.size();
  }
  RETURN_IF_ERROR(AddPiece(evaluator, text, {begin, text.size_bytes()}, items));
  return evaluator.NewList(std::move(items));
}

Result SplitLines(Ev& evaluator, const TemplateValue& self, const JinjaArgs& args) {
  const TemplateValue* keep = args.Get(0, "keepends");
  const bool keeps_ends = keep != nullptr && keep->IsTruthy();
  const std::string_view view = self.text();
  RETURN_IF_ERROR(ChargeScan(evaluator, view));
  std::vector<TemplateValue> items;
  size_t begin = 0;
  while (begin < view.size()) {
    size_t end = begin, next = view.size();
    for (; end < view.size(); end += CharBytes(view, end)) {
      const char32_t c = CharAt(view, end);
      const bool is_break =
          (c >= 0x0a && c <= 0x0d) || (c >= 0x1c && c <= 0x1e) || c == 0x85 || c == 0x2028 || c == 0x2029;
      if (!is_break) continue;
      next = end + CharBytes(view, end);
      if (c == '\r' && next < view.size() && view[next] == '\n') ++next;
      break;
    }
    RETURN_IF_ERROR(AddPiece(evaluator, self.as_string(), {begin, keeps_ends ? next : end}, items));
    begin = next;
  }
  return evaluator.NewList(std::move(items));
}

template <TextEnd from>
Result Partition(Ev& evaluator, const TemplateValue& self, const JinjaArgs& args) {
  if (args.positional.empty()) return evaluator.Error("partition() needs a separator");
  ASSIGN_OR_RETURN(const std::string_view separator, TextArg(evaluator, args.positional[0]));
  if (separator.empty()) return evaluator.Error("empty separator");
  const TemplateString& text = self.as_string();
  RETURN_IF_ERROR(
      evaluator.Charge(static_cast<int64_t>(text.size_bytes() / 64 * std::min<size_t>(separator.size(), 64))));
  const size_t found = from == TextEnd::kStart ? FindText(text.view(), separator, 0) : text.view().rfind(separator);
  std::vector<TemplateValue> items(3, TemplateValue::String(TemplateString()));
  if (found == text.view().npos) {
    items[from == TextEnd::kStart ? 0 : 2] = self;
  } else {
    RETURN_IF_ERROR(evaluator.ChargeBytes(text.size_bytes()));
    const size_t after = found + separator.size();
    items[0] = TemplateValue::String(text.Slice(0, found));
    items[1] = TemplateValue::String(text.Slice(found, after));
    items[2] = TemplateValue::String(text.Slice(after, text.size_bytes()));
  }
  return evaluator.NewList(std::move(items), ListKind::kTuple);
}

Result Replace(Ev& evaluator, const TemplateValue& self, const JinjaArgs& args) {
  const TemplateValue* old_text = args.Get(0, "old");
  const TemplateValue* new_text = args.Get(1, "new");
  if (old_text == nullptr || new_text == nullptr) return evaluator.Error("replace() needs two arguments");
  RETURN_IF_ERROR(TextArg(evaluator, *old_text).status());
  RETURN_IF_ERROR(TextArg(evaluator, *new_text).status());
  ASSIGN_OR_RETURN(const int64_t count, CountArg(evaluator, args, 2, "count"));
  return ReplaceText(evaluator, self.as_string(), {old_text->text(), new_text->as_string(), count});
}

Result Join(Ev& evaluator, const TemplateValue& self, const JinjaArgs& args) {
  if (args.positional.empty()) return evaluator.Error("join() needs an argument");
  ASSIGN_OR_RETURN(const std::vector<TemplateValue> items, evaluator.Items(args.positional[0]));
  for (size_t i = 0; i < items.size(); ++i) {
    if (items[i].is_string()) continue;
    return evaluator.Error(
        ConcatText({"sequence item ", std::to_string(i), ": expected str instance, ", items[i].TypeName(), " found"}));
  }
  return JoinText(evaluator, self.as_string(), items);
}

Result Format(Ev& evaluator, const TemplateValue& self, const JinjaArgs& args) {
  ASSIGN_OR_RETURN(TemplateString text, FormatBraces(evaluator, self.as_string(), args));
  return evaluator.NewString(std::move(text));
}

enum class OnMiss { kMinusOne, kError };

template <TextEnd from, OnMiss on_miss>
Result Find(Ev& evaluator, const TemplateValue& self, const JinjaArgs& args) {
  if (args.positional.empty()) return evaluator.Error("find() needs an argument");
  ASSIGN_OR_RETURN(const std::string_view part, TextArg(evaluator, args.positional[0]));
  std::string_view text = self.text();
  RETURN_IF_ERROR(evaluator.Charge(static_cast<int64_t>(text.size() / 64 * std::min<size_t>(part.size() + 1, 64))));
  const auto num_chars = static_cast<int64_t>(CountChars(text));
  int64_t bounds[2] = {0, num_chars};
  for (size_t i = 0; i < 2; ++i) {
    const TemplateValue* given = args.Get(i + 1, i == 0 ? "start" : "end");
    if (given == nullptr || given->is_none()) continue;
    ASSIGN_OR_RETURN(int64_t bound, evaluator.ToInt(*given, "the bound of find()"));
    if (bound < 0) bound = std::max<int64_t>(bound + num_chars, 0);
    bounds[i] = std::min(bound, num_chars);
  }
  size_t found = text.npos;
  if (bounds[0] <= bounds[1]) {
    const size_t begin = CharOffset(text, static_cast<size_t>(bounds[0]));
    const std::string_view window = text.substr(0, CharOffset(text, static_cast<size_t>(bounds[1])));
    found = from == TextEnd::kStart ? FindText(window, part, begin) : window.rfind(part);
    if (found != text.npos && found < begin) found = text.npos;
  }
  if (found != text.npos) return TemplateValue::Int(static_cast<int64_t>(CountChars(text.substr(0, found))));
  if (on_miss == OnMiss::kError) return evaluator.Error("substring not found");
  return TemplateValue::Int(-1);
}

Result Count(Ev& evaluator, const TemplateValue& self, const JinjaArgs& args) {
  if (args.positional.empty()) return evaluator.Error("count() needs an argument");
  ASSIGN_OR_RETURN(const std::string_view part, TextArg(evaluator, args.positional[0]));
  const std::string_view text = self.text();
  RETURN_IF_ERROR(evaluator.Charge(static_cast<int64_t>(text.size() / 8)));
  if (part.empty()) return TemplateValue::Int(static_cast<int64_t>(CountChars(text)) + 1);
  int64_t count = 0;
  for (size_t at = FindText(text, part, 0); at != text.npos; at = FindText(text, part, at + part.size())) ++count;
  return TemplateValue::Int(count);
}

enum class Padding { kLeft, kRight, kBoth, kZeros };

template <Padding padding>
Result Pad(Ev& evaluator, const TemplateValue& self, const JinjaArgs& args) {
  ASSIGN_OR_RETURN(const int64_t width, CountArg(evaluator, args, 0, "width"));
  TemplateString fill(padding == Padding::kZeros ? "0" : " ", TextOrigin::kTemplate);
  if (args.positional.size() > 1) {
    RETURN_IF_ERROR(TextArg(evaluator, args.positional[1]).status());
    fill = args.positional[1].as_string();
    if (CountChars(fill.view()) != 1) return evaluator.Error("the fill character must be exactly one character long");
  }
  const auto num_chars = static_cast<int64_t>(CountChars(self.text()));
  if (width <= num_chars) return self;
  const int64_t missing = width - num_chars;
  RETURN_IF_ERROR(evaluator.ChargeBytes(self.text().size() + static_cast<size_t>(missing) * fill.size_bytes()));
  RETURN_IF_ERROR(evaluator.Charge(missing / 4));
  // Python's center puts the odd one to the left when the width is odd.
  const int64_t left = padding == Padding::kLeft || padding == Padding::kZeros ? missing
                       : padding == Padding::kRight                            ? 0
                                                                               : missing / 2 + (missing & width & 1);
  TemplateStringBuilder builder;
  const bool has_sign = padding == Padding::kZeros && (self.text().starts_with('-') || self.text().starts_with('+'));
  if (has_sign) builder.AppendSlice(self.as_string(), 0, 1);
  for (int64_t i = 0; i < left; ++i) builder.Append(fill);
  builder.AppendSlice(self.as_string(), has_sign ? 1 : 0, self.text().size());
  for (int64_t i = left; i < missing; ++i) builder.Append(fill);
  return TemplateValue::String(builder.Build());
}

struct NamedMethod {
  std::string_view name;
  JinjaMethod method;
};

constexpr NamedMethod kMethods[] = {
    {"strip", Strip<StripSide::kBoth>},
    {"lstrip", Strip<StripSide::kLeft>},
    {"rstrip", Strip<StripSide::kRight>},
    {"split", Split<TextEnd::kStart>},
    {"rsplit", Split<TextEnd::kEnd>},
    {"splitlines", SplitLines},
    {"partition", Partition<TextEnd::kStart>},
    {"rpartition", Partition<TextEnd::kEnd>},
    {"replace", Replace},
    {"join", Join},
    {"format", Format},
    {"startswith", HasAffix<TextEnd::kStart>},
    {"endswith", HasAffix<TextEnd::kEnd>},
    {"removeprefix", RemoveAffix<TextEnd::kStart>},
    {"removesuffix", RemoveAffix<TextEnd::kEnd>},
    {"upper", MapCaseOf<CaseMapping::kUpper>},
    {"lower", MapCaseOf<CaseMapping::kLower>},
    {"casefold", MapCaseOf<CaseMapping::kLower>},
    {"title", MapCaseOf<CaseMapping::kTitle>},
    {"capitalize", MapCaseOf<CaseMapping::kCapitalize>},
    {"swapcase", MapCaseOf<CaseMapping::kSwap>},
    {"find", Find<TextEnd::kStart, OnMiss::kMinusOne>},
    {"rfind", Find<TextEnd::kEnd, OnMiss::kMinusOne>},
    {"index", Find<TextEnd::kStart, OnMiss::kError>},
    {"rindex", Find<TextEnd::kEnd, OnMiss::kError>},
    {"count", Count},
    {"isdigit", IsClass<TextClass::kDigit>},
    {"isdecimal", IsClass<TextClass::kDigit>},
    {"isnumeric", IsClass<TextClass::kDigit>},
    {"isalpha", IsClass<TextClass::kAlpha>},
    {"isalnum", IsClass<TextClass::kAlnum>},
    {"isspace", IsClass<TextClass::kSpace>},
    {"isupper", IsCase<CaseMapping::kUpper>},
    {"islower", IsCase<CaseMapping::kLower>},
    {"zfill", Pad<Padding::kZeros>},
    {"rjust", Pad<Padding::kLeft>},
    {"ljust", Pad<Padding::kRight>},
    {"center", Pad<Padding::kBoth>},
};

}  // namespace

Result ReplaceText(Ev& evaluator, const TemplateString& text, const Replacement& replacement) {
  const auto& [old_text, new_text, max_count] = replacement;
  const std::string_view view = text.view();
  RETURN_IF_ERROR(ChargeScan(evaluator, view));
  TemplateStringBuilder builder;
  builder.Reserve(view.size());
  size_t done = 0;
  size_t from = 0;
  for (int64_t count = 0; max_count < 0 || count < max_count; ++count) {
    const size_t found = FindText(view, old_text, from);
    if (found == view.npos) break;
    RETURN_IF_ERROR(evaluator.Charge(1));
    builder.AppendSlice(text, done, found);
    builder.Append(new_text);
    if (builder.size_bytes() > evaluator.limits().max_output_bytes) break;  // NewString refuses it
    done = found + old_text.size();
    from = done;
    if (!old_text.empty()) continue;
    // An empty pattern matches before each character and at the end.
    if (done >= view.size()) break;
    const size_t next = done + CharBytes(view, done);
    builder.AppendSlice(text, done, next);
    done = from = next;
  }
  builder.AppendSlice(text, done, view.size());
  return evaluator.NewString(builder);
}

Result JoinText(Ev& evaluator, const TemplateString& separator, const std::vector<TemplateValue>& items) {
  TemplateStringBuilder builder;
  for (size_t i = 0; i < items.size(); ++i) {
    RETURN_IF_ERROR(evaluator.Charge(1));
    if (i > 0) builder.Append(separator);
    RETURN_IF_ERROR(AppendStr(items[i], evaluator.limits().max_output_bytes, builder));
    if (builder.size_bytes() > evaluator.limits().max_output_bytes) break;  // NewString refuses it
  }
  return evaluator.NewString(builder);
}

TemplateString EscapeHtml(const TemplateString& text) {
  static constexpr std::string_view kSpecial = "&<>'\"";
  static constexpr std::string_view kEntities[] = {"&amp;", "&lt;", "&gt;", "&#39;", "&#34;"};
  if (text.is_markup()) return text;
  const std::string_view view = text.view();
  TemplateStringBuilder builder;
  size_t done = 0;
  for (size_t at = view.find_first_of(kSpecial); at != view.npos; at = view.find_first_of(kSpecial, at + 1)) {
    builder.AppendSlice(text, done, at);
    builder.Append(kEntities[kSpecial.find(view[at])], TextOrigin::kData);
    done = at + 1;
  }
  builder.AppendSlice(text, done, view.size());
  return builder.Build().AsMarkup();
}

JinjaMethod FindStringMethod(std::string_view name) {
  for (const NamedMethod& candidate : kMethods) {
    if (candidate.name == name) return candidate.method;
  }
  return nullptr;
}

}  // namespace millrace
