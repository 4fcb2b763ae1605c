// SPDX-License-Identifier: Apache-2.0
// + - * / // % ** with Python's meaning. Integers that leave 64 bits are refused.
#include <cmath>

#include "engine/text/jinja_evaluator.h"
#include "engine/text/jinja_format.h"
#include "engine/text/jinja_string.h"
#include "engine/text/jinja_text.h"
#include "kernels/status_macros.h"

namespace millrace {
namespace {

const char* Symbol(JinjaOp op) {
  static constexpr const char* kSymbols[] = {"+", "-", "*", "/", "//", "%", "** or pow()"};
  return op <= JinjaOp::kPow ? kSymbols[static_cast<size_t>(op)] : "?";
}

absl::Status Overflow() { return absl::InvalidArgumentError("an integer leaves 64 bits"); }
absl::Status ZeroDivision() { return absl::InvalidArgumentError("division by zero"); }

absl::StatusOr<TemplateValue> IntPower(int64_t base, int64_t exponent) {
  if (exponent < 0) {
    if (base == 0) return ZeroDivision();
    return TemplateValue::Float(std::pow(static_cast<double>(base), static_cast<double>(exponent)));
  }
  int64_t result = 1;
  while (exponent > 0) {
    if ((exponent & 1) != 0 && __builtin_mul_overflow(result, base, &result)) return Overflow();
    exponent >>= 1;
    if (exponent > 0 && __builtin_mul_overflow(base, base, &base)) return Overflow();
  }
  return TemplateValue::Int(result);
}

absl::StatusOr<TemplateValue> IntArithmetic(JinjaOp op, int64_t a, int64_t b) {
  int64_t result = 0;
  switch (op) {
    case JinjaOp::kAdd:
      if (__builtin_add_overflow(a, b, &result)) return Overflow();
      return TemplateValue::Int(result);
    case JinjaOp::kSub:
      if (__builtin_sub_overflow(a, b, &result)) return Overflow();
      return TemplateValue::Int(result);
    case JinjaOp::kMul:
      if (__builtin_mul_overflow(a, b, &result)) return Overflow();
      return TemplateValue::Int(result);
    case JinjaOp::kDiv:
      if (b == 0) return ZeroDivision();
      return TemplateValue::Float(static_cast<double>(a) / static_cast<double>(b));
    case JinjaOp::kFloorDiv:
    case JinjaOp::kMod: {
      if (b == 0) return ZeroDivision();
      if (b == -1) return op == JinjaOp::kMod ? TemplateValue::Int(0) : IntArithmetic(JinjaOp::kSub, 0, a);
      // Rounds towards minus infinity; the remainder has the sign of the divisor.
      int64_t quotient = a / b, remainder = a % b;
      if (remainder != 0 && ((remainder < 0) != (b < 0))) {
        --quotient;
        remainder += b;
      }
      return TemplateValue::Int(op == JinjaOp::kMod ? remainder : quotient);
    }
    default:
      return IntPower(a, b);
  }
}

absl::StatusOr<TemplateValue> FloatArithmetic(JinjaOp op, double a, double b) {
  switch (op) {
    case JinjaOp::kAdd:
      return TemplateValue::Float(a + b);
    case JinjaOp::kSub:
      return TemplateValue::Float(a - b);
    case JinjaOp::kMul:
      return TemplateValue::Float(a * b);
    case JinjaOp::kDiv:
      if (b == 0) return ZeroDivision();
      return TemplateValue::Float(a / b);
    case JinjaOp::kFloorDiv:
    case JinjaOp::kMod: {
      if (b == 0) return ZeroDivision();
      double remainder = std::fmod(a, b);
      if (remainder == 0) remainder = std::copysign(0.0, b);
      if (remainder != 0 && ((remainder < 0) != (b < 0))) remainder += b;
      return TemplateValue::Float(op == JinjaOp::kMod ? remainder : std::floor((a - remainder) / b + 0.5));
    }
    default:
      if (a == 0 && b < 0) return ZeroDivision();
      return TemplateValue::Float(std::pow(a, b));
  }
}

}  // namespace

absl::StatusOr<TemplateValue> JinjaEvaluator::Binary(JinjaOp op, const TemplateValue& a, const TemplateValue& b) {
  if (op == JinjaOp::kMod && a.is_string()) {
    ASSIGN_OR_RETURN(TemplateString text, FormatPercent(*this, a.as_string(), b));
    return NewString(std::move(text));
  }
  if (a.is_undefined()) return Error(a.UndefinedMessage());
  if (b.is_undefined()) return Error(b.UndefinedMessage());
  if (a.is_number() && b.is_number()) return Arithmetic(op, a, b);
  if (op == JinjaOp::kAdd) return Add(a, b);
  if (op == JinjaOp::kMul) return Multiply(a, b);
  return Arithmetic(op, a, b);
}

absl::StatusOr<TemplateValue> JinjaEvaluator::Arithmetic(JinjaOp op, const TemplateValue& a, const TemplateValue& b) {
  if (!a.is_number() || !b.is_number()) {
    return Error(ConcatText(
        {"unsupported operand type(s) for ", Symbol(op), ": '", a.TypeName(), "' and '", b.TypeName(), "'"}));
  }
  if (a.is_float() || b.is_float()) return FloatArithmetic(op, a.number(), b.number());
  return IntArithmetic(op, a.integer(), b.integer());
}

absl::StatusOr<TemplateValue> JinjaEvaluator::Add(const TemplateValue& a, const TemplateValue& b) {
  if (a.is_string() && b.is_string()) {
    TemplateStringBuilder builder;
    builder.Reserve(a.text().size() + b.text().size());
    if (!a.as_string().is_markup() && !b.as_string().is_markup()) {
      builder.Append(a.as_string());
      builder.Append(b.as_string());
      return NewString(builder);
    }
    // What was marked safe escapes what it is added to, as markupsafe does; templates have come to rely on it.
    builder.Append(EscapeHtml(a.as_string()));
    builder.Append(EscapeHtml(b.as_string()));
    return NewString(builder.Build().AsMarkup());
  }
  const auto is_joinable = [](const TemplateValue& value) {
    return value.is_list() && value.as_list().kind <= ListKind::kTuple;
  };
  if (is_joinable(a) && is_joinable(b) && a.as_list().kind == b.as_list().kind) {
    RETURN_IF_ERROR(ChargeBytes((a.as_list().items.size() + b.as_list().items.size()) * sizeof(TemplateValue)));
    std::vector<TemplateValue> items = a.as_list().items;
    items.insert(items.end(), b.as_list().items.begin(), b.as_list().items.end());
    return NewList(std::move(items), a.as_list().kind);
  }
  if (a.is_string()) {
    return Error(ConcatText({"can only concatenate str (not \"", b.TypeName(), "\") to str"}));
  }
  return Arithmetic(JinjaOp::kAdd, a, b);
}

absl::StatusOr<TemplateValue> JinjaEvaluator::Multiply(const TemplateValue& a, const TemplateValue& b) {
  if (b.is_int() || b.is_bool()) return Repeat(a, b.integer());
  if (a.is_int() || a.is_bool()) return Repeat(b, a.integer());
  return Arithmetic(JinjaOp::kMul, a, b);
}

absl::StatusOr<TemplateValue> JinjaEvaluator::Repeat(const TemplateValue& sequence, int64_t times) {
  times = std::max<int64_t>(times, 0);
  const bool is_list = sequence.is_list() && sequence.as_list().kind <= ListKind::kTuple;
  if (!is_list && !sequence.is_string()) return Arithmetic(JinjaOp::kMul, sequence, TemplateValue::Int(times));
  const size_t unit = is_list ? sequence.as_list().items.size() * sizeof(TemplateValue) : sequence.text().size();
  size_t total = 0;
  if (__builtin_mul_overflow(unit, static_cast<size_t>(times), &total)) total = SIZE_MAX;
  RETURN_IF_ERROR(ChargeBytes(total));
  if (unit == 0) times = 0;
  if (is_list) {
    std::vector<TemplateValue> items;
    for (int64_t i = 0; i < times; ++i) {
      items.insert(items.end(), sequence.as_list().items.begin(), sequence.as_list().items.end());
    }
    return NewList(std::move(items), sequence.as_list().kind);
  }
  RETURN_IF_ERROR(Charge(times / 4));
  TemplateStringBuilder builder;
  builder.Reserve(total);
  for (int64_t i = 0; i < times; ++i) builder.Append(sequence.as_string());
  return TemplateValue::String(builder.Build());
}

}  // namespace millrace
