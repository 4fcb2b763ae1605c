// SPDX-License-Identifier: Apache-2.0
#include "agent/tools/calculator.h"

#include <charconv>
#include <cmath>
#include <numbers>
#include <optional>
#include <variant>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "agent/tool_arguments.h"

namespace millrace {
namespace {

constexpr size_t kMaxExpressionBytes = 1000;
constexpr int kMaxDepth = 100;

using Integer = __int128;
using Number = std::variant<Integer, double>;

double AsDouble(const Number& number) {
  if (const Integer* integer = std::get_if<Integer>(&number)) return static_cast<double>(*integer);
  return std::get<double>(number);
}

const Integer* BothIntegers(const Number& left, const Number& right) {
  return std::holds_alternative<Integer>(right) ? std::get_if<Integer>(&left) : nullptr;
}

std::string Format(const Number& number) {
  if (const Integer* integer = std::get_if<Integer>(&number)) {
    std::string digits;
    unsigned __int128 rest = *integer < 0 ? -static_cast<unsigned __int128>(*integer) : *integer;
    do {
      digits.insert(digits.begin(), static_cast<char>('0' + static_cast<int>(rest % 10)));
    } while ((rest /= 10) != 0);
    return *integer < 0 ? "-" + digits : digits;
  }
  char text[64];
  const auto end = std::to_chars(text, text + sizeof(text), std::get<double>(number)).ptr;
  std::string result(text, end);
  if (result.find_first_of(".e") == std::string::npos) result += ".0";
  return result;
}

std::optional<Integer> FloorDivide(Integer left, Integer right) {
  Integer lowest = static_cast<Integer>(1) << 126;
  lowest = -lowest - lowest;
  if (right == -1 && left == lowest) return std::nullopt;
  const Integer quotient = left / right;
  return quotient * right != left && (left < 0) != (right < 0) ? quotient - 1 : quotient;
}

// base to the power of exponent, exactly; empty where it does not fit.
std::optional<Integer> PowerOfIntegers(Integer base, Integer exponent) {
  Integer result = 1;
  while (exponent > 0) {
    if (exponent % 2 == 1 && __builtin_mul_overflow(result, base, &result)) return std::nullopt;
    exponent /= 2;
    if (exponent > 0 && __builtin_mul_overflow(base, base, &base)) return std::nullopt;
  }
  return result;
}

class Evaluator {
 public:
  explicit Evaluator(std::string_view text) : text_(text) {}

  absl::StatusOr<Number> Evaluate() {
    absl::StatusOr<Number> value = Sum();
    if (!value.ok()) return value;
    SkipSpaces();
    if (at_ != text_.size()) return Fault("something is left over");
    return value;
  }

 private:
  absl::Status Fault(std::string_view what) const {
    return absl::InvalidArgumentError(absl::StrCat(std::string(what), " at character ", at_ + 1));
  }
  void SkipSpaces() {
    while (at_ < text_.size() && (text_[at_] == ' ' || text_[at_] == '\t' || text_[at_] == '\n')) ++at_;
  }
  bool Take(std::string_view symbol) {
    SkipSpaces();
    if (text_.substr(at_, symbol.size()) != symbol) return false;
    at_ += symbol.size();
    return true;
  }
  // The operator of a product at this place, or nothing.
  std::string_view TakeProductOperator() {
    SkipSpaces();
    if (text_.substr(at_, 2) == "**") return "";
    for (const std::string_view symbol : {"//", "*", "/", "%"}) {
      if (Take(symbol)) return symbol;
    }
    return "";
  }

  absl::StatusOr<Number> Finite(double value) const {
    if (!std::isfinite(value)) return Fault("the result is no finite number");
    return Number(value);
  }

  absl::StatusOr<Number> Sum() {
    absl::StatusOr<Number> left = Product();
    while (left.ok()) {
      const bool is_minus = Take("-");
      if (!is_minus && !Take("+")) return left;
      const absl::StatusOr<Number> right = Product();
      if (!right.ok()) return right;
      left = Add(*left, *right, is_minus);
    }
    return left;
  }
  absl::StatusOr<Number> Add(const Number& left, const Number& right, bool is_minus) const {
    if (const Integer* integer = BothIntegers(left, right)) {
      const Integer other = std::get<Integer>(right);
      Integer sum;
      if (is_minus ? !__builtin_sub_overflow(*integer, other, &sum) : !__builtin_add_overflow(*integer, other, &sum)) {
        return Number(sum);
      }
    }
    return Finite(is_minus ? AsDouble(left) - AsDouble(right) : AsDouble(left) + AsDouble(right));
  }

  absl::StatusOr<Number> Product() {
    absl::StatusOr<Number> left = Unary();
    while (left.ok()) {
      const std::string_view symbol = TakeProductOperator();
      if (symbol.empty()) return left;
      const absl::StatusOr<Number> right = Unary();
      if (!right.ok()) return right;
      left = symbol == "*" ? Multiply(*left, *right) : Divide(symbol, *left, *right);
    }
    return left;
  }
  absl::StatusOr<Number> Multiply(const Number& left, const Number& right) const {
    if (const Integer* integer = BothIntegers(left, right)) {
      Integer product;
      if (!__builtin_mul_overflow(*integer, std::get<Integer>(right), &product)) return Number(product);
    }
    return Finite(AsDouble(left) * AsDouble(right));
  }
  absl::StatusOr<Number> Divide(std::string_view symbol, const Number& left, const Number& right) const {
    if (AsDouble(right) == 0) return Fault("division by zero");
    if (const Integer* integer = BothIntegers(left, right)) {
      const Integer divisor = std::get<Integer>(right);
      if (const std::optional<Integer> quotient = FloorDivide(*integer, divisor)) {
        const Integer rest = *integer - *quotient * divisor;
        if (symbol == "//" || (symbol == "/" && rest == 0)) return Number(*quotient);
        if (symbol == "%") return Number(rest);
      }
    }
    const double quotient = AsDouble(left) / AsDouble(right);
    if (symbol == "/") return Finite(quotient);
    if (symbol == "//") return Finite(std::floor(quotient));
    const double rest = std::fmod(AsDouble(left), AsDouble(right));
    return Finite(rest != 0 && (rest < 0) != (AsDouble(right) < 0) ? rest + AsDouble(right) : rest);
  }

  absl::StatusOr<Number> Unary() {
    if (depth_ >= kMaxDepth) return Fault("too deep");
    ++depth_;
    absl::StatusOr<Number> value = SignedValue();
    --depth_;
    return value;
  }
  absl::StatusOr<Number> SignedValue() {
    if (Take("+")) return Unary();
    if (!Take("-")) return Power();
    absl::StatusOr<Number> value = Unary();
    if (!value.ok()) return value;
    return Add(Number(Integer{0}), *value, true);
  }
  absl::StatusOr<Number> Power() {
    absl::StatusOr<Number> base = Atom();
    if (!base.ok() || (!Take("**") && !Take("^"))) return base;
    absl::StatusOr<Number> exponent = Unary();
    if (!exponent.ok()) return exponent;
    if (const Integer* integer = BothIntegers(*base, *exponent)) {
      const Integer power = std::get<Integer>(*exponent);
      if (power >= 0) {
        if (const std::optional<Integer> exact = PowerOfIntegers(*integer, power)) return Number(*exact);
      }
    }
    return Finite(std::pow(AsDouble(*base), AsDouble(*exponent)));
  }

  absl::StatusOr<Number> Atom() {
    if (Take("(")) {
      absl::StatusOr<Number> value = Sum();
      if (value.ok() && !Take(")")) return Fault("')' expected");
      return value;
    }
    SkipSpaces();
    if (at_ == text_.size()) return Fault("a number is missing");
    const char first = text_[at_];
    if ((first >= '0' && first <= '9') || first == '.') return Literal();
    if ((first >= 'a' && first <= 'z') || (first >= 'A' && first <= 'Z')) return Named();
    return Fault("a number is missing");
  }
  absl::StatusOr<Number> Literal() {
    const char* begin = text_.data() + at_;
    const char* end = text_.data() + text_.size();
    double value = 0;
    const auto read = std::from_chars(begin, end, value);
    if (read.ec != std::errc() || read.ptr == begin) return Fault("this is no number");
    const std::string_view literal(begin, read.ptr - begin);
    at_ += literal.size();
    if (literal.find_first_not_of("0123456789") != std::string_view::npos) return Finite(value);
    Integer integer = 0;
    for (const char digit : literal) {
      if (__builtin_mul_overflow(integer, Integer{10}, &integer) ||
          __builtin_add_overflow(integer, Integer{digit - '0'}, &integer)) {
        return Finite(value);
      }
    }
    return Number(integer);
  }

  absl::StatusOr<Number> Named() {
    const size_t begin = at_;
    while (at_ < text_.size() && (std::isalnum(static_cast<unsigned char>(text_[at_])) != 0)) ++at_;
    const std::string_view name = text_.substr(begin, at_ - begin);
    if (name == "pi") return Number(std::numbers::pi);
    if (name == "e") return Number(std::numbers::e);
    if (!Take("(")) return Fault(absl::StrCat("'", std::string(name), "' is not known"));
    std::vector<Number> arguments;
    do {
      const absl::StatusOr<Number> argument = Sum();
      if (!argument.ok()) return argument;
      arguments.push_back(*argument);
    } while (Take(","));
    if (!Take(")")) return Fault("')' expected");
    if (name == "min" || name == "max") return Extreme(name, arguments);
    if (arguments.size() != 1) return Fault(absl::StrCat("'", std::string(name), "' takes one argument"));
    return Apply(name, arguments[0]);
  }
  static Number Extreme(std::string_view name, const std::vector<Number>& numbers) {
    Number best = numbers[0];
    for (const Number& number : numbers) {
      const Integer* integer = BothIntegers(number, best);
      const bool is_less = integer != nullptr ? *integer < std::get<Integer>(best) : AsDouble(number) < AsDouble(best);
      const bool is_more = integer != nullptr ? *integer > std::get<Integer>(best) : AsDouble(number) > AsDouble(best);
      if (name == "min" ? is_less : is_more) best = number;
    }
    return best;
  }
  absl::StatusOr<Number> Apply(std::string_view name, const Number& argument) const {
    const Integer* integer = std::get_if<Integer>(&argument);
    const double value = AsDouble(argument);
    if (name == "abs") return integer != nullptr ? Add(Integer{0}, argument, *integer < 0) : Finite(std::fabs(value));
    if (name == "floor" || name == "ceil" || name == "round") {
      if (integer != nullptr) return argument;
      const double whole = name == "floor" ? std::floor(value) : name == "ceil" ? std::ceil(value) : std::round(value);
      if (std::fabs(whole) < 0x1p126) return Number(static_cast<Integer>(whole));
      return Finite(whole);
    }
    struct Function {
      std::string_view name;
      double (*of)(double);
    };
    static constexpr Function kFunctions[] = {{"sqrt", std::sqrt}, {"exp", std::exp},     {"ln", std::log},
                                              {"log", std::log},   {"log10", std::log10}, {"log2", std::log2},
                                              {"sin", std::sin},   {"cos", std::cos},     {"tan", std::tan},
                                              {"asin", std::asin}, {"acos", std::acos},   {"atan", std::atan}};
    for (const Function& function : kFunctions) {
      if (function.name == name) return Finite(function.of(value));
    }
    return Fault(absl::StrCat("'", std::string(name), "' is not known"));
  }

  const std::string_view text_;
  size_t at_ = 0;
  int depth_ = 0;
};

}  // namespace

absl::StatusOr<std::string> Calculate(std::string_view expression) {
  if (expression.size() > kMaxExpressionBytes) {
    return absl::InvalidArgumentError(
        absl::StrCat("the expression has ", expression.size(), " bytes, at most ", kMaxExpressionBytes, " are taken"));
  }
  const absl::StatusOr<Number> value = Evaluator(expression).Evaluate();
  if (!value.ok()) return value.status();
  return Format(*value);
}

ToolResult CalculatorTool::Call(std::string_view arguments, absl::Time, const Cancellation&) {
  const absl::StatusOr<ToolArguments> parsed = ParseStringArguments(arguments, {"expression"});
  if (!parsed.ok()) return ToolError(std::string(parsed.status().message()));
  absl::StatusOr<std::string> value = Calculate(parsed->at("expression"));
  if (!value.ok()) return ToolError(std::string(value.status().message()));
  return {.text = *std::move(value)};
}

}  // namespace millrace
