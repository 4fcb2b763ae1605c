// SPDX-License-Identifier: Apache-2.0
// Expressions, lowest precedence first: x if y else z, or, and, not, comparisons, + -, ~, * / // %, **, unary signs,
// then subscripts, calls, filters and tests.
#include <algorithm>

#include "absl/strings/str_cat.h"
#include "engine/text/jinja_parser.h"
#include "engine/text/jinja_text.h"
#include "kernels/status_macros.h"

namespace millrace {
namespace {

std::vector<JinjaExprPtr> Children(JinjaExprPtr a, JinjaExprPtr b = nullptr) {
  std::vector<JinjaExprPtr> children;
  children.push_back(std::move(a));
  if (b) children.push_back(std::move(b));
  return children;
}

}  // namespace

JinjaParser::Expr JinjaParser::Finish(JinjaExprPtr expr) {
  RETURN_IF_ERROR(CountNode());
  int below = 0;
  const auto look = [&below](const JinjaExprPtr& child) {
    if (child) below = std::max(below, child->depth);
  };
  for (const JinjaExprPtr& child : expr->children) look(child);
  for (const JinjaExprPtr& child : expr->args.positional) look(child);
  for (const auto& [name, child] : expr->args.named) look(child);
  look(expr->args.star);
  look(expr->args.star_star);
  expr->depth = below + 1;
  // Chains of binary operators are built without recursion here, but are walked with it.
  if (expr->depth > limits_.max_expression_height) {
    return Fail(absl::StrCat("an expression longer than the limit of ", limits_.max_expression_height, " operators"));
  }
  return expr;
}

JinjaParser::Expr JinjaParser::Make(JinjaExpr::Kind kind, int line, std::vector<JinjaExprPtr> children) {
  auto expr = std::make_unique<JinjaExpr>();
  expr->kind = kind;
  expr->line = line;
  expr->children = std::move(children);
  return Finish(std::move(expr));
}

JinjaParser::Expr JinjaParser::ParseExpression() { return ParseCondition(); }

bool JinjaParser::IsTupleEnd() const {
  switch (current().kind) {
    case JinjaTokenKind::kVariableEnd:
    case JinjaTokenKind::kBlockEnd:
    case JinjaTokenKind::kEnd:
      return true;
    case JinjaTokenKind::kOperator:
      return current().text == ")" || current().text == "=";
    case JinjaTokenKind::kName:
      return current().text == "in" || current().text == "recursive";
    default:
      return false;
  }
}

// One expression, or several with commas between.
JinjaParser::Expr JinjaParser::ParseTuple(Conditional conditional) {
  const int line = current().line;
  std::vector<JinjaExprPtr> items;
  bool is_tuple = false;
  while (true) {
    if (IsTupleEnd()) break;
    ASSIGN_OR_RETURN(JinjaExprPtr item, conditional == Conditional::kAllowed ? ParseCondition() : ParseOr());
    items.push_back(std::move(item));
    if (!SkipOperator(",")) break;
    is_tuple = true;
  }
  if (!is_tuple) {
    if (items.empty()) return Unexpected("an expression");
    return std::move(items[0]);
  }
  return Make(JinjaExpr::Kind::kTuple, line, std::move(items));
}

JinjaParser::Expr JinjaParser::ParseCondition() {
  DepthGuard guard(*this);
  RETURN_IF_ERROR(CheckDepth());
  ASSIGN_OR_RETURN(JinjaExprPtr then, ParseOr());
  while (IsName("if")) {
    const int line = current().line;
    Next();
    ASSIGN_OR_RETURN(JinjaExprPtr test, ParseOr());
    JinjaExprPtr otherwise;
    if (SkipName("else")) {
      ASSIGN_OR_RETURN(otherwise, ParseCondition());
    }
    std::vector<JinjaExprPtr> children = Children(std::move(test), std::move(then));
    children.push_back(std::move(otherwise));
    ASSIGN_OR_RETURN(then, Make(JinjaExpr::Kind::kCondition, line, std::move(children)));
  }
  return then;
}

JinjaParser::Expr JinjaParser::ParseOr() {
  ASSIGN_OR_RETURN(JinjaExprPtr left, ParseAnd());
  while (IsName("or")) {
    const int line = current().line;
    Next();
    ASSIGN_OR_RETURN(JinjaExprPtr right, ParseAnd());
    ASSIGN_OR_RETURN(left, Make(JinjaExpr::Kind::kOr, line, Children(std::move(left), std::move(right))));
  }
  return left;
}

JinjaParser::Expr JinjaParser::ParseAnd() {
  ASSIGN_OR_RETURN(JinjaExprPtr left, ParseNot());
  while (IsName("and")) {
    const int line = current().line;
    Next();
    ASSIGN_OR_RETURN(JinjaExprPtr right, ParseNot());
    ASSIGN_OR_RETURN(left, Make(JinjaExpr::Kind::kAnd, line, Children(std::move(left), std::move(right))));
  }
  return left;
}

JinjaParser::Expr JinjaParser::ParseNot() {
  if (!IsName("not")) return ParseCompare();
  DepthGuard guard(*this);
  RETURN_IF_ERROR(CheckDepth());
  const int line = current().line;
  Next();
  ASSIGN_OR_RETURN(JinjaExprPtr operand, ParseNot());
  ASSIGN_OR_RETURN(JinjaExprPtr expr, Make(JinjaExpr::Kind::kUnary, line, Children(std::move(operand))));
  expr->op = JinjaOp::kNot;
  return expr;
}

JinjaParser::Expr JinjaParser::ParseCompare() {
  static constexpr std::pair<std::string_view, JinjaOp> kOperators[] = {{"==", JinjaOp::kEq}, {"!=", JinjaOp::kNe},
                                                                        {"<", JinjaOp::kLt},  {"<=", JinjaOp::kLe},
                                                                        {">", JinjaOp::kGt},  {">=", JinjaOp::kGe}};
  const int line = current().line;
  ASSIGN_OR_RETURN(JinjaExprPtr first, ParseSum());
  std::vector<JinjaExprPtr> operands;
  operands.push_back(std::move(first));
  std::vector<JinjaOp> ops;
  while (true) {
    const auto* found = std::find_if(std::begin(kOperators), std::end(kOperators),
                                     [&](const auto& candidate) { return IsOperator(candidate.first); });
    if (found != std::end(kOperators)) {
      ops.push_back(found->second);
    } else if (IsName("in")) {
      ops.push_back(JinjaOp::kIn);
    } else if (IsName("not") && look_ahead().kind == JinjaTokenKind::kName && look_ahead().text == "in") {
      Next();
      ops.push_back(JinjaOp::kNotIn);
    } else {
      break;
    }
    Next();
    ASSIGN_OR_RETURN(JinjaExprPtr operand, ParseSum());
    operands.push_back(std::move(operand));
  }
  if (ops.empty()) return std::move(operands[0]);
  ASSIGN_OR_RETURN(JinjaExprPtr expr, Make(JinjaExpr::Kind::kCompare, line, std::move(operands)));
  expr->ops = std::move(ops);
  return expr;
}

JinjaParser::Expr JinjaParser::ParseSum() {
  ASSIGN_OR_RETURN(JinjaExprPtr left, ParseConcat());
  while (IsOperator("+") || IsOperator("-")) {
    const JinjaOp op = IsOperator("+") ? JinjaOp::kAdd : JinjaOp::kSub;
    const int line = current().line;
    Next();
    ASSIGN_OR_RETURN(JinjaExprPtr right, ParseConcat());
    ASSIGN_OR_RETURN(left, Make(JinjaExpr::Kind::kBinary, line, Children(std::move(left), std::move(right))));
    left->op = op;
  }
  return left;
}

JinjaParser::Expr JinjaParser::ParseConcat() {
  const int line = current().line;
  ASSIGN_OR_RETURN(JinjaExprPtr first, ParseProduct());
  if (!IsOperator("~")) return first;
  std::vector<JinjaExprPtr> operands;
  operands.push_back(std::move(first));
  while (SkipOperator("~")) {
    ASSIGN_OR_RETURN(JinjaExprPtr operand, ParseProduct());
    operands.push_back(std::move(operand));
  }
  return Make(JinjaExpr::Kind::kConcat, line, std::move(operands));
}

JinjaParser::Expr JinjaParser::ParseProduct() {
  static constexpr std::pair<std::string_view, JinjaOp> kOperators[] = {
      {"*", JinjaOp::kMul}, {"/", JinjaOp::kDiv}, {"//", JinjaOp::kFloorDiv}, {"%", JinjaOp::kMod}};
  ASSIGN_OR_RETURN(JinjaExprPtr left, ParsePower());
  while (true) {
    const auto* found = std::find_if(std::begin(kOperators), std::end(kOperators),
                                     [&](const auto& candidate) { return IsOperator(candidate.first); });
    if (found == std::end(kOperators)) return left;
    const int line = current().line;
    Next();
    ASSIGN_OR_RETURN(JinjaExprPtr right, ParsePower());
    ASSIGN_OR_RETURN(left, Make(JinjaExpr::Kind::kBinary, line, Children(std::move(left), std::move(right))));
    left->op = found->second;
  }
}

JinjaParser::Expr JinjaParser::ParsePower() {
  ASSIGN_OR_RETURN(JinjaExprPtr left, ParseUnary(/*with_filters=*/true));
  while (IsOperator("**")) {
    const int line = current().line;
    Next();
    ASSIGN_OR_RETURN(JinjaExprPtr right, ParseUnary(/*with_filters=*/true));
    ASSIGN_OR_RETURN(left, Make(JinjaExpr::Kind::kBinary, line, Children(std::move(left), std::move(right))));
    left->op = JinjaOp::kPow;
  }
  return left;
}

JinjaParser::Expr JinjaParser::ParseUnary(bool with_filters) {
  DepthGuard guard(*this);
  RETURN_IF_ERROR(CheckDepth());
  const int line = current().line;
  JinjaExprPtr expr;
  if (IsOperator("-") || IsOperator("+")) {
    const JinjaOp op = IsOperator("-") ? JinjaOp::kNeg : JinjaOp::kPos;
    Next();
    ASSIGN_OR_RETURN(JinjaExprPtr operand, ParseUnary(/*with_filters=*/false));
    ASSIGN_OR_RETURN(expr, Make(JinjaExpr::Kind::kUnary, line, Children(std::move(operand))));
    expr->op = op;
  } else {
    ASSIGN_OR_RETURN(expr, ParsePrimary());
  }
  ASSIGN_OR_RETURN(expr, ParsePostfix(std::move(expr)));
  if (with_filters) return ParseFilters(std::move(expr));
  return expr;
}

JinjaParser::Expr JinjaParser::ParsePrimary() {
  const JinjaToken& token = current();
  auto expr = std::make_unique<JinjaExpr>();
  expr->line = token.line;
  switch (token.kind) {
    case JinjaTokenKind::kName: {
      const std::string& name = token.text;
      if (name == "true" || name == "True" || name == "false" || name == "False") {
        expr->value = TemplateValue::Bool(name == "true" || name == "True");
      } else if (name == "none" || name == "None") {
        expr->value = TemplateValue::None();
      } else {
        expr->kind = JinjaExpr::Kind::kName;
        expr->name = name;
        expr->name_id = Intern(name);
        saw_caller_ |= name == "caller";
        saw_varargs_ |= name == "varargs";
        saw_kwargs_ |= name == "kwargs";
      }
      Next();
      return Finish(std::move(expr));
    }
    case JinjaTokenKind::kString: {
      std::string text;
      for (; current().kind == JinjaTokenKind::kString; Next()) text += current().text;
      expr->value = TemplateValue::Trusted(text);
      return Finish(std::move(expr));
    }
    case JinjaTokenKind::kInteger:
      expr->value = TemplateValue::Int(token.integer);
      Next();
      return Finish(std::move(expr));
    case JinjaTokenKind::kFloat:
      expr->value = TemplateValue::Float(token.number);
      Next();
      return Finish(std::move(expr));
    default:
      return ParseBracketed();
  }
}

JinjaParser::Expr JinjaParser::ParseBracketed() {
  DepthGuard guard(*this);
  RETURN_IF_ERROR(CheckDepth());
  if (IsOperator("[")) return ParseList();
  if (IsOperator("{")) return ParseDict();
  const int line = current().line;
  if (!SkipOperator("(")) return Unexpected("an expression");
  if (SkipOperator(")")) return Make(JinjaExpr::Kind::kTuple, line, {});
  ASSIGN_OR_RETURN(JinjaExprPtr expr, ParseTuple(Conditional::kAllowed));
  RETURN_IF_ERROR(ExpectOperator(")"));
  return expr;
}

JinjaParser::Expr JinjaParser::ParseList() {
  const int line = current().line;
  Next();
  std::vector<JinjaExprPtr> items;
  while (!IsOperator("]")) {
    if (!items.empty()) RETURN_IF_ERROR(ExpectOperator(","));
    if (IsOperator("]")) break;
    ASSIGN_OR_RETURN(JinjaExprPtr item, ParseExpression());
    items.push_back(std::move(item));
  }
  Next();
  return Make(JinjaExpr::Kind::kList, line, std::move(items));
}

JinjaParser::Expr JinjaParser::ParseDict() {
  const int line = current().line;
  Next();
  std::vector<JinjaExprPtr> items;
  while (!IsOperator("}")) {
    if (!items.empty()) RETURN_IF_ERROR(ExpectOperator(","));
    if (IsOperator("}")) break;
    ASSIGN_OR_RETURN(JinjaExprPtr key, ParseExpression());
    RETURN_IF_ERROR(ExpectOperator(":"));
    ASSIGN_OR_RETURN(JinjaExprPtr value, ParseExpression());
    items.push_back(std::move(key));
    items.push_back(std::move(value));
  }
  Next();
  return Make(JinjaExpr::Kind::kDict, line, std::move(items));
}

JinjaParser::Expr JinjaParser::ParsePostfix(JinjaExprPtr expr) {
  while (true) {
    if (IsOperator(".") || IsOperator("[")) {
      ASSIGN_OR_RETURN(expr, ParseSubscript(std::move(expr)));
    } else if (IsOperator("(")) {
      ASSIGN_OR_RETURN(expr, ParseCall(std::move(expr)));
    } else {
      return expr;
    }
  }
}

JinjaParser::Expr JinjaParser::ParseFilters(JinjaExprPtr expr) {
  while (true) {
    if (SkipOperator("|")) {
      ASSIGN_OR_RETURN(expr, ParseFilter(std::move(expr)));
    } else if (expr && SkipName("is")) {
      ASSIGN_OR_RETURN(expr, ParseTest(std::move(expr)));
    } else if (expr && IsOperator("(")) {
      ASSIGN_OR_RETURN(expr, ParseCall(std::move(expr)));
    } else {
      return expr;
    }
  }
}

absl::StatusOr<std::string> JinjaParser::ParseDottedName() {
  ASSIGN_OR_RETURN(std::string name, ExpectName());
  while (SkipOperator(".")) {
    ASSIGN_OR_RETURN(const std::string part, ExpectName());
    name += '.';
    name += part;
  }
  return name;
}

// After the '|'.
JinjaParser::Expr JinjaParser::ParseFilter(JinjaExprPtr input) {
  auto expr = std::make_unique<JinjaExpr>();
  expr->kind = JinjaExpr::Kind::kFilter;
  expr->line = current().line;
  ASSIGN_OR_RETURN(expr->name, ParseDottedName());
  expr->filter = FindJinjaFilter(expr->name);
  expr->children.push_back(std::move(input));
  if (IsOperator("(")) RETURN_IF_ERROR(ParseCallArgs(expr->args));
  return Finish(std::move(expr));
}

// After the 'is'.
JinjaParser::Expr JinjaParser::ParseTest(JinjaExprPtr input) {
  auto expr = std::make_unique<JinjaExpr>();
  expr->kind = JinjaExpr::Kind::kTest;
  expr->line = current().line;
  const bool is_negated = SkipName("not");
  ASSIGN_OR_RETURN(expr->name, ParseDottedName());
  expr->test = FindJinjaTest(expr->name);
  expr->children.push_back(std::move(input));
  const JinjaToken& token = current();
  const bool is_value =
      token.kind == JinjaTokenKind::kString || token.kind == JinjaTokenKind::kInteger ||
      token.kind == JinjaTokenKind::kFloat || IsOperator("[") || IsOperator("{") ||
      (token.kind == JinjaTokenKind::kName && token.text != "else" && token.text != "or" && token.text != "and" &&
       token.text != "if" && token.text != "in" && token.text != "not" && token.text != "recursive");
  if (IsOperator("(")) {
    RETURN_IF_ERROR(ParseCallArgs(expr->args));
  } else if (IsName("is")) {
    return Fail("tests cannot be chained with 'is'");
  } else if (is_value) {
    ASSIGN_OR_RETURN(JinjaExprPtr arg, ParsePrimary());
    ASSIGN_OR_RETURN(arg, ParsePostfix(std::move(arg)));
    expr->args.positional.push_back(std::move(arg));
  }
  ASSIGN_OR_RETURN(JinjaExprPtr test, Finish(std::move(expr)));
  if (!is_negated) return test;
  const int line = test->line;
  ASSIGN_OR_RETURN(JinjaExprPtr negation, Make(JinjaExpr::Kind::kUnary, line, Children(std::move(test))));
  negation->op = JinjaOp::kNot;
  return negation;
}

JinjaParser::Expr JinjaParser::ParseSubscript(JinjaExprPtr object) {
  const int line = current().line;
  if (SkipOperator(".")) {
    if (current().kind == JinjaTokenKind::kInteger) {
      ASSIGN_OR_RETURN(JinjaExprPtr index, ParsePrimary());
      return Make(JinjaExpr::Kind::kItem, line, Children(std::move(object), std::move(index)));
    }
    ASSIGN_OR_RETURN(std::string name, ExpectName());
    ASSIGN_OR_RETURN(JinjaExprPtr expr, Make(JinjaExpr::Kind::kAttribute, line, Children(std::move(object))));
    expr->name = std::move(name);
    return expr;
  }
  Next();  // [
  JinjaExprPtr parts[3];
  bool is_slice = false;
  for (size_t part = 0; part < 3; ++part) {
    if (!IsOperator(":") && !IsOperator("]")) {
      ASSIGN_OR_RETURN(parts[part], ParseExpression());
    }
    if (part == 2 || !SkipOperator(":")) break;
    is_slice = true;
  }
  RETURN_IF_ERROR(ExpectOperator("]"));
  if (is_slice) {
    std::vector<JinjaExprPtr> children = Children(std::move(object));
    for (JinjaExprPtr& part : parts) children.push_back(std::move(part));
    return Make(JinjaExpr::Kind::kSlice, line, std::move(children));
  }
  if (parts[0] == nullptr) {
    // x[] is read as x[undefined].
    ASSIGN_OR_RETURN(parts[0], Make(JinjaExpr::Kind::kConst, line, {}));
  }
  return Make(JinjaExpr::Kind::kItem, line, Children(std::move(object), std::move(parts[0])));
}

JinjaParser::Expr JinjaParser::ParseCall(JinjaExprPtr callee) {
  auto expr = std::make_unique<JinjaExpr>();
  expr->kind = JinjaExpr::Kind::kCall;
  expr->line = current().line;
  expr->children.push_back(std::move(callee));
  RETURN_IF_ERROR(ParseCallArgs(expr->args));
  return Finish(std::move(expr));
}

absl::Status JinjaParser::ParseCallArgs(JinjaCallArgs& args) {
  RETURN_IF_ERROR(ExpectOperator("("));
  bool is_first = true;
  while (!IsOperator(")")) {
    if (!is_first) RETURN_IF_ERROR(ExpectOperator(","));
    is_first = false;
    if (IsOperator(")")) break;
    if (SkipOperator("*")) {
      if (args.star) return Fail("'*' twice in one call");
      ASSIGN_OR_RETURN(args.star, ParseExpression());
    } else if (SkipOperator("**")) {
      if (args.star_star) return Fail("'**' twice in one call");
      ASSIGN_OR_RETURN(args.star_star, ParseExpression());
    } else if (current().kind == JinjaTokenKind::kName && look_ahead().kind == JinjaTokenKind::kOperator &&
               look_ahead().text == "=") {
      std::string name = current().text;
      Next();
      Next();
      ASSIGN_OR_RETURN(JinjaExprPtr value, ParseExpression());
      args.named.emplace_back(std::move(name), std::move(value));
    } else {
      if (!args.named.empty() || args.star || args.star_star) {
        return Fail("a positional argument follows a named one");
      }
      ASSIGN_OR_RETURN(JinjaExprPtr value, ParseExpression());
      args.positional.push_back(std::move(value));
    }
  }
  return ExpectOperator(")");
}

}  // namespace millrace
