// SPDX-License-Identifier: Apache-2.0
#include "engine/text/jinja_parser.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "engine/text/jinja_text.h"
#include "kernels/status_macros.h"

namespace millrace {

JinjaParser::JinjaParser(std::vector<JinjaToken> tokens, const JinjaParseLimits& limits)
    : tokens_(std::move(tokens)), limits_(limits), tree_(std::make_unique<JinjaTree>()) {}

bool JinjaParser::IsOperator(std::string_view text) const {
  return current().kind == JinjaTokenKind::kOperator && current().text == text;
}

bool JinjaParser::IsName(std::string_view text) const {
  return current().kind == JinjaTokenKind::kName && current().text == text;
}

bool JinjaParser::SkipOperator(std::string_view text) {
  if (!IsOperator(text)) return false;
  Next();
  return true;
}

bool JinjaParser::SkipName(std::string_view text) {
  if (!IsName(text)) return false;
  Next();
  return true;
}

absl::Status JinjaParser::Unexpected(std::string_view wanted) const {
  static constexpr std::string_view kNames[] = {"text",
                                                "'{{'",
                                                "'}}'",
                                                "'{%'",
                                                "'%}'",
                                                "a name",
                                                "a string",
                                                "a number",
                                                "a number",
                                                "an operator",
                                                "the end of the template"};
  const JinjaToken& token = current();
  const bool has_text = token.kind == JinjaTokenKind::kName || token.kind == JinjaTokenKind::kOperator;
  const std::string found =
      has_text ? ConcatText({"'", token.text, "'"}) : std::string(kNames[static_cast<size_t>(token.kind)]);
  return Fail(ConcatText({"expected ", wanted, ", found ", found}));
}

absl::Status JinjaParser::ExpectOperator(std::string_view text) {
  if (SkipOperator(text)) return absl::OkStatus();
  return Unexpected(ConcatText({"'", text, "'"}));
}

absl::StatusOr<std::string> JinjaParser::ExpectName() {
  if (current().kind != JinjaTokenKind::kName) return Unexpected("a name");
  std::string name = current().text;
  Next();
  return name;
}

absl::Status JinjaParser::ExpectBlockEnd() {
  if (current().kind != JinjaTokenKind::kBlockEnd) return Unexpected("'%}'");
  Next();
  return absl::OkStatus();
}

int JinjaParser::Intern(const std::string& name) {
  const auto [it, is_new] = name_ids_.emplace(name, static_cast<int>(tree_->names.size()));
  if (is_new) tree_->names.push_back(name);
  return it->second;
}

absl::Status JinjaParser::CheckDepth() const {
  if (depth_ <= limits_.max_depth) return absl::OkStatus();
  return Fail(absl::StrCat("nested deeper than the limit of ", limits_.max_depth));
}

absl::Status JinjaParser::CountNode() {
  if (++num_nodes_ <= limits_.max_nodes) return absl::OkStatus();
  return Fail(absl::StrCat("more than the limit of ", limits_.max_nodes, " expressions and statements"));
}

absl::StatusOr<std::unique_ptr<JinjaTree>> JinjaParser::Parse() {
  ASSIGN_OR_RETURN(tree_->body, ParseBody({}));
  return std::move(tree_);
}

std::unique_ptr<JinjaStatement> JinjaParser::NewStatement(JinjaStatement::Kind kind) const {
  auto statement = std::make_unique<JinjaStatement>();
  statement->kind = kind;
  statement->line = current().line;
  return statement;
}

// Statements up to a block that begins with one of `ends`; that name is then the current token. Without `ends`, up to
// the end of the template.
absl::StatusOr<JinjaBody> JinjaParser::ParseBody(std::initializer_list<std::string_view> ends) {
  DepthGuard guard(*this);
  RETURN_IF_ERROR(CheckDepth());
  const int begin_line = current().line;
  JinjaBody body;
  while (true) {
    RETURN_IF_ERROR(CountNode());
    switch (current().kind) {
      case JinjaTokenKind::kData: {
        auto statement = NewStatement(JinjaStatement::Kind::kData);
        statement->text = TemplateString(current().text, TextOrigin::kTemplate);
        body.push_back(std::move(statement));
        Next();
        break;
      }
      case JinjaTokenKind::kVariableBegin:
        RETURN_IF_ERROR(ParseOutput(body));
        break;
      case JinjaTokenKind::kBlockBegin: {
        Next();
        if (std::any_of(ends.begin(), ends.end(), [&](std::string_view end) { return IsName(end); })) return body;
        ASSIGN_OR_RETURN(auto statement, ParseStatement());
        body.push_back(std::move(statement));
        break;
      }
      default:
        if (ends.size() == 0) return body;
        return Fail(ConcatText(
            {"the block of line ", std::to_string(begin_line), " is not closed, expected '", *(ends.end() - 1), "'"}));
    }
  }
}

absl::Status JinjaParser::ParseOutput(JinjaBody& body) {
  auto statement = NewStatement(JinjaStatement::Kind::kOutput);
  Next();
  ASSIGN_OR_RETURN(JinjaExprPtr expr, ParseTuple(Conditional::kAllowed));
  if (current().kind != JinjaTokenKind::kVariableEnd) return Unexpected("'}}'");
  Next();
  statement->expressions.push_back(std::move(expr));
  body.push_back(std::move(statement));
  return absl::OkStatus();
}

JinjaParser::Statement JinjaParser::ParseStatement() {
  if (current().kind != JinjaTokenKind::kName) return Unexpected("the name of a tag");
  const std::string tag = current().text;
  if (tag == "if") return ParseIf();
  if (tag == "for") return ParseFor();
  if (tag == "set") return ParseSet();
  if (tag == "macro") return ParseMacro();
  if (tag == "call") return ParseCallBlock();
  if (tag == "filter") return ParseFilterBlock();
  if (tag == "with") return ParseWith();
  if (tag == "print") return ParsePrint();
  if (tag == "generation") return ParseScope("endgeneration", /*has_name=*/false);
  if (tag == "block") return ParseScope("endblock", /*has_name=*/true);
  if (tag == "break" || tag == "continue") {
    if (loop_depth_ == 0) return Fail(ConcatText({"'", tag, "' outside of a loop"}));
    auto statement = NewStatement(tag == "break" ? JinjaStatement::Kind::kBreak : JinjaStatement::Kind::kContinue);
    Next();
    RETURN_IF_ERROR(ExpectBlockEnd());
    return statement;
  }
  if (tag == "include" || tag == "extends" || tag == "import" || tag == "from") {
    return Fail(ConcatText({"'", tag, "' is not supported: a chat template is one file"}));
  }
  if (tag == "autoescape" || tag == "do" || tag == "trans" || tag == "debug") {
    return Fail(ConcatText({"the tag '", tag, "' is not supported in chat templates"}));
  }
  return Fail(ConcatText({"unknown tag '", tag, "'"}));
}

JinjaParser::Statement JinjaParser::ParseIf() {
  auto statement = NewStatement(JinjaStatement::Kind::kIf);
  while (true) {
    Next();  // if, elif
    ASSIGN_OR_RETURN(JinjaExprPtr test, ParseTuple(Conditional::kNotHere));
    statement->expressions.push_back(std::move(test));
    RETURN_IF_ERROR(ExpectBlockEnd());
    ASSIGN_OR_RETURN(JinjaBody body, ParseBody({"elif", "else", "endif"}));
    statement->bodies.push_back(std::move(body));
    if (!IsName("elif")) break;
  }
  if (SkipName("else")) {
    RETURN_IF_ERROR(ExpectBlockEnd());
    ASSIGN_OR_RETURN(JinjaBody body, ParseBody({"endif"}));
    statement->bodies.push_back(std::move(body));
  }
  Next();
  RETURN_IF_ERROR(ExpectBlockEnd());
  return statement;
}

JinjaParser::Statement JinjaParser::ParseFor() {
  auto statement = NewStatement(JinjaStatement::Kind::kFor);
  Next();
  ASSIGN_OR_RETURN(statement->target, ParseTarget(/*may_be_attribute=*/false));
  if (!SkipName("in")) return Unexpected("'in'");
  ASSIGN_OR_RETURN(JinjaExprPtr iterable, ParseTuple(Conditional::kNotHere));
  JinjaExprPtr filter;
  if (SkipName("if")) {
    ASSIGN_OR_RETURN(filter, ParseExpression());
  }
  statement->is_recursive = SkipName("recursive");
  RETURN_IF_ERROR(ExpectBlockEnd());
  statement->expressions.push_back(std::move(iterable));
  statement->expressions.push_back(std::move(filter));
  ++loop_depth_;
  ASSIGN_OR_RETURN(JinjaBody body, ParseBody({"else", "endfor"}));
  --loop_depth_;
  statement->bodies.push_back(std::move(body));
  statement->bodies.emplace_back();
  if (SkipName("else")) {
    RETURN_IF_ERROR(ExpectBlockEnd());
    ASSIGN_OR_RETURN(statement->bodies[1], ParseBody({"endfor"}));
  }
  Next();
  RETURN_IF_ERROR(ExpectBlockEnd());
  return statement;
}

JinjaParser::Statement JinjaParser::ParseSet() {
  auto statement = NewStatement(JinjaStatement::Kind::kSet);
  Next();
  ASSIGN_OR_RETURN(statement->target, ParseTarget(/*may_be_attribute=*/true));
  if (SkipOperator("=")) {
    ASSIGN_OR_RETURN(JinjaExprPtr value, ParseTuple(Conditional::kAllowed));
    statement->expressions.push_back(std::move(value));
    RETURN_IF_ERROR(ExpectBlockEnd());
    return statement;
  }
  statement->kind = JinjaStatement::Kind::kSetBlock;
  JinjaExprPtr filter;
  if (IsOperator("|")) {
    ASSIGN_OR_RETURN(filter, ParseFilters(nullptr));
  }
  statement->expressions.push_back(std::move(filter));
  RETURN_IF_ERROR(ExpectBlockEnd());
  ASSIGN_OR_RETURN(JinjaBody body, ParseBody({"endset"}));
  statement->bodies.push_back(std::move(body));
  Next();
  RETURN_IF_ERROR(ExpectBlockEnd());
  return statement;
}

absl::StatusOr<JinjaTarget> JinjaParser::ParseOneTarget(bool may_be_attribute) {
  DepthGuard guard(*this);
  RETURN_IF_ERROR(CheckDepth());
  if (SkipOperator("(")) {
    ASSIGN_OR_RETURN(JinjaTarget target, ParseTarget(may_be_attribute));
    RETURN_IF_ERROR(ExpectOperator(")"));
    return target;
  }
  ASSIGN_OR_RETURN(const std::string name, ExpectName());
  static constexpr std::string_view kConstants[] = {"true", "false", "none", "True", "False", "None"};
  if (std::find(std::begin(kConstants), std::end(kConstants), name) != std::end(kConstants)) {
    return Fail(ConcatText({"can't assign to '", name, "'"}));
  }
  JinjaTarget target;
  target.name_id = Intern(name);
  if (may_be_attribute && SkipOperator(".")) {
    ASSIGN_OR_RETURN(target.attribute, ExpectName());
  }
  return target;
}

absl::StatusOr<JinjaTarget> JinjaParser::ParseTarget(bool may_be_attribute) {
  ASSIGN_OR_RETURN(JinjaTarget first, ParseOneTarget(may_be_attribute));
  if (!IsOperator(",")) return first;
  JinjaTarget tuple;
  tuple.parts.push_back(std::move(first));
  while (SkipOperator(",")) {
    if (current().kind != JinjaTokenKind::kName && !IsOperator("(")) break;
    if (IsName("in")) break;
    RETURN_IF_ERROR(CountNode());
    ASSIGN_OR_RETURN(JinjaTarget part, ParseOneTarget(may_be_attribute));
    tuple.parts.push_back(std::move(part));
  }
  return tuple;
}

absl::Status JinjaParser::ParseSignature(JinjaSignature& signature) {
  RETURN_IF_ERROR(ExpectOperator("("));
  while (!IsOperator(")")) {
    if (!signature.parameters.empty()) RETURN_IF_ERROR(ExpectOperator(","));
    RETURN_IF_ERROR(CountNode());
    ASSIGN_OR_RETURN(const std::string name, ExpectName());
    for (const auto& [id, known] : signature.parameters) {
      if (known == name) return Fail(ConcatText({"the parameter '", name, "' appears twice"}));
    }
    signature.parameters.emplace_back(Intern(name), name);
    if (SkipOperator("=")) {
      ASSIGN_OR_RETURN(JinjaExprPtr value, ParseExpression());
      signature.defaults.push_back(std::move(value));
    } else if (!signature.defaults.empty()) {
      return Fail("a parameter without default follows one with default");
    }
  }
  return ExpectOperator(")");
}

JinjaParser::Statement JinjaParser::ParseMacro() {
  auto statement = NewStatement(JinjaStatement::Kind::kMacro);
  Next();
  ASSIGN_OR_RETURN(const std::string name, ExpectName());
  statement->name_id = Intern(name);
  RETURN_IF_ERROR(ParseSignature(statement->signature));
  RETURN_IF_ERROR(ExpectBlockEnd());
  // What a macro's body mentions decides what it accepts: caller, varargs, kwargs.
  const auto saved = std::make_tuple(saw_caller_, saw_varargs_, saw_kwargs_, loop_depth_);
  saw_caller_ = saw_varargs_ = saw_kwargs_ = false;
  loop_depth_ = 0;
  ASSIGN_OR_RETURN(JinjaBody body, ParseBody({"endmacro"}));
  statement->signature.uses_caller = saw_caller_;
  statement->signature.uses_varargs = saw_varargs_;
  statement->signature.uses_kwargs = saw_kwargs_;
  std::tie(saw_caller_, saw_varargs_, saw_kwargs_, loop_depth_) = saved;
  statement->bodies.push_back(std::move(body));
  Next();
  RETURN_IF_ERROR(ExpectBlockEnd());
  statement->text = TemplateString(name, TextOrigin::kTemplate);
  return statement;
}

JinjaParser::Statement JinjaParser::ParseCallBlock() {
  auto statement = NewStatement(JinjaStatement::Kind::kCallBlock);
  Next();
  if (IsOperator("(")) RETURN_IF_ERROR(ParseSignature(statement->signature));
  ASSIGN_OR_RETURN(JinjaExprPtr call, ParseExpression());
  if (call->kind != JinjaExpr::Kind::kCall) return Fail("a call block needs a call");
  statement->expressions.push_back(std::move(call));
  RETURN_IF_ERROR(ExpectBlockEnd());
  const int saved_loop_depth = std::exchange(loop_depth_, 0);
  ASSIGN_OR_RETURN(JinjaBody body, ParseBody({"endcall"}));
  loop_depth_ = saved_loop_depth;
  statement->bodies.push_back(std::move(body));
  Next();
  RETURN_IF_ERROR(ExpectBlockEnd());
  return statement;
}

JinjaParser::Statement JinjaParser::ParseFilterBlock() {
  auto statement = NewStatement(JinjaStatement::Kind::kFilter);
  Next();
  ASSIGN_OR_RETURN(JinjaExprPtr first, ParseFilter(nullptr));
  ASSIGN_OR_RETURN(JinjaExprPtr filters, ParseFilters(std::move(first)));
  statement->expressions.push_back(std::move(filters));
  RETURN_IF_ERROR(ExpectBlockEnd());
  ASSIGN_OR_RETURN(JinjaBody body, ParseBody({"endfilter"}));
  statement->bodies.push_back(std::move(body));
  Next();
  RETURN_IF_ERROR(ExpectBlockEnd());
  return statement;
}

JinjaParser::Statement JinjaParser::ParseWith() {
  auto statement = NewStatement(JinjaStatement::Kind::kWith);
  Next();
  while (current().kind != JinjaTokenKind::kBlockEnd) {
    if (!statement->targets.empty()) RETURN_IF_ERROR(ExpectOperator(","));
    ASSIGN_OR_RETURN(JinjaTarget target, ParseOneTarget(/*may_be_attribute=*/false));
    RETURN_IF_ERROR(ExpectOperator("="));
    ASSIGN_OR_RETURN(JinjaExprPtr value, ParseExpression());
    statement->targets.push_back(std::move(target));
    statement->expressions.push_back(std::move(value));
  }
  Next();
  ASSIGN_OR_RETURN(JinjaBody body, ParseBody({"endwith"}));
  statement->bodies.push_back(std::move(body));
  Next();
  RETURN_IF_ERROR(ExpectBlockEnd());
  return statement;
}

// A block that only opens a scope: generation marks (they matter to training alone) and named blocks, which without
// inheritance stand where they are written.
JinjaParser::Statement JinjaParser::ParseScope(std::string_view end, bool has_name) {
  auto statement = NewStatement(JinjaStatement::Kind::kScope);
  Next();
  if (has_name) {
    ASSIGN_OR_RETURN(const std::string name, ExpectName());
    SkipName("scoped");
    SkipName("required");
  }
  RETURN_IF_ERROR(ExpectBlockEnd());
  const int saved_loop_depth = std::exchange(loop_depth_, 0);
  ASSIGN_OR_RETURN(JinjaBody body, ParseBody({end}));
  loop_depth_ = saved_loop_depth;
  statement->bodies.push_back(std::move(body));
  Next();
  if (has_name && current().kind == JinjaTokenKind::kName) Next();
  RETURN_IF_ERROR(ExpectBlockEnd());
  return statement;
}

JinjaParser::Statement JinjaParser::ParsePrint() {
  auto statement = NewStatement(JinjaStatement::Kind::kOutput);
  Next();
  while (current().kind != JinjaTokenKind::kBlockEnd) {
    if (!statement->expressions.empty()) RETURN_IF_ERROR(ExpectOperator(","));
    ASSIGN_OR_RETURN(JinjaExprPtr expr, ParseExpression());
    statement->expressions.push_back(std::move(expr));
  }
  Next();
  return statement;
}

absl::StatusOr<std::unique_ptr<JinjaTree>> ParseJinja(std::string_view source, const JinjaParseLimits& limits) {
  if (source.size() > limits.max_source_bytes) {
    return absl::InvalidArgumentError(absl::StrCat("the chat template has ", source.size(),
                                                   " bytes, more than the limit of ", limits.max_source_bytes));
  }
  ASSIGN_OR_RETURN(std::vector<JinjaToken> tokens, LexJinja(source));
  return JinjaParser(std::move(tokens), limits).Parse();
}

}  // namespace millrace
