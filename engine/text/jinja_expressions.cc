// SPDX-License-Identifier: Apache-2.0
#include "engine/text/jinja_evaluator.h"
#include "engine/text/jinja_text.h"
#include "kernels/status_macros.h"

namespace millrace {

absl::StatusOr<TemplateValue> JinjaEvaluator::Evaluate(const JinjaExpr& expr) {
  if (expr.kind == JinjaExpr::Kind::kConst) return expr.value;
  DepthGuard guard(*this);
  RETURN_IF_ERROR(guard.Check());
  RETURN_IF_ERROR(Charge(1));
  line_ = expr.line;
  return EvaluateKind(expr);
}

absl::StatusOr<TemplateValue> JinjaEvaluator::EvaluateKind(const JinjaExpr& expr) {
  switch (expr.kind) {
    case JinjaExpr::Kind::kConst:
      return expr.value;
    case JinjaExpr::Kind::kName:
      return EvaluateName(expr);
    case JinjaExpr::Kind::kList:
    case JinjaExpr::Kind::kTuple:
      return EvaluateSequence(expr);
    case JinjaExpr::Kind::kDict:
      return EvaluateDict(expr);
    case JinjaExpr::Kind::kAttribute: {
      ASSIGN_OR_RETURN(const TemplateValue object, Evaluate(*expr.children[0]));
      return Attribute(object, expr.name);
    }
    case JinjaExpr::Kind::kItem: {
      ASSIGN_OR_RETURN(const TemplateValue object, Evaluate(*expr.children[0]));
      ASSIGN_OR_RETURN(const TemplateValue key, Evaluate(*expr.children[1]));
      return Item(object, key);
    }
    case JinjaExpr::Kind::kSlice:
      return EvaluateSlice(expr);
    case JinjaExpr::Kind::kCall:
      return EvaluateCall(expr);
    case JinjaExpr::Kind::kFilter:
      return EvaluateFilter(expr);
    case JinjaExpr::Kind::kTest:
      return EvaluateTest(expr);
    case JinjaExpr::Kind::kUnary:
      return EvaluateUnary(expr);
    case JinjaExpr::Kind::kBinary: {
      ASSIGN_OR_RETURN(const TemplateValue left, Evaluate(*expr.children[0]));
      ASSIGN_OR_RETURN(const TemplateValue right, Evaluate(*expr.children[1]));
      line_ = expr.line;
      return Binary(expr.op, left, right);
    }
    case JinjaExpr::Kind::kAnd:
    case JinjaExpr::Kind::kOr: {
      ASSIGN_OR_RETURN(TemplateValue left, Evaluate(*expr.children[0]));
      if (left.IsTruthy() == (expr.kind == JinjaExpr::Kind::kOr)) return left;
      return Evaluate(*expr.children[1]);
    }
    case JinjaExpr::Kind::kConcat:
      return EvaluateConcat(expr);
    case JinjaExpr::Kind::kCompare:
      return EvaluateCompare(expr);
    case JinjaExpr::Kind::kCondition: {
      ASSIGN_OR_RETURN(const TemplateValue test, Evaluate(*expr.children[0]));
      if (test.IsTruthy()) return Evaluate(*expr.children[1]);
      if (expr.children[2]) return Evaluate(*expr.children[2]);
      return TemplateValue::Undefined("the inline if-expression evaluated to false and no else section was defined");
    }
  }
  return Error("an unknown expression");
}

absl::StatusOr<TemplateValue> JinjaEvaluator::EvaluateName(const JinjaExpr& expr) {
  const TemplateValue& value = *Lookup(expr.name_id);
  if (value.is_undefined()) return TemplateValue::Undefined(ConcatText({"'", expr.name, "' is undefined"}));
  return value;
}

absl::StatusOr<TemplateValue> JinjaEvaluator::EvaluateSequence(const JinjaExpr& expr) {
  std::vector<TemplateValue> items;
  items.reserve(expr.children.size());
  for (const JinjaExprPtr& child : expr.children) {
    ASSIGN_OR_RETURN(TemplateValue item, Evaluate(*child));
    items.push_back(std::move(item));
  }
  return NewList(std::move(items), expr.kind == JinjaExpr::Kind::kTuple ? ListKind::kTuple : ListKind::kList);
}

absl::StatusOr<TemplateValue> JinjaEvaluator::EvaluateDict(const JinjaExpr& expr) {
  RETURN_IF_ERROR(ChargeBytes(sizeof(TemplateDict) + expr.children.size() * sizeof(TemplateValue)));
  TemplateValue dict = TemplateValue::Dict();
  for (size_t i = 0; i + 1 < expr.children.size(); i += 2) {
    ASSIGN_OR_RETURN(TemplateValue key, Evaluate(*expr.children[i]));
    ASSIGN_OR_RETURN(TemplateValue value, Evaluate(*expr.children[i + 1]));
    if (!IsHashable(key)) return Error(ConcatText({"unhashable type: '", key.TypeName(), "'"}));
    dict.as_dict().Set(std::move(key), std::move(value));
  }
  return dict;
}

absl::StatusOr<TemplateValue> JinjaEvaluator::EvaluateSlice(const JinjaExpr& expr) {
  ASSIGN_OR_RETURN(const TemplateValue object, Evaluate(*expr.children[0]));
  TemplateValue bounds[3] = {TemplateValue::None(), TemplateValue::None(), TemplateValue::None()};
  for (size_t i = 0; i < 3; ++i) {
    if (!expr.children[i + 1]) continue;
    ASSIGN_OR_RETURN(bounds[i], Evaluate(*expr.children[i + 1]));
  }
  return Slice(object, bounds);
}

absl::StatusOr<JinjaArgs> JinjaEvaluator::EvaluateArgs(const JinjaCallArgs& args) {
  JinjaArgs result;
  result.positional.reserve(args.positional.size());
  for (const JinjaExprPtr& expr : args.positional) {
    ASSIGN_OR_RETURN(TemplateValue value, Evaluate(*expr));
    result.positional.push_back(std::move(value));
  }
  for (const auto& [name, expr] : args.named) {
    ASSIGN_OR_RETURN(TemplateValue value, Evaluate(*expr));
    result.named.emplace_back(name, std::move(value));
  }
  if (args.star) {
    ASSIGN_OR_RETURN(const TemplateValue star, Evaluate(*args.star));
    ASSIGN_OR_RETURN(std::vector<TemplateValue> items, Items(star));
    for (TemplateValue& item : items) result.positional.push_back(std::move(item));
  }
  if (args.star_star) {
    ASSIGN_OR_RETURN(const TemplateValue star, Evaluate(*args.star_star));
    if (!star.is_dict()) return Error("the argument after ** must be a mapping");
    RETURN_IF_ERROR(Charge(static_cast<int64_t>(star.as_dict().size())));
    for (const auto& [key, value] : star.as_dict().entries()) {
      if (!key.is_string()) return Error("keywords must be strings");
      result.named.emplace_back(std::string(key.text()), value);
    }
  }
  return result;
}

absl::StatusOr<TemplateValue> JinjaEvaluator::EvaluateCall(const JinjaExpr& expr) {
  const JinjaExpr& callee = *expr.children[0];
  if (callee.kind == JinjaExpr::Kind::kAttribute) {
    // x.method(...): no bound method needs to be made.
    ASSIGN_OR_RETURN(const TemplateValue object, Evaluate(*callee.children[0]));
    if (const JinjaMethod method = FindJinjaMethod(object, callee.name); method != nullptr) {
      ASSIGN_OR_RETURN(const JinjaArgs args, EvaluateArgs(expr.args));
      line_ = expr.line;
      return method(*this, object, args);
    }
    ASSIGN_OR_RETURN(const TemplateValue attribute, Attribute(object, callee.name));
    ASSIGN_OR_RETURN(JinjaArgs args, EvaluateArgs(expr.args));
    return Call(attribute, std::move(args));
  }
  ASSIGN_OR_RETURN(const TemplateValue function, Evaluate(callee));
  ASSIGN_OR_RETURN(JinjaArgs args, EvaluateArgs(expr.args));
  line_ = expr.line;
  return Call(function, std::move(args));
}

absl::StatusOr<TemplateValue> JinjaEvaluator::Call(const TemplateValue& callee, JinjaArgs args) {
  if (callee.is_undefined()) return Error(callee.UndefinedMessage());
  auto* object = callee.is_object() ? dynamic_cast<JinjaObject*>(callee.as_object().get()) : nullptr;
  if (object == nullptr) return Error(ConcatText({"'", callee.TypeName(), "' object is not callable"}));
  return object->Call(*this, std::move(args));
}

absl::StatusOr<TemplateValue> JinjaEvaluator::EvaluateFilter(const JinjaExpr& expr) {
  TemplateValue input;
  if (expr.children[0]) {
    ASSIGN_OR_RETURN(input, Evaluate(*expr.children[0]));
  } else {
    input = filter_input_;
  }
  if (expr.filter == nullptr) return Error(ConcatText({"no filter named '", expr.name, "'"}));
  ASSIGN_OR_RETURN(const JinjaArgs args, EvaluateArgs(expr.args));
  line_ = expr.line;
  return expr.filter(*this, input, args);
}

absl::StatusOr<TemplateValue> JinjaEvaluator::EvaluateTest(const JinjaExpr& expr) {
  ASSIGN_OR_RETURN(const TemplateValue input, Evaluate(*expr.children[0]));
  if (expr.test == nullptr) return Error(ConcatText({"no test named '", expr.name, "'"}));
  ASSIGN_OR_RETURN(const JinjaArgs args, EvaluateArgs(expr.args));
  line_ = expr.line;
  ASSIGN_OR_RETURN(const bool result, expr.test(*this, input, args));
  return TemplateValue::Bool(result);
}

absl::StatusOr<TemplateValue> JinjaEvaluator::EvaluateUnary(const JinjaExpr& expr) {
  ASSIGN_OR_RETURN(const TemplateValue operand, Evaluate(*expr.children[0]));
  if (expr.op == JinjaOp::kNot) return TemplateValue::Bool(!operand.IsTruthy());
  if (operand.is_undefined()) return Error(operand.UndefinedMessage());
  if (!operand.is_number()) return Error(ConcatText({"bad operand type for unary sign: '", operand.TypeName(), "'"}));
  if (expr.op == JinjaOp::kPos) return operand.is_bool() ? TemplateValue::Int(operand.integer()) : operand;
  if (operand.is_float()) return TemplateValue::Float(-operand.as_float());
  int64_t negated;
  if (__builtin_sub_overflow(int64_t{0}, operand.integer(), &negated)) return Error("an integer leaves 64 bits");
  return TemplateValue::Int(negated);
}

absl::StatusOr<TemplateValue> JinjaEvaluator::EvaluateConcat(const JinjaExpr& expr) {
  TemplateStringBuilder builder;
  for (const JinjaExprPtr& child : expr.children) {
    ASSIGN_OR_RETURN(const TemplateValue value, Evaluate(*child));
    RETURN_IF_ERROR(AppendStr(value, builder.size_bytes() + std::min(bytes_left_, limits_.max_output_bytes), builder));
    if (builder.size_bytes() > limits_.max_output_bytes) return ChargeBytes(builder.size_bytes());
  }
  return NewString(builder);
}

absl::StatusOr<TemplateValue> JinjaEvaluator::EvaluateCompare(const JinjaExpr& expr) {
  ASSIGN_OR_RETURN(TemplateValue left, Evaluate(*expr.children[0]));
  for (size_t i = 0; i < expr.ops.size(); ++i) {
    ASSIGN_OR_RETURN(TemplateValue right, Evaluate(*expr.children[i + 1]));
    line_ = expr.line;
    ASSIGN_OR_RETURN(const bool holds, Compare(expr.ops[i], left, right));
    if (!holds) return TemplateValue::Bool(false);
    left = std::move(right);
  }
  return TemplateValue::Bool(true);
}

}  // namespace millrace
