// SPDX-License-Identifier: Apache-2.0
#pragma once
// Recursive descent over the tokens of a chat template, after Jinja2's grammar. Internal to the template engine.
#include <memory>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "engine/text/jinja_ast.h"
#include "engine/text/jinja_lexer.h"

namespace millrace {

class JinjaParser {
 public:
  JinjaParser(std::vector<JinjaToken> tokens, const JinjaParseLimits& limits);
  absl::StatusOr<std::unique_ptr<JinjaTree>> Parse();

 private:
  using Expr = absl::StatusOr<JinjaExprPtr>;
  using Statement = absl::StatusOr<std::unique_ptr<JinjaStatement>>;
  // Whether `x if y` may follow, and whether a tuple without brackets may be empty.
  enum class Conditional { kAllowed, kNotHere };

  // --- tokens ---
  const JinjaToken& current() const { return tokens_[position_]; }
  const JinjaToken& look_ahead() const { return tokens_[std::min(position_ + 1, tokens_.size() - 1)]; }
  void Next() { position_ = std::min(position_ + 1, tokens_.size() - 1); }
  bool IsOperator(std::string_view text) const;
  bool IsName(std::string_view text) const;
  bool SkipOperator(std::string_view text);
  bool SkipName(std::string_view text);
  absl::Status ExpectOperator(std::string_view text);
  absl::StatusOr<std::string> ExpectName();
  absl::Status ExpectBlockEnd();
  absl::Status Unexpected(std::string_view wanted) const;
  absl::Status Fail(std::string_view what) const { return JinjaError(current().line, what); }
  int Intern(const std::string& name);

  // --- limits ---
  class DepthGuard;
  absl::Status CheckDepth() const;
  absl::Status CountNode();
  // Fills depth from the children; refuses a tree that is too high.
  Expr Finish(JinjaExprPtr expr);
  Expr Make(JinjaExpr::Kind kind, int line, std::vector<JinjaExprPtr> children);

  // --- statements (jinja_parser.cc) ---
  absl::StatusOr<JinjaBody> ParseBody(std::initializer_list<std::string_view> ends);
  absl::Status ParseOutput(JinjaBody& body);
  Statement ParseStatement();
  Statement ParseIf();
  Statement ParseFor();
  Statement ParseSet();
  Statement ParseMacro();
  Statement ParseCallBlock();
  Statement ParseFilterBlock();
  Statement ParseWith();
  Statement ParseScope(std::string_view end, bool has_name);
  Statement ParsePrint();
  absl::Status ParseSignature(JinjaSignature& signature);
  absl::StatusOr<JinjaTarget> ParseTarget(bool may_be_attribute);
  absl::StatusOr<JinjaTarget> ParseOneTarget(bool may_be_attribute);
  std::unique_ptr<JinjaStatement> NewStatement(JinjaStatement::Kind kind) const;

  // --- expressions (jinja_expr_parser.cc) ---
  Expr ParseExpression();
  Expr ParseTuple(Conditional conditional);
  Expr ParseCondition();
  Expr ParseOr();
  Expr ParseAnd();
  Expr ParseNot();
  Expr ParseCompare();
  Expr ParseSum();
  Expr ParseConcat();
  Expr ParseProduct();
  Expr ParsePower();
  Expr ParseUnary(bool with_filters);
  Expr ParsePrimary();
  Expr ParseBracketed();
  Expr ParseList();
  Expr ParseDict();
  Expr ParsePostfix(JinjaExprPtr expr);
  Expr ParseFilters(JinjaExprPtr expr);
  Expr ParseFilter(JinjaExprPtr input);
  Expr ParseTest(JinjaExprPtr input);
  Expr ParseSubscript(JinjaExprPtr object);
  Expr ParseCall(JinjaExprPtr callee);
  absl::Status ParseCallArgs(JinjaCallArgs& args);
  absl::StatusOr<std::string> ParseDottedName();
  bool IsTupleEnd() const;

  std::vector<JinjaToken> tokens_;
  JinjaParseLimits limits_;
  size_t position_ = 0;
  int depth_ = 0;
  int num_nodes_ = 0;
  int loop_depth_ = 0;
  bool saw_caller_ = false, saw_varargs_ = false, saw_kwargs_ = false;
  std::unique_ptr<JinjaTree> tree_;
  std::unordered_map<std::string, int> name_ids_;
};

// One level of nesting for as long as it lives.
class JinjaParser::DepthGuard {
 public:
  explicit DepthGuard(JinjaParser& parser) : parser_(parser) { ++parser_.depth_; }
  ~DepthGuard() { --parser_.depth_; }
  DepthGuard(const DepthGuard&) = delete;
  DepthGuard& operator=(const DepthGuard&) = delete;

 private:
  JinjaParser& parser_;
};

// The builtin of that name, or null. In jinja_filters.cc and jinja_tests.cc.
JinjaFilter FindJinjaFilter(std::string_view name);
JinjaTest FindJinjaTest(std::string_view name);

}  // namespace millrace
