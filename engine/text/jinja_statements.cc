// SPDX-License-Identifier: Apache-2.0
#include "engine/text/jinja_evaluator.h"
#include "engine/text/jinja_text.h"
#include "kernels/status_macros.h"

namespace millrace {
namespace {

using Flow = JinjaEvaluator::Flow;

// Marks a scope and those around it as living until the end of the render.
void CaptureScopes(JinjaScope* scope) {
  for (; scope != nullptr && !scope->is_captured; scope = scope->parent) scope->is_captured = true;
}

}  // namespace

absl::StatusOr<Flow> JinjaEvaluator::Execute(const JinjaBody& body) {
  DepthGuard guard(*this);
  RETURN_IF_ERROR(guard.Check());
  for (const auto& statement : body) {
    line_ = statement->line;
    RETURN_IF_ERROR(Charge(1));
    if (statement->kind == JinjaStatement::Kind::kData) {
      RETURN_IF_ERROR(AppendOutput(TemplateValue::String(statement->text)));
      continue;
    }
    ASSIGN_OR_RETURN(const Flow flow, ExecuteOne(*statement));
    if (flow != Flow::kNext) return flow;
  }
  return Flow::kNext;
}

absl::Status JinjaEvaluator::AppendOutput(const TemplateValue& value) {
  const size_t before = output_->size_bytes();
  RETURN_IF_ERROR(AppendStr(value, before + std::min(bytes_left_, limits_.max_output_bytes), *output_));
  const size_t now = output_->size_bytes();
  if (now > limits_.max_output_bytes) {
    return Error(
        ConcatText({"the limit of ", std::to_string(limits_.max_output_bytes), " bytes of output is reached"}));
  }
  return ChargeBytes(now - before);
}

absl::StatusOr<Flow> JinjaEvaluator::ExecuteOne(const JinjaStatement& statement) {
  switch (statement.kind) {
    case JinjaStatement::Kind::kData:
      break;
    case JinjaStatement::Kind::kOutput:
      for (const JinjaExprPtr& expr : statement.expressions) {
        ASSIGN_OR_RETURN(const TemplateValue value, Evaluate(*expr));
        RETURN_IF_ERROR(AppendOutput(value));
      }
      break;
    case JinjaStatement::Kind::kIf:
      return ExecuteIf(statement);
    case JinjaStatement::Kind::kFor: {
      ASSIGN_OR_RETURN(const TemplateValue iterable, Evaluate(*statement.expressions[0]));
      return Loop(statement, iterable, 0);
    }
    case JinjaStatement::Kind::kSet: {
      ASSIGN_OR_RETURN(TemplateValue value, Evaluate(*statement.expressions[0]));
      RETURN_IF_ERROR(Assign(statement.target, std::move(value)));
      break;
    }
    case JinjaStatement::Kind::kSetBlock:
      RETURN_IF_ERROR(ExecuteSetBlock(statement));
      break;
    case JinjaStatement::Kind::kMacro:
      RETURN_IF_ERROR(DefineMacro(statement));
      break;
    case JinjaStatement::Kind::kCallBlock:
      RETURN_IF_ERROR(ExecuteCallBlock(statement));
      break;
    case JinjaStatement::Kind::kFilter: {
      ASSIGN_OR_RETURN(TemplateValue text, Capture(statement.bodies[0]));
      ASSIGN_OR_RETURN(const TemplateValue value, ApplyFilters(*statement.expressions[0], std::move(text)));
      RETURN_IF_ERROR(AppendOutput(value));
      break;
    }
    case JinjaStatement::Kind::kWith:
      return ExecuteWith(statement);
    case JinjaStatement::Kind::kScope: {
      ScopeGuard scope(*this, scope_);
      return Execute(statement.bodies[0]);
    }
    case JinjaStatement::Kind::kBreak:
      return Flow::kBreak;
    case JinjaStatement::Kind::kContinue:
      return Flow::kContinue;
  }
  return Flow::kNext;
}

absl::StatusOr<Flow> JinjaEvaluator::ExecuteIf(const JinjaStatement& statement) {
  const size_t num_tests = statement.expressions.size();
  for (size_t i = 0; i < num_tests; ++i) {
    ASSIGN_OR_RETURN(const TemplateValue test, Evaluate(*statement.expressions[i]));
    if (test.IsTruthy()) return Execute(statement.bodies[i]);
  }
  if (statement.bodies.size() > num_tests) return Execute(statement.bodies[num_tests]);
  return Flow::kNext;
}

absl::StatusOr<TemplateValue> JinjaEvaluator::Capture(const JinjaBody& body) {
  TemplateStringBuilder captured;
  TemplateStringBuilder* const saved = output_;
  output_ = &captured;
  absl::StatusOr<Flow> flow = Flow::kNext;
  {
    ScopeGuard scope(*this, scope_);
    flow = Execute(body);
  }
  output_ = saved;
  if (!flow.ok()) return flow.status();
  return TemplateValue::String(captured.Build());
}

absl::StatusOr<TemplateValue> JinjaEvaluator::CaptureLoop(const JinjaStatement& statement,
                                                          const TemplateValue& iterable, JinjaScope* scope,
                                                          int loop_depth) {
  TemplateStringBuilder captured;
  TemplateStringBuilder* const saved = output_;
  output_ = &captured;
  absl::StatusOr<Flow> flow = Flow::kNext;
  {
    ScopeGuard inner(*this, scope);
    flow = Loop(statement, iterable, loop_depth);
  }
  output_ = saved;
  if (!flow.ok()) return flow.status();
  return TemplateValue::String(captured.Build());
}

absl::StatusOr<TemplateValue> JinjaEvaluator::ApplyFilters(const JinjaExpr& filters, TemplateValue input) {
  std::swap(filter_input_, input);
  absl::StatusOr<TemplateValue> result = Evaluate(filters);
  std::swap(filter_input_, input);
  return result;
}

absl::Status JinjaEvaluator::ExecuteSetBlock(const JinjaStatement& statement) {
  ASSIGN_OR_RETURN(TemplateValue value, Capture(statement.bodies[0]));
  if (statement.expressions[0]) {
    ASSIGN_OR_RETURN(value, ApplyFilters(*statement.expressions[0], std::move(value)));
  }
  return Assign(statement.target, std::move(value));
}

absl::StatusOr<Flow> JinjaEvaluator::ExecuteWith(const JinjaStatement& statement) {
  std::vector<TemplateValue> values;
  for (const JinjaExprPtr& expr : statement.expressions) {
    ASSIGN_OR_RETURN(TemplateValue value, Evaluate(*expr));
    values.push_back(std::move(value));
  }
  ScopeGuard scope(*this, scope_);
  for (size_t i = 0; i < values.size(); ++i) RETURN_IF_ERROR(Assign(statement.targets[i], std::move(values[i])));
  return Execute(statement.bodies[0]);
}

absl::Status JinjaEvaluator::DefineMacro(const JinjaStatement& statement) {
  CaptureScopes(scope_);
  ASSIGN_OR_RETURN(auto macro, Keep(std::make_shared<JinjaMacro>(statement, scope_)));
  SetVariable(statement.name_id, TemplateValue::Object(std::move(macro)));
  return absl::OkStatus();
}

absl::Status JinjaEvaluator::ExecuteCallBlock(const JinjaStatement& statement) {
  CaptureScopes(scope_);
  ASSIGN_OR_RETURN(auto caller, Keep(std::make_shared<JinjaMacro>(statement, scope_)));
  const JinjaExpr& call = *statement.expressions[0];
  ASSIGN_OR_RETURN(const TemplateValue callee, Evaluate(*call.children[0]));
  ASSIGN_OR_RETURN(JinjaArgs args, EvaluateArgs(call.args));
  args.named.emplace_back("caller", TemplateValue::Object(std::move(caller)));
  ASSIGN_OR_RETURN(const TemplateValue result, Call(callee, std::move(args)));
  return AppendOutput(result);
}

absl::StatusOr<Flow> JinjaEvaluator::Loop(const JinjaStatement& statement, const TemplateValue& iterable,
                                          int loop_depth) {
  ASSIGN_OR_RETURN(std::vector<TemplateValue> items, Items(iterable));
  JinjaScope* const outer = scope_;
  if (statement.expressions[1]) {
    ScopeGuard scope(*this, outer);
    size_t num_kept = 0;
    for (TemplateValue& item : items) {
      scope.Renew();
      RETURN_IF_ERROR(Charge(1));
      RETURN_IF_ERROR(Assign(statement.target, item));
      ASSIGN_OR_RETURN(const TemplateValue is_kept, Evaluate(*statement.expressions[1]));
      if (is_kept.IsTruthy()) std::swap(items[num_kept++], item);
    }
    items.resize(num_kept);
  }
  ScopeGuard scope(*this, outer);
  if (items.empty()) {
    ASSIGN_OR_RETURN(const Flow flow, Execute(statement.bodies[1]));
    return flow;
  }
  std::shared_ptr<JinjaLoop> loop;
  if (loop_id_ >= 0) {
    ASSIGN_OR_RETURN(loop, Keep(std::make_shared<JinjaLoop>(statement, outer, loop_depth)));
    loop->self = loop;
    loop->items = items;
    CaptureScopes(statement.is_recursive ? outer : nullptr);
  }
  for (size_t i = 0; i < items.size(); ++i) {
    scope.Renew();
    RETURN_IF_ERROR(Charge(1));
    RETURN_IF_ERROR(Assign(statement.target, std::move(items[i])));
    if (loop) {
      loop->index = i;
      SetVariable(loop_id_, TemplateValue::Object(loop));
    }
    ASSIGN_OR_RETURN(const Flow flow, Execute(statement.bodies[0]));
    if (flow == Flow::kBreak) break;
  }
  return Flow::kNext;
}

}  // namespace millrace
