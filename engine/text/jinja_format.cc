// SPDX-License-Identifier: Apache-2.0
#include "engine/text/jinja_format.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <ctime>

#include "engine/text/jinja_text.h"
#include "kernels/status_macros.h"

namespace millrace {
namespace {

constexpr int64_t kMaxWidth = 1000;  // of a field, and the most digits of a number

// One conversion of either formatting language.
struct FieldSpec {
  std::string fill = " ";
  char align = 0;  // < > ^ or 0: the type's own
  char sign = 0;   // + or space
  bool is_alternate = false;
  bool is_zero_padded = false;
  bool has_thousands = false;
  int64_t width = 0;
  int64_t precision = -1;
  char type = 0;
};

int64_t TakeNumber(std::string_view& text) {
  int64_t value = 0;
  while (!text.empty() && text[0] >= '0' && text[0] <= '9') {
    value = std::min<int64_t>(value * 10 + (text[0] - '0'), kMaxWidth + 1);
    text.remove_prefix(1);
  }
  return value;
}

std::string GroupThousands(const std::string& digits) {
  const size_t end = std::min(digits.find_first_not_of("0123456789"), digits.size());
  std::string out;
  for (size_t i = 0; i < end; ++i) {
    if (i > 0 && (end - i) % 3 == 0) out += ',';
    out += digits[i];
  }
  return out + digits.substr(end);
}

// The number without its sign.
absl::StatusOr<std::string> NumberDigits(JinjaEvaluator& evaluator, const TemplateValue& value, const FieldSpec& spec) {
  const bool is_float_type = spec.type != 0 && std::string_view("eEfFgG%").find(spec.type) != std::string_view::npos;
  char buffer[512 + kMaxWidth];
  if (!value.is_float() && !is_float_type) {
    const uint64_t magnitude =
        value.integer() < 0 ? 0 - static_cast<uint64_t>(value.integer()) : static_cast<uint64_t>(value.integer());
    const int base = spec.type == 'x' || spec.type == 'X' ? 16 : spec.type == 'o' ? 8 : spec.type == 'b' ? 2 : 10;
    std::string digits(buffer, std::to_chars(buffer, buffer + sizeof buffer, magnitude, base).ptr);
    if (spec.type == 'X')
      std::transform(digits.begin(), digits.end(), digits.begin(),
                     [](char c) { return c >= 'a' && c <= 'f' ? static_cast<char>(c - 'a' + 'A') : c; });
    if (spec.is_alternate && base != 10) digits = (base == 16 ? "0x" : base == 8 ? "0o" : "0b") + digits;
    return digits;
  }
  double number = std::fabs(value.number());
  if (spec.type == 'd' || spec.type == 'i') return evaluator.Error("%d of a float is not supported in this format");
  if (std::isnan(number)) return std::string("nan");
  if (std::isinf(number)) return std::string("inf");
  if (spec.type == 0 && spec.precision < 0) return FloatRepr(number);
  if (spec.type == '%') number *= 100;
  const char lower = static_cast<char>(spec.type | 0x20);
  const auto format = lower == 'e'                       ? std::chars_format::scientific
                      : lower == 'f' || spec.type == '%' ? std::chars_format::fixed
                                                         : std::chars_format::general;
  const int precision = spec.precision < 0 ? 6 : static_cast<int>(spec.precision);
  const auto result = std::to_chars(buffer, buffer + sizeof buffer, number, format, precision);
  if (result.ec != std::errc()) return evaluator.Error("a formatted number is too long");
  std::string digits(buffer, result.ptr);
  if (spec.type == 'E' || spec.type == 'G') {
    std::transform(digits.begin(), digits.end(), digits.begin(), [](char c) { return c == 'e' ? 'E' : c; });
  }
  if (spec.type == '%') digits += '%';
  return digits;
}

// Pads `text` (without sign) and appends it.
absl::Status AppendPadded(JinjaEvaluator& evaluator, const FieldSpec& spec, std::string_view sign,
                          const TemplateString& text, TemplateStringBuilder& out) {
  if (spec.width > kMaxWidth) return evaluator.Error("a field wider than the limit of 1000");
  const auto used = static_cast<int64_t>(CountChars(text.view()) + sign.size());
  const int64_t missing = std::max<int64_t>(spec.width - used, 0);
  RETURN_IF_ERROR(evaluator.Charge(1 + missing));
  const bool pads_after_sign = spec.is_zero_padded && spec.align == 0;
  const char align = spec.align != 0 ? spec.align : '<';
  const int64_t left = pads_after_sign || align == '<' ? 0 : align == '^' ? missing / 2 : missing;
  for (int64_t i = 0; i < left; ++i) out.Append(spec.fill, TextOrigin::kData);
  out.Append(sign, TextOrigin::kData);
  for (int64_t i = 0; pads_after_sign && i < missing; ++i) out.Append("0", TextOrigin::kData);
  out.Append(text);
  for (int64_t i = left; !pads_after_sign && i < missing; ++i) out.Append(spec.fill, TextOrigin::kData);
  return absl::OkStatus();
}

absl::Status AppendNumber(JinjaEvaluator& evaluator, const TemplateValue& value, FieldSpec spec,
                          TemplateStringBuilder& out) {
  if (spec.precision > kMaxWidth) return evaluator.Error("a precision beyond the limit of 1000");
  ASSIGN_OR_RETURN(std::string digits, NumberDigits(evaluator, value, spec));
  if (spec.has_thousands) digits = GroupThousands(digits);
  const bool is_negative = value.is_float() ? std::signbit(value.as_float()) : value.integer() < 0;
  const std::string_view sign = is_negative ? "-" : spec.sign == '+' ? "+" : spec.sign == ' ' ? " " : "";
  if (spec.align == 0 && !spec.is_zero_padded) spec.align = '>';
  return AppendPadded(evaluator, spec, sign, TemplateString(std::move(digits), TextOrigin::kData), out);
}

absl::Status AppendText(JinjaEvaluator& evaluator, const TemplateString& text, const FieldSpec& spec,
                        TemplateStringBuilder& out) {
  TemplateString shown = text;
  if (spec.precision >= 0) shown = text.Slice(0, CharOffset(text.view(), static_cast<size_t>(spec.precision)));
  return AppendPadded(evaluator, spec, "", shown, out);
}

absl::StatusOr<TemplateString> ReprOf(JinjaEvaluator& evaluator, const TemplateValue& value) {
  TemplateStringBuilder builder;
  RETURN_IF_ERROR(AppendRepr(value, evaluator.limits().max_output_bytes, builder));
  RETURN_IF_ERROR(evaluator.ChargeBytes(builder.size_bytes()));
  return builder.Build();
}

absl::Status AppendPercentField(JinjaEvaluator& evaluator, const TemplateValue& value, FieldSpec spec,
                                TemplateStringBuilder& out) {
  if (spec.type == 's' || spec.type == 'r' || spec.type == 'a') {
    ASSIGN_OR_RETURN(const TemplateString text,
                     spec.type == 's' ? evaluator.ToString(value) : ReprOf(evaluator, value));
    spec.is_zero_padded = false;
    if (spec.align == 0) spec.align = '>';
    return AppendText(evaluator, text, spec, out);
  }
  if (!value.is_number()) {
    return evaluator.Error(ConcatText(
        {"%", std::string_view(&spec.type, 1), " format: a real number is required, not ", value.TypeName()}));
  }
  if (std::string_view("diu").find(spec.type) != std::string_view::npos) {
    if (value.is_float() && !(std::fabs(value.as_float()) < 9.2e18)) return evaluator.Error("%d of a float too large");
    spec.type = 'd';
    const int64_t integer = value.is_float() ? static_cast<int64_t>(value.as_float()) : value.integer();
    return AppendNumber(evaluator, TemplateValue::Int(integer), spec, out);
  }
  if (std::string_view("xXo").find(spec.type) != std::string_view::npos && value.is_float()) {
    return evaluator.Error("an integer is required");
  }
  if (std::string_view("xXoeEfFgG").find(spec.type) == std::string_view::npos) {
    return evaluator.Error(ConcatText({"unsupported format character '", std::string_view(&spec.type, 1), "'"}));
  }
  return AppendNumber(evaluator, value, spec, out);
}

// [[fill]align][sign][#][0][width][,][.precision][type]
absl::StatusOr<FieldSpec> ParseBraceSpec(JinjaEvaluator& evaluator, std::string_view text) {
  FieldSpec spec;
  const auto is_align = [](char c) { return c == '<' || c == '>' || c == '^'; };
  if (!text.empty()) {
    const size_t fill_bytes = CharBytes(text, 0);
    if (text.size() > fill_bytes && is_align(text[fill_bytes])) {
      spec.fill = std::string(text.substr(0, fill_bytes));
      spec.align = text[fill_bytes];
      text.remove_prefix(fill_bytes + 1);
    } else if (is_align(text[0])) {
      spec.align = text[0];
      text.remove_prefix(1);
    }
  }
  const auto skip = [&text](char c) {
    if (text.empty() || text[0] != c) return false;
    text.remove_prefix(1);
    return true;
  };
  if (skip('+')) spec.sign = '+';
  if (skip(' ')) spec.sign = ' ';
  skip('-');
  spec.is_alternate = skip('#');
  spec.is_zero_padded = skip('0');
  spec.width = TakeNumber(text);
  spec.has_thousands = skip(',');
  if (skip('.')) spec.precision = TakeNumber(text);
  if (!text.empty()) {
    spec.type = text[0];
    text.remove_prefix(1);
  }
  if (!text.empty()) return evaluator.Error("an invalid format specifier");
  return spec;
}

class BraceFormatter {
 public:
  BraceFormatter(JinjaEvaluator& evaluator, const TemplateString& format, const JinjaArgs& args)
      : evaluator_(evaluator), format_(format), args_(args) {}

  absl::StatusOr<TemplateString> Run() {
    const std::string_view text = format_.view();
    for (size_t at = 0; at < text.size();) {
      const size_t brace = std::min(text.find_first_of("{}", at), text.size());
      out_.AppendSlice(format_, at, brace);
      if (brace == text.size()) break;
      if (brace + 1 < text.size() && text[brace + 1] == text[brace]) {
        out_.AppendSlice(format_, brace, brace + 1);
        at = brace + 2;
        continue;
      }
      if (text[brace] == '}') return evaluator_.Error("single '}' encountered in format string");
      const size_t close = text.find('}', brace);
      if (close == text.npos) return evaluator_.Error("expected '}' before end of string");
      RETURN_IF_ERROR(Field(text.substr(brace + 1, close - brace - 1)));
      if (out_.size_bytes() > evaluator_.limits().max_output_bytes) break;
      at = close + 1;
    }
    return out_.Build();
  }

 private:
  absl::Status Field(std::string_view field) {
    RETURN_IF_ERROR(evaluator_.Charge(1));
    if (field.find('{') != field.npos) return evaluator_.Error("nested format fields are not supported");
    const size_t colon = field.find(':');
    std::string_view name = field.substr(0, colon);
    const std::string_view spec_text = colon == field.npos ? std::string_view() : field.substr(colon + 1);
    char conversion = 0;
    if (const size_t mark = name.find('!'); mark != name.npos && mark + 2 == name.size()) {
      conversion = name[mark + 1];
      name = name.substr(0, mark);
    }
    ASSIGN_OR_RETURN(const TemplateValue value, Lookup(name));
    ASSIGN_OR_RETURN(FieldSpec spec, ParseBraceSpec(evaluator_, spec_text));
    if (conversion == 0 && value.is_number() && !(value.is_bool() && spec_text.empty())) {
      if (spec.type != 0 && std::string_view("bdeEfFgGoxX%").find(spec.type) == std::string_view::npos) {
        return evaluator_.Error("an unknown format code for a number");
      }
      return AppendNumber(evaluator_, value, spec, out_);
    }
    if (spec.type != 0 && spec.type != 's') return evaluator_.Error("an unknown format code for a string");
    ASSIGN_OR_RETURN(const TemplateString text,
                     conversion == 'r' ? ReprOf(evaluator_, value) : evaluator_.ToString(value));
    if (spec.is_zero_padded && spec.align == 0) {
      spec.fill = "0";
      spec.align = '<';
    }
    return AppendText(evaluator_, text, spec, out_);
  }

  // An index, a name, or nothing for the next one; then .attribute and [key].
  absl::StatusOr<TemplateValue> Lookup(std::string_view name) {
    const size_t end = std::min(name.find_first_of(".["), name.size());
    const std::string_view head = name.substr(0, end);
    const TemplateValue* found = nullptr;
    size_t index = 0;
    const auto [stop, error] = std::from_chars(head.data(), head.data() + head.size(), index);
    if (head.empty()) {
      index = next_++;
      if (index < args_.positional.size()) found = &args_.positional[index];
    } else if (error == std::errc() && stop == head.data() + head.size()) {
      if (index < args_.positional.size()) found = &args_.positional[index];
    } else {
      found = args_.GetNamed(head);
    }
    if (found == nullptr) return evaluator_.Error(ConcatText({"format: no argument for '{", name, "}'"}));
    TemplateValue value = *found;
    std::string_view rest = name.substr(end);
    while (!rest.empty()) {
      if (rest[0] == '.') {
        const size_t part_end = std::min(rest.find_first_of(".[", 1), rest.size());
        ASSIGN_OR_RETURN(value, evaluator_.Attribute(value, rest.substr(1, part_end - 1)));
        rest.remove_prefix(part_end);
      } else {
        const size_t close = rest.find(']');
        if (rest[0] != '[' || close == rest.npos) return evaluator_.Error("a broken format field");
        ASSIGN_OR_RETURN(value, evaluator_.Path(value, TemplateValue::Trusted(rest.substr(1, close - 1))));
        rest.remove_prefix(close + 1);
      }
      if (value.is_undefined()) return evaluator_.Error(value.UndefinedMessage());
    }
    return value;
  }

  JinjaEvaluator& evaluator_;
  const TemplateString& format_;
  const JinjaArgs& args_;
  TemplateStringBuilder out_;
  size_t next_ = 0;
};

}  // namespace

absl::StatusOr<TemplateString> FormatPercent(JinjaEvaluator& evaluator, const TemplateString& format,
                                             const TemplateValue& values) {
  const std::string_view text = format.view();
  const bool is_tuple = values.is_list() && values.as_list().kind == ListKind::kTuple;
  const size_t num_values = is_tuple ? values.as_list().items.size() : 1;
  size_t next = 0;
  TemplateStringBuilder out;
  for (size_t at = 0; at < text.size();) {
    const size_t percent = std::min(text.find('%', at), text.size());
    out.AppendSlice(format, at, percent);
    if (percent == text.size()) break;
    RETURN_IF_ERROR(evaluator.Charge(1));
    std::string_view rest = text.substr(percent + 1);
    TemplateValue value;
    bool has_value = false;
    if (!rest.empty() && rest[0] == '(') {
      const size_t close = rest.find(')');
      if (close == rest.npos || !values.is_dict()) return evaluator.Error("format requires a mapping");
      const TemplateValue* found = values.as_dict().Find(rest.substr(1, close - 1));
      if (found == nullptr) return evaluator.Error("format: no such key");
      value = *found;
      has_value = true;
      rest.remove_prefix(close + 1);
    }
    FieldSpec spec;
    for (; !rest.empty() && std::string_view("#0- +").find(rest[0]) != std::string_view::npos; rest.remove_prefix(1)) {
      if (rest[0] == '#') spec.is_alternate = true;
      if (rest[0] == '0') spec.is_zero_padded = true;
      if (rest[0] == '-') spec.align = '<';
      if (rest[0] == ' ' || rest[0] == '+') spec.sign = rest[0];
    }
    spec.width = TakeNumber(rest);
    if (!rest.empty() && rest[0] == '.') {
      rest.remove_prefix(1);
      spec.precision = TakeNumber(rest);
    }
    if (rest.empty()) return evaluator.Error("incomplete format");
    spec.type = rest[0];
    at = text.size() - rest.size() + 1;
    if (spec.type == '%') {
      out.AppendSlice(format, at - 1, at);
      continue;
    }
    if (!has_value) {
      if (next >= num_values) return evaluator.Error("not enough arguments for format string");
      value = is_tuple ? values.as_list().items[next] : values;
      ++next;
    }
    RETURN_IF_ERROR(AppendPercentField(evaluator, value, spec, out));
    if (out.size_bytes() > evaluator.limits().max_output_bytes) break;
  }
  if (next < num_values && !values.is_dict() && !(next == 0 && values.is_list() && !is_tuple)) {
    return evaluator.Error("not all arguments converted during string formatting");
  }
  return out.Build();
}

absl::StatusOr<TemplateString> FormatBraces(JinjaEvaluator& evaluator, const TemplateString& format,
                                            const JinjaArgs& args) {
  return BraceFormatter(evaluator, format, args).Run();
}

absl::StatusOr<TemplateString> FormatTime(JinjaEvaluator& evaluator, const TemplateString& format, absl::Time time,
                                          absl::TimeZone zone) {
  // Bounds what one directive can expand to; the longest yields some 30 bytes.
  if (format.size_bytes() > 1000) return evaluator.Error("a time format longer than the limit of 1000 bytes");
  const std::tm parts = absl::ToTM(time, zone);
  std::string out;
  char buffer[256];
  const std::string_view text = format.view();
  for (size_t at = 0; at < text.size(); ++at) {
    if (text[at] != '%' || at + 1 >= text.size()) {
      out += text[at];
      continue;
    }
    size_t letter = at + 1;
    if (text[letter] == '-' && letter + 1 < text.size()) ++letter;  // glibc's "no padding"
    if (text[letter] == 'f') {
      const int64_t micros = absl::ToUnixMicros(time) % 1'000'000;
      const std::string digits = std::to_string((micros + 1'000'000) % 1'000'000);
      out += std::string(6 - digits.size(), '0') + digits;
    } else {
      const std::string directive(text.substr(at, letter - at + 1));
      static constexpr std::string_view kKnown = "aAbBcCdDeFgGhHIjklmMnprRsStTuUVwWxXyYzZ%";
      if (kKnown.find(text[letter]) == kKnown.npos) return evaluator.Error("an unknown time directive");
      out.append(buffer, std::strftime(buffer, sizeof buffer, directive.c_str(), &parts));
    }
    at = letter;
  }
  return TemplateString(std::move(out),
                        format.is_all(TextOrigin::kTemplate) ? TextOrigin::kTemplate : TextOrigin::kData);
}

}  // namespace millrace
