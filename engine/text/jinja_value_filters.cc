// SPDX-License-Identifier: Apache-2.0
// Filters on text, numbers and single values.
#include <algorithm>
#include <charconv>
#include <cmath>
#include <optional>

#include "engine/text/jinja_evaluator.h"
#include "engine/text/jinja_filters.h"
#include "engine/text/jinja_format.h"
#include "engine/text/jinja_parser.h"
#include "engine/text/jinja_string.h"
#include "engine/text/jinja_text.h"
#include "engine/text/template_json.h"
#include "kernels/status_macros.h"

namespace millrace {
namespace {

using Result = absl::StatusOr<TemplateValue>;
using Ev = JinjaEvaluator;

bool IsTruthyArg(const TemplateValue* value) { return value != nullptr && value->IsTruthy(); }

template <CaseMapping mapping>
Result MapCaseFilter(Ev& evaluator, const TemplateValue& input, const JinjaArgs& args) {
  ASSIGN_OR_RETURN(const TemplateString text, evaluator.ToString(input));
  RETURN_IF_ERROR(evaluator.Charge(static_cast<int64_t>(text.size_bytes() / 8)));
  return evaluator.NewString(MapCase(text, mapping));
}

// Jinja's title: a word starts after white space or one of -({[<, not after an apostrophe as in str.title.
Result Title(Ev& evaluator, const TemplateValue& input, const JinjaArgs& args) {
  ASSIGN_OR_RETURN(const TemplateString text, evaluator.ToString(input));
  RETURN_IF_ERROR(evaluator.Charge(static_cast<int64_t>(text.size_bytes() / 2)));
  const std::string_view view = text.view();
  const auto is_border = [&](size_t at) {
    const char32_t c = CharAt(view, at);
    return IsPythonSpace(c) || c == '-' || c == '(' || c == '{' || c == '[' || c == '<';
  };
  TemplateStringBuilder builder;
  for (size_t at = 0; at < view.size();) {
    if (is_border(at)) {
      builder.AppendSlice(text, at, at + CharBytes(view, at));
      at += CharBytes(view, at);
      continue;
    }
    size_t end = at;
    while (end < view.size() && !is_border(end)) end += CharBytes(view, end);
    const size_t first = at + CharBytes(view, at);
    builder.Append(MapCase(text.Slice(at, first), CaseMapping::kUpper));
    builder.Append(MapCase(text.Slice(first, end), CaseMapping::kLower));
    at = end;
  }
  return evaluator.NewString(builder);
}

Result Trim(Ev& evaluator, const TemplateValue& input, const JinjaArgs& args) {
  ASSIGN_OR_RETURN(const TemplateString text, evaluator.ToString(input));
  RETURN_IF_ERROR(evaluator.Charge(static_cast<int64_t>(text.size_bytes() / 64)));
  const TemplateValue* chars = args.Get(0, "chars");
  const bool has_chars = chars != nullptr && chars->is_string();
  if (has_chars && chars->as_string().is_empty()) return TemplateValue::String(text);
  const TextRange range = StripRange(text.view(), StripSide::kBoth, has_chars ? chars->text() : std::string_view());
  return evaluator.NewString(text.Slice(range.begin, range.end));
}

Result Replace(Ev& evaluator, const TemplateValue& input, const JinjaArgs& args) {
  const TemplateValue* old_value = args.Get(0, "old");
  const TemplateValue* new_value = args.Get(1, "new");
  if (old_value == nullptr || new_value == nullptr) return evaluator.Error("replace needs two arguments");
  ASSIGN_OR_RETURN(const TemplateString text, evaluator.ToString(input));
  ASSIGN_OR_RETURN(const TemplateString old_text, evaluator.ToString(*old_value));
  Replacement replacement;
  replacement.old_text = old_text.view();
  ASSIGN_OR_RETURN(replacement.new_text, evaluator.ToString(*new_value));
  if (const TemplateValue* count = args.Get(2, "count"); count != nullptr && !count->is_none()) {
    ASSIGN_OR_RETURN(replacement.max_count, evaluator.ToInt(*count, "count"));
  }
  return ReplaceText(evaluator, text, replacement);
}

Result ToStringFilter(Ev& evaluator, const TemplateValue& input, const JinjaArgs& args) {
  ASSIGN_OR_RETURN(TemplateString text, evaluator.ToString(input));
  return TemplateValue::String(std::move(text));
}

Result Safe(Ev& evaluator, const TemplateValue& input, const JinjaArgs& args) {
  ASSIGN_OR_RETURN(const TemplateString text, evaluator.ToString(input));
  return evaluator.NewString(text.AsMarkup());
}

Result Escape(Ev& evaluator, const TemplateValue& input, const JinjaArgs& args) {
  ASSIGN_OR_RETURN(const TemplateString text, evaluator.ToString(input));
  RETURN_IF_ERROR(evaluator.Charge(static_cast<int64_t>(text.size_bytes() / 16)));
  return evaluator.NewString(EscapeHtml(text));
}

Result Default(Ev& evaluator, const TemplateValue& input, const JinjaArgs& args) {
  const bool is_missing = input.is_undefined() || (IsTruthyArg(args.Get(1, "boolean")) && !input.IsTruthy());
  if (!is_missing) return input;
  const TemplateValue* fallback = args.Get(0, "default_value");
  return fallback == nullptr ? TemplateValue::String(TemplateString()) : *fallback;
}

Result Abs(Ev& evaluator, const TemplateValue& input, const JinjaArgs& args) {
  if (input.is_undefined()) return evaluator.Error(input.UndefinedMessage());
  if (!input.is_number()) return evaluator.Error(ConcatText({"bad operand type for abs(): '", input.TypeName(), "'"}));
  if (input.is_float()) return TemplateValue::Float(std::fabs(input.as_float()));
  if (input.integer() == INT64_MIN) return evaluator.Error("an integer leaves 64 bits");
  return TemplateValue::Int(std::abs(input.integer()));
}

// Python's float() of a text; nothing when it is none.
std::optional<double> ParseFloat(std::string_view text) {
  const TextRange range = StripSpace(text);
  std::string digits;
  for (const char c : text.substr(range.begin, range.end - range.begin)) {
    if (c != '_') digits += c;
  }
  const size_t sign = !digits.empty() && digits[0] == '+' ? 1 : 0;
  double value = 0;
  const char* last = digits.data() + digits.size();
  const auto [end, error] = std::from_chars(digits.data() + sign, last, value);
  if (error != std::errc() || end != last || digits.size() == sign) return std::nullopt;
  return value;
}

std::optional<int64_t> ParseInt(std::string_view text, int base) {
  const TextRange range = StripSpace(text);
  std::string digits;
  for (const char c : text.substr(range.begin, range.end - range.begin)) {
    if (c != '_') digits += c;
  }
  bool is_negative = false;
  size_t at = 0;
  if (!digits.empty() && (digits[0] == '-' || digits[0] == '+')) is_negative = digits[at++] == '-';
  if (digits.size() > at + 1 && digits[at] == '0') {
    const char mark = static_cast<char>(digits[at + 1] | 0x20);
    const int marked_base = mark == 'x' ? 16 : mark == 'o' ? 8 : mark == 'b' ? 2 : 0;
    if (marked_base != 0 && marked_base == base) at += 2;
  }
  std::string number = ConcatText({is_negative ? "-" : "", std::string_view(digits).substr(at)});
  if (at >= digits.size() || digits[at] == '-' || digits[at] == '+') return std::nullopt;
  int64_t value = 0;
  const char* last = number.data() + number.size();
  const auto [end, error] = std::from_chars(number.data(), last, value, base);
  if (error != std::errc() || end != last) return std::nullopt;
  return value;
}

Result ToIntFilter(Ev& evaluator, const TemplateValue& input, const JinjaArgs& args) {
  const TemplateValue* given = args.Get(0, "default");
  const TemplateValue fallback = given == nullptr ? TemplateValue::Int(0) : *given;
  if (input.is_undefined()) return evaluator.Error(input.UndefinedMessage());
  if (input.is_int() || input.is_bool()) return TemplateValue::Int(input.integer());
  double number = 0;
  if (input.is_float()) {
    number = input.as_float();
  } else if (input.is_string()) {
    int64_t base = 10;
    if (const TemplateValue* value = args.Get(1, "base"); value != nullptr) {
      ASSIGN_OR_RETURN(base, evaluator.ToInt(*value, "base"));
    }
    if (base < 2 || base > 36) return evaluator.Error("int() base must be >= 2 and <= 36");
    if (const auto parsed = ParseInt(input.text(), static_cast<int>(base)); parsed) return TemplateValue::Int(*parsed);
    const auto parsed = ParseFloat(input.text());
    if (!parsed) return fallback;
    number = *parsed;
  } else {
    return fallback;
  }
  if (!(std::fabs(number) < 9.2e18)) return fallback;
  return TemplateValue::Int(static_cast<int64_t>(number));
}

Result ToFloatFilter(Ev& evaluator, const TemplateValue& input, const JinjaArgs& args) {
  const TemplateValue* given = args.Get(0, "default");
  if (input.is_undefined()) return evaluator.Error(input.UndefinedMessage());
  if (input.is_number()) return TemplateValue::Float(input.number());
  const auto parsed = input.is_string() ? ParseFloat(input.text()) : std::nullopt;
  if (parsed) return TemplateValue::Float(*parsed);
  return given == nullptr ? TemplateValue::Float(0) : *given;
}

Result Round(Ev& evaluator, const TemplateValue& input, const JinjaArgs& args) {
  if (!input.is_number()) return evaluator.Error(ConcatText({"cannot round a value of type ", input.TypeName()}));
  int64_t precision = 0;
  if (const TemplateValue* given = args.Get(0, "precision"); given != nullptr) {
    ASSIGN_OR_RETURN(precision, evaluator.ToInt(*given, "precision"));
  }
  const TemplateValue* method = args.Get(1, "method");
  const std::string_view name = method != nullptr && method->is_string() ? method->text() : "common";
  if (name != "common" && name != "ceil" && name != "floor") {
    return evaluator.Error("method must be common, ceil or floor");
  }
  if (name == "common" && !input.is_float() && precision >= 0) return TemplateValue::Int(input.integer());
  precision = std::clamp<int64_t>(precision, -300, 300);
  const double scale = std::pow(10.0, static_cast<double>(precision));
  const double value = input.number();
  if (name == "ceil") return TemplateValue::Float(std::ceil(value * scale) / scale);
  if (name == "floor") return TemplateValue::Float(std::floor(value * scale) / scale);
  // Rounds the decimal text, half to even on what the double really is, as Python does.
  if (precision < 0 || precision > 20 || !(std::fabs(value) < 1e22)) {
    return TemplateValue::Float(std::nearbyint(value * scale) / scale);
  }
  char buffer[64];
  const auto end =
      std::to_chars(buffer, buffer + sizeof buffer, value, std::chars_format::fixed, static_cast<int>(precision)).ptr;
  double rounded = value;
  std::from_chars(buffer, end, rounded);
  return TemplateValue::Float(rounded);
}

Result Indent(Ev& evaluator, const TemplateValue& input, const JinjaArgs& args) {
  ASSIGN_OR_RETURN(const TemplateString text, evaluator.ToString(input));
  TemplateString indentation(std::string(4, ' '), TextOrigin::kTemplate);
  if (const TemplateValue* width = args.Get(0, "width"); width != nullptr) {
    if (width->is_string()) {
      indentation = width->as_string();
    } else {
      ASSIGN_OR_RETURN(const int64_t count, evaluator.ToInt(*width, "width"));
      if (count > 1000) return evaluator.Error("an indentation wider than the limit of 1000");
      indentation =
          TemplateString(std::string(static_cast<size_t>(std::max<int64_t>(count, 0)), ' '), TextOrigin::kTemplate);
    }
  }
  const bool indents_blank = IsTruthyArg(args.Get(2, "blank"));
  const std::string_view view = text.view();
  TemplateStringBuilder builder;
  if (IsTruthyArg(args.Get(1, "first"))) builder.Append(indentation);
  size_t begin = 0;
  while (true) {
    const size_t newline = view.find('\n', begin);
    const size_t end = newline == view.npos ? view.size() : newline;
    if (begin > 0 && (indents_blank || end > begin)) builder.Append(indentation);
    builder.AppendSlice(text, begin, newline == view.npos ? end : end + 1);
    RETURN_IF_ERROR(evaluator.Charge(1));
    if (newline == view.npos || builder.size_bytes() > evaluator.limits().max_output_bytes) break;
    begin = newline + 1;
  }
  return evaluator.NewString(builder);
}

Result Truncate(Ev& evaluator, const TemplateValue& input, const JinjaArgs& args) {
  ASSIGN_OR_RETURN(const TemplateString text, evaluator.ToString(input));
  int64_t numbers[2] = {255, 5};
  const std::string_view names[2] = {"length", "leeway"};
  for (size_t i = 0; i < 2; ++i) {
    const TemplateValue* given = args.Get(i == 0 ? 0 : 3, names[i]);
    if (given == nullptr || given->is_none()) continue;
    ASSIGN_OR_RETURN(numbers[i], evaluator.ToInt(*given, names[i]));
  }
  TemplateString end("...", TextOrigin::kTemplate);
  if (const TemplateValue* given = args.Get(2, "end"); given != nullptr && given->is_string()) end = given->as_string();
  const auto num_chars = static_cast<int64_t>(CountChars(text.view()));
  const auto end_chars = static_cast<int64_t>(CountChars(end.view()));
  if (num_chars <= numbers[0] || num_chars - numbers[1] <= numbers[0]) return TemplateValue::String(text);
  const int64_t kept = std::max<int64_t>(numbers[0] - end_chars, 0);
  size_t stop = CharOffset(text.view(), static_cast<size_t>(kept));
  if (!IsTruthyArg(args.Get(1, "killwords"))) {
    const size_t space = text.view().substr(0, stop).rfind(' ');
    if (space != std::string_view::npos) stop = space;
  }
  TemplateStringBuilder builder;
  builder.AppendSlice(text, 0, stop);
  builder.Append(end);
  return evaluator.NewString(builder);
}

Result WordCount(Ev& evaluator, const TemplateValue& input, const JinjaArgs& args) {
  ASSIGN_OR_RETURN(const TemplateString text, evaluator.ToString(input));
  RETURN_IF_ERROR(evaluator.Charge(static_cast<int64_t>(text.size_bytes() / 4)));
  const std::string_view view = text.view();
  int64_t count = 0;
  bool was_word = false;
  for (size_t at = 0; at < view.size(); at += CharBytes(view, at)) {
    const bool is_word = view[at] == '_' || IsAllOfClass(view.substr(at, CharBytes(view, at)), TextClass::kAlnum);
    count += is_word && !was_word ? 1 : 0;
    was_word = is_word;
  }
  return TemplateValue::Int(count);
}

Result Center(Ev& evaluator, const TemplateValue& input, const JinjaArgs& args) {
  ASSIGN_OR_RETURN(TemplateString text, evaluator.ToString(input));
  JinjaArgs width = args;
  if (width.positional.empty()) {
    const TemplateValue* given = args.GetNamed("width");
    width.positional.push_back(given == nullptr ? TemplateValue::Int(80) : *given);
  }
  return FindStringMethod("center")(evaluator, TemplateValue::String(std::move(text)), width);
}

Result FormatFilter(Ev& evaluator, const TemplateValue& input, const JinjaArgs& args) {
  ASSIGN_OR_RETURN(const TemplateString text, evaluator.ToString(input));
  TemplateValue values = TemplateValue::List(TemplateList(ListKind::kTuple, args.positional));
  if (!args.named.empty()) {
    values = TemplateValue::Dict();
    for (const auto& [name, value] : args.named) values.as_dict().Set(name, value);
  }
  ASSIGN_OR_RETURN(TemplateString formatted, FormatPercent(evaluator, text, values));
  return evaluator.NewString(std::move(formatted));
}

Result UrlEncode(Ev& evaluator, const TemplateValue& input, const JinjaArgs& args) {
  ASSIGN_OR_RETURN(const TemplateString text, evaluator.ToString(input));
  RETURN_IF_ERROR(evaluator.Charge(static_cast<int64_t>(text.size_bytes() / 8)));
  static constexpr char kHex[] = "0123456789ABCDEF";
  static constexpr std::string_view kPlain = "_.-~/";
  std::string out;
  for (const char c : text.view()) {
    const bool is_plain =
        (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || kPlain.find(c) != kPlain.npos;
    if (is_plain) {
      out += c;
    } else {
      out += '%';
      out += kHex[static_cast<unsigned char>(c) >> 4];
      out += kHex[static_cast<unsigned char>(c) & 15];
    }
  }
  return evaluator.NewString(TemplateString(std::move(out), TextOrigin::kData));
}

// In transformers' order of arguments, which differs from Jinja's own tojson.
Result ToJson(Ev& evaluator, const TemplateValue& input, const JinjaArgs& args) {
  TemplateJsonStyle style;
  style.max_bytes = evaluator.limits().max_output_bytes;
  style.ensure_ascii = IsTruthyArg(args.Get(0, "ensure_ascii"));
  style.sort_keys = IsTruthyArg(args.Get(3, "sort_keys"));
  if (const TemplateValue* indent = args.Get(1, "indent"); indent != nullptr && !indent->is_none()) {
    style.is_indented = true;
    style.item_separator = ",";
    if (indent->is_string()) {
      style.indent = std::string(indent->text());
    } else {
      ASSIGN_OR_RETURN(const int64_t width, evaluator.ToInt(*indent, "indent"));
      style.indent = std::string(static_cast<size_t>(std::clamp<int64_t>(width, 0, 100)), ' ');
    }
  }
  if (const TemplateValue* separators = args.Get(2, "separators"); separators != nullptr && !separators->is_none()) {
    ASSIGN_OR_RETURN(const std::vector<TemplateValue> pair, evaluator.Items(*separators));
    if (pair.size() != 2 || !pair[0].is_string() || !pair[1].is_string()) {
      return evaluator.Error("separators must be a pair of strings");
    }
    style.item_separator = std::string(pair[0].text());
    style.key_separator = std::string(pair[1].text());
  }
  TemplateStringBuilder builder;
  RETURN_IF_ERROR(AppendJson(input, style, builder));
  RETURN_IF_ERROR(evaluator.Charge(static_cast<int64_t>(builder.size_bytes() / 16)));
  return evaluator.NewString(builder);
}

// Not part of Jinja2: some templates of models that get their arguments as text ask for it.
Result FromJson(Ev& evaluator, const TemplateValue& input, const JinjaArgs& args) {
  if (!input.is_string()) return evaluator.Error("from_json needs a string");
  RETURN_IF_ERROR(evaluator.ChargeBytes(input.text().size() * 16));
  RETURN_IF_ERROR(evaluator.Charge(static_cast<int64_t>(input.text().size() / 8)));
  return ParseJsonValue(input.text());
}

constexpr NamedJinjaFilter kFilters[] = {
    {"abs", Abs},
    {"capitalize", MapCaseFilter<CaseMapping::kCapitalize>},
    {"center", Center},
    {"d", Default},
    {"default", Default},
    {"e", Escape},
    {"escape", Escape},
    {"float", ToFloatFilter},
    {"forceescape", Escape},
    {"format", FormatFilter},
    {"from_json", FromJson},
    {"indent", Indent},
    {"int", ToIntFilter},
    {"lower", MapCaseFilter<CaseMapping::kLower>},
    {"pprint", ToStringFilter},
    {"replace", Replace},
    {"round", Round},
    {"safe", Safe},
    {"string", ToStringFilter},
    {"title", Title},
    {"tojson", ToJson},
    {"trim", Trim},
    {"truncate", Truncate},
    {"upper", MapCaseFilter<CaseMapping::kUpper>},
    {"urlencode", UrlEncode},
    {"wordcount", WordCount},
};

}  // namespace

JinjaFilter FindValueFilter(std::string_view name) {
  for (const NamedJinjaFilter& candidate : kFilters) {
    if (candidate.name == name) return candidate.filter;
  }
  return nullptr;
}

JinjaFilter FindJinjaFilter(std::string_view name) {
  const JinjaFilter filter = FindValueFilter(name);
  return filter != nullptr ? filter : FindSequenceFilter(name);
}

}  // namespace millrace
