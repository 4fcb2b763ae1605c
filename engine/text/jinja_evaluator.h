// SPDX-License-Identifier: Apache-2.0
#pragma once
// One render of one chat template: walks the tree, holds the scopes, the output and what is left of the limits.
// One thread, used once. Internal to the template engine.
#include <deque>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "engine/text/jinja_ast.h"
#include "engine/text/jinja_object.h"
#include "engine/text/jinja_template.h"
#include "engine/text/template_string.h"
#include "engine/text/template_value.h"

namespace millrace {

class JinjaEvaluator {
 public:
  JinjaEvaluator(const JinjaTree& tree, const JinjaLimits& limits, const JinjaRenderOptions& options);
  ~JinjaEvaluator();
  JinjaEvaluator(const JinjaEvaluator&) = delete;
  JinjaEvaluator& operator=(const JinjaEvaluator&) = delete;

  absl::StatusOr<TemplateString> Render(const TemplateValue& variables);

  // --- what is left (jinja_evaluator.cc) ---
  absl::Status Charge(int64_t num_steps) {
    steps_left_ -= num_steps;
    return steps_left_ >= 0 ? absl::OkStatus() : StepsExhausted();
  }
  // For a string or container of that size about to be built.
  absl::Status ChargeBytes(size_t num_bytes);
  absl::Status Error(std::string_view what) const { return absl::InvalidArgumentError(std::string(what)); }
  const JinjaLimits& limits() const { return limits_; }
  const JinjaRenderOptions& options() const { return options_; }

  // --- statements (jinja_statements.cc) ---
  enum class Flow { kNext, kBreak, kContinue };
  absl::StatusOr<Flow> Execute(const JinjaBody& body);
  // The output of a body as a string.
  absl::StatusOr<TemplateValue> Capture(const JinjaBody& body);
  absl::StatusOr<Flow> Loop(const JinjaStatement& statement, const TemplateValue& iterable, int loop_depth);
  // What a recursive loop prints for other items, with the variables of `scope` around it.
  absl::StatusOr<TemplateValue> CaptureLoop(const JinjaStatement& statement, const TemplateValue& iterable,
                                            JinjaScope* scope, int loop_depth);

  // --- expressions (jinja_expressions.cc) ---
  absl::StatusOr<TemplateValue> Evaluate(const JinjaExpr& expr);
  absl::StatusOr<TemplateValue> Call(const TemplateValue& callee, JinjaArgs args);
  absl::StatusOr<JinjaArgs> EvaluateArgs(const JinjaCallArgs& args);

  // --- values (jinja_operators.cc) ---
  absl::StatusOr<TemplateValue> Attribute(const TemplateValue& object, std::string_view name);
  absl::StatusOr<TemplateValue> Item(const TemplateValue& object, const TemplateValue& key);
  // "a.b.0": attributes or items in turn, as the attribute= of filters means it; `fallback` stands for any undefined
  // one on the way.
  absl::StatusOr<TemplateValue> Path(const TemplateValue& object, const TemplateValue& path,
                                     const TemplateValue* fallback = nullptr);
  absl::StatusOr<TemplateValue> Slice(const TemplateValue& object, const TemplateValue (&bounds)[3]);
  absl::StatusOr<TemplateValue> Binary(JinjaOp op, const TemplateValue& a, const TemplateValue& b);
  absl::StatusOr<bool> Compare(JinjaOp op, const TemplateValue& a, const TemplateValue& b);
  absl::StatusOr<bool> Equal(const TemplateValue& a, const TemplateValue& b);
  absl::StatusOr<bool> Less(const TemplateValue& a, const TemplateValue& b, int depth = 0);
  absl::StatusOr<bool> Contains(const TemplateValue& container, const TemplateValue& item);
  // What a for loop visits; uses up a generator.
  absl::StatusOr<std::vector<TemplateValue>> Items(const TemplateValue& iterable);
  // Python's str().
  absl::StatusOr<TemplateString> ToString(const TemplateValue& value);
  absl::StatusOr<int64_t> ToInt(const TemplateValue& value, std::string_view what);

  // --- building values; each is charged ---
  absl::StatusOr<TemplateValue> NewString(TemplateStringBuilder& builder);
  absl::StatusOr<TemplateValue> NewString(TemplateString text);
  absl::StatusOr<TemplateValue> NewList(std::vector<TemplateValue> items, ListKind kind = ListKind::kList);
  template <typename Object>
  absl::StatusOr<std::shared_ptr<Object>> Keep(std::shared_ptr<Object> object) {
    if (absl::Status status = ChargeBytes(sizeof(Object) + 64); !status.ok()) return status;
    objects_.push_back(object);
    return object;
  }
  // To be called before a container is changed: it may come to contain itself.
  void WillChange(const TemplateValue& container) { changed_.push_back(container); }

  // --- variables ---
  JinjaScope* scope() const { return scope_; }
  const TemplateValue* Lookup(int name_id) const;
  absl::Status Assign(const JinjaTarget& target, TemplateValue value);
  void SetVariable(int name_id, TemplateValue value);
  int caller_id() const { return caller_id_; }
  int varargs_id() const { return varargs_id_; }
  int kwargs_id() const { return kwargs_id_; }

  // A scope below `parent` for as long as it lives.
  class ScopeGuard {
   public:
    ScopeGuard(JinjaEvaluator& evaluator, JinjaScope* parent);
    ~ScopeGuard();
    ScopeGuard(const ScopeGuard&) = delete;
    ScopeGuard& operator=(const ScopeGuard&) = delete;
    void Renew();  // a fresh one of the same parent, as each turn of a loop has

   private:
    void Open();
    void Close();
    JinjaEvaluator& evaluator_;
    JinjaScope* parent_;
    JinjaScope* saved_;
  };
  // One level of nested evaluation; Check() names the limit.
  class DepthGuard {
   public:
    explicit DepthGuard(JinjaEvaluator& evaluator) : evaluator_(evaluator) { ++evaluator_.depth_; }
    ~DepthGuard() { --evaluator_.depth_; }
    DepthGuard(const DepthGuard&) = delete;
    DepthGuard& operator=(const DepthGuard&) = delete;
    absl::Status Check() const;

   private:
    JinjaEvaluator& evaluator_;
  };

 private:
  absl::Status StepsExhausted() const;
  int NameId(std::string_view name) const;
  absl::Status AppendOutput(const TemplateValue& value);
  absl::StatusOr<Flow> ExecuteOne(const JinjaStatement& statement);
  absl::StatusOr<Flow> ExecuteIf(const JinjaStatement& statement);
  absl::Status ExecuteSetBlock(const JinjaStatement& statement);
  absl::Status ExecuteCallBlock(const JinjaStatement& statement);
  absl::StatusOr<Flow> ExecuteWith(const JinjaStatement& statement);
  absl::Status DefineMacro(const JinjaStatement& statement);
  // Runs the filters of a block on what it printed.
  absl::StatusOr<TemplateValue> ApplyFilters(const JinjaExpr& filters, TemplateValue input);
  absl::Status AssignAttribute(const JinjaTarget& target, TemplateValue value);

  absl::StatusOr<TemplateValue> EvaluateKind(const JinjaExpr& expr);
  absl::StatusOr<TemplateValue> EvaluateName(const JinjaExpr& expr);
  absl::StatusOr<TemplateValue> EvaluateSequence(const JinjaExpr& expr);
  absl::StatusOr<TemplateValue> EvaluateDict(const JinjaExpr& expr);
  absl::StatusOr<TemplateValue> EvaluateSlice(const JinjaExpr& expr);
  absl::StatusOr<TemplateValue> EvaluateCall(const JinjaExpr& expr);
  absl::StatusOr<TemplateValue> EvaluateFilter(const JinjaExpr& expr);
  absl::StatusOr<TemplateValue> EvaluateTest(const JinjaExpr& expr);
  absl::StatusOr<TemplateValue> EvaluateUnary(const JinjaExpr& expr);
  absl::StatusOr<TemplateValue> EvaluateConcat(const JinjaExpr& expr);
  absl::StatusOr<TemplateValue> EvaluateCompare(const JinjaExpr& expr);

  absl::StatusOr<TemplateValue> Add(const TemplateValue& a, const TemplateValue& b);
  absl::StatusOr<TemplateValue> Multiply(const TemplateValue& a, const TemplateValue& b);
  absl::StatusOr<TemplateValue> Repeat(const TemplateValue& sequence, int64_t times);
  absl::StatusOr<TemplateValue> Arithmetic(JinjaOp op, const TemplateValue& a, const TemplateValue& b);

  const JinjaTree& tree_;
  const JinjaLimits& limits_;
  const JinjaRenderOptions& options_;
  int64_t steps_left_;
  size_t bytes_left_;
  int depth_ = 0;
  int line_ = 1;
  int loop_id_, caller_id_, varargs_id_, kwargs_id_;  // -1: the template never mentions it
  std::vector<TemplateValue> globals_;                // by name id: variables given, else builtin functions
  std::deque<JinjaScope> scopes_;
  std::vector<JinjaScope*> free_scopes_;
  JinjaScope* scope_ = nullptr;
  TemplateStringBuilder* output_ = nullptr;
  std::vector<std::shared_ptr<JinjaObject>> objects_;
  std::vector<TemplateValue> changed_;
  TemplateValue filter_input_;  // of the innermost filter block being applied
};

}  // namespace millrace
