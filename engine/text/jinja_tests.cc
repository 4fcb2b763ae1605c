// SPDX-License-Identifier: Apache-2.0
// The builtin tests: what may follow `is`.
#include "engine/text/jinja_evaluator.h"
#include "engine/text/jinja_parser.h"
#include "engine/text/jinja_text.h"
#include "kernels/status_macros.h"

namespace millrace {
namespace {

using Ev = JinjaEvaluator;
using Value = TemplateValue;
using Result = absl::StatusOr<bool>;

template <bool wanted>
Result IsDefined(Ev& evaluator, const Value& value, const JinjaArgs& args) {
  return value.is_undefined() != wanted;
}
Result IsNone(Ev& evaluator, const Value& value, const JinjaArgs& args) { return value.is_none(); }
template <bool wanted>
Result IsBoolOf(Ev& evaluator, const Value& value, const JinjaArgs& args) {
  return value.is_bool() && value.as_bool() == wanted;
}
Result IsBoolean(Ev& evaluator, const Value& value, const JinjaArgs& args) { return value.is_bool(); }
Result IsInteger(Ev& evaluator, const Value& value, const JinjaArgs& args) { return value.is_int(); }
Result IsFloat(Ev& evaluator, const Value& value, const JinjaArgs& args) { return value.is_float(); }
Result IsNumber(Ev& evaluator, const Value& value, const JinjaArgs& args) { return value.is_number(); }
Result IsString(Ev& evaluator, const Value& value, const JinjaArgs& args) { return value.is_string(); }
Result IsMapping(Ev& evaluator, const Value& value, const JinjaArgs& args) { return value.is_dict(); }

Result IsIterable(Ev& evaluator, const Value& value, const JinjaArgs& args) {
  return value.is_string() || value.is_list() || value.is_dict() || value.is_undefined();
}

// Has a length and items by index.
Result IsSequence(Ev& evaluator, const Value& value, const JinjaArgs& args) {
  if (value.is_list()) return value.as_list().kind <= ListKind::kRange && value.as_list().kind != ListKind::kIterator;
  return value.is_string() || value.is_dict() || value.is_undefined();
}

Result IsCallable(Ev& evaluator, const Value& value, const JinjaArgs& args) {
  const auto* object = value.is_object() ? dynamic_cast<JinjaObject*>(value.as_object().get()) : nullptr;
  return value.is_undefined() || (object != nullptr && object->is_callable());
}

Result IsEscaped(Ev& evaluator, const Value& value, const JinjaArgs& args) {
  return value.is_string() && value.as_string().is_markup();
}

Result IsSameAs(Ev& evaluator, const Value& value, const JinjaArgs& args) {
  const Value* other = args.Get(0, "other");
  if (other == nullptr) return evaluator.Error("sameas needs an argument");
  if (value.kind() != other->kind()) return false;
  if (value.is_list()) return &value.as_list() == &other->as_list();
  if (value.is_dict()) return &value.as_dict() == &other->as_dict();
  return evaluator.Equal(value, *other);
}

template <JinjaOp op>
Result IsCompared(Ev& evaluator, const Value& value, const JinjaArgs& args) {
  if (args.is_empty()) return evaluator.Error("the test needs an argument");
  const Value* other = args.Get(0, op == JinjaOp::kIn ? "seq" : "other");
  if (other == nullptr) other = &args.named[0].second;
  return evaluator.Compare(op, value, *other);
}

template <bool wants_odd>
Result IsOdd(Ev& evaluator, const Value& value, const JinjaArgs& args) {
  ASSIGN_OR_RETURN(const Value rest, evaluator.Binary(JinjaOp::kMod, value, Value::Int(2)));
  if (!rest.is_number()) return evaluator.Error("odd and even need a number");
  return (rest.number() == 1) == wants_odd;
}

Result IsDivisible(Ev& evaluator, const Value& value, const JinjaArgs& args) {
  const Value* divisor = args.Get(0, "num");
  if (divisor == nullptr) return evaluator.Error("divisibleby needs an argument");
  ASSIGN_OR_RETURN(const Value rest, evaluator.Binary(JinjaOp::kMod, value, *divisor));
  return rest.is_number() && rest.number() == 0;
}

template <CaseMapping mapping>
Result IsCase(Ev& evaluator, const Value& value, const JinjaArgs& args) {
  ASSIGN_OR_RETURN(const TemplateString text, evaluator.ToString(value));
  RETURN_IF_ERROR(evaluator.Charge(static_cast<int64_t>(text.size_bytes() / 8)));
  return IsAllCased(text.view(), mapping);
}

Result IsFilterName(Ev& evaluator, const Value& value, const JinjaArgs& args) {
  return value.is_string() && FindJinjaFilter(value.text()) != nullptr;
}
Result IsTestName(Ev& evaluator, const Value& value, const JinjaArgs& args) {
  return value.is_string() && FindJinjaTest(value.text()) != nullptr;
}

struct NamedTest {
  std::string_view name;
  JinjaTest test;
};

constexpr NamedTest kTests[] = {
    {"defined", IsDefined<true>},
    {"undefined", IsDefined<false>},
    {"none", IsNone},
    {"true", IsBoolOf<true>},
    {"false", IsBoolOf<false>},
    {"boolean", IsBoolean},
    {"integer", IsInteger},
    {"float", IsFloat},
    {"number", IsNumber},
    {"string", IsString},
    {"mapping", IsMapping},
    {"iterable", IsIterable},
    {"sequence", IsSequence},
    {"callable", IsCallable},
    {"escaped", IsEscaped},
    {"sameas", IsSameAs},
    {"in", IsCompared<JinjaOp::kIn>},
    {"eq", IsCompared<JinjaOp::kEq>},
    {"equalto", IsCompared<JinjaOp::kEq>},
    {"ne", IsCompared<JinjaOp::kNe>},
    {"lt", IsCompared<JinjaOp::kLt>},
    {"lessthan", IsCompared<JinjaOp::kLt>},
    {"le", IsCompared<JinjaOp::kLe>},
    {"gt", IsCompared<JinjaOp::kGt>},
    {"greaterthan", IsCompared<JinjaOp::kGt>},
    {"ge", IsCompared<JinjaOp::kGe>},
    {"odd", IsOdd<true>},
    {"even", IsOdd<false>},
    {"divisibleby", IsDivisible},
    {"lower", IsCase<CaseMapping::kLower>},
    {"upper", IsCase<CaseMapping::kUpper>},
    {"filter", IsFilterName},
    {"test", IsTestName},
    {"==", IsCompared<JinjaOp::kEq>},
    {"!=", IsCompared<JinjaOp::kNe>},
    {"<", IsCompared<JinjaOp::kLt>},
    {"<=", IsCompared<JinjaOp::kLe>},
    {">", IsCompared<JinjaOp::kGt>},
    {">=", IsCompared<JinjaOp::kGe>},
};

}  // namespace

JinjaTest FindJinjaTest(std::string_view name) {
  for (const NamedTest& candidate : kTests) {
    if (candidate.name == name) return candidate.test;
  }
  return nullptr;
}

}  // namespace millrace
