// SPDX-License-Identifier: Apache-2.0
#include "engine/text/jinja_evaluator.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "engine/text/jinja_lexer.h"
#include "engine/text/jinja_text.h"
#include "kernels/status_macros.h"

namespace millrace {

JinjaEvaluator::JinjaEvaluator(const JinjaTree& tree, const JinjaLimits& limits, const JinjaRenderOptions& options)
    : tree_(tree),
      limits_(limits),
      options_(options),
      steps_left_(limits.max_steps),
      bytes_left_(limits.max_memory_bytes),
      loop_id_(NameId("loop")),
      caller_id_(NameId("caller")),
      varargs_id_(NameId("varargs")),
      kwargs_id_(NameId("kwargs")) {}

JinjaEvaluator::~JinjaEvaluator() {
  // Values may refer to each other in circles; all objects are still held here while each gives up what it holds, so
  // no destructor nests in another.
  for (const auto& object : objects_) object->Clear();
  for (const TemplateValue& container : changed_) {
    if (container.is_list()) TemplateValue::ReleaseAll(std::move(container.as_list().items));
    if (container.is_list()) container.as_list().items.clear();
    if (container.is_dict()) container.as_dict().Clear();
  }
}

int JinjaEvaluator::NameId(std::string_view name) const {
  const auto it = std::find(tree_.names.begin(), tree_.names.end(), name);
  return it == tree_.names.end() ? -1 : static_cast<int>(it - tree_.names.begin());
}

absl::StatusOr<TemplateString> JinjaEvaluator::Render(const TemplateValue& variables) {
  globals_.resize(tree_.names.size());
  for (const auto& [name, function] : JinjaGlobals()) {
    const int id = NameId(name);
    if (id < 0) continue;
    ASSIGN_OR_RETURN(auto object, Keep(std::make_shared<JinjaFunctionObject>(function)));
    globals_[static_cast<size_t>(id)] = TemplateValue::Object(std::move(object));
  }
  if (variables.is_dict()) {
    for (const auto& [name, value] : variables.as_dict().entries()) {
      const int id = name.is_string() ? NameId(name.text()) : -1;
      if (id < 0) continue;
      // A copy: the template may append to a list it was given.
      ASSIGN_OR_RETURN(globals_[static_cast<size_t>(id)], CopyContainers(value));
    }
  }
  TemplateStringBuilder output;
  output_ = &output;
  ScopeGuard root(*this, nullptr);
  const absl::StatusOr<Flow> flow = Execute(tree_.body);
  if (!flow.ok()) return JinjaError(line_, std::string(flow.status().message()));
  return output.Build();
}

absl::Status JinjaEvaluator::StepsExhausted() const {
  return Error(ConcatText({"the limit of ", std::to_string(limits_.max_steps), " steps is reached"}));
}

absl::Status JinjaEvaluator::ChargeBytes(size_t num_bytes) {
  if (num_bytes > limits_.max_output_bytes) {
    return Error(ConcatText({"a value of ", std::to_string(num_bytes), " bytes, more than the limit of ",
                             std::to_string(limits_.max_output_bytes)}));
  }
  if (num_bytes > bytes_left_) {
    return Error(
        ConcatText({"the limit of ", std::to_string(limits_.max_memory_bytes), " bytes of memory is reached"}));
  }
  bytes_left_ -= num_bytes;
  return Charge(static_cast<int64_t>(num_bytes / 256));
}

absl::StatusOr<TemplateValue> JinjaEvaluator::NewString(TemplateStringBuilder& builder) {
  RETURN_IF_ERROR(ChargeBytes(builder.size_bytes()));
  return TemplateValue::String(builder.Build());
}

absl::StatusOr<TemplateValue> JinjaEvaluator::NewString(TemplateString text) {
  RETURN_IF_ERROR(ChargeBytes(text.size_bytes()));
  return TemplateValue::String(std::move(text));
}

absl::StatusOr<TemplateValue> JinjaEvaluator::NewList(std::vector<TemplateValue> items, ListKind kind) {
  RETURN_IF_ERROR(Charge(static_cast<int64_t>(items.size())));
  RETURN_IF_ERROR(ChargeBytes(sizeof(TemplateList) + items.size() * sizeof(TemplateValue)));
  return TemplateValue::List(TemplateList(kind, std::move(items)));
}

absl::StatusOr<TemplateString> JinjaEvaluator::ToString(const TemplateValue& value) {
  if (value.is_string()) return value.as_string();
  TemplateStringBuilder builder;
  RETURN_IF_ERROR(AppendStr(value, std::min(bytes_left_, limits_.max_output_bytes), builder));
  RETURN_IF_ERROR(ChargeBytes(builder.size_bytes()));
  return builder.Build();
}

absl::StatusOr<int64_t> JinjaEvaluator::ToInt(const TemplateValue& value, std::string_view what) {
  if (value.is_int() || value.is_bool()) return value.integer();
  return Error(ConcatText({what, " must be an integer, not ", value.TypeName()}));
}

const TemplateValue* JinjaEvaluator::Lookup(int name_id) const {
  for (const JinjaScope* scope = scope_; scope != nullptr; scope = scope->parent) {
    for (const auto& [id, value] : scope->variables) {
      if (id == name_id) return &value;
    }
  }
  return &globals_[static_cast<size_t>(name_id)];
}

void JinjaEvaluator::SetVariable(int name_id, TemplateValue value) {
  for (auto& [id, known] : scope_->variables) {
    if (id == name_id) {
      known = std::move(value);
      return;
    }
  }
  scope_->variables.emplace_back(name_id, std::move(value));
}

absl::Status JinjaEvaluator::AssignAttribute(const JinjaTarget& target, TemplateValue value) {
  const TemplateValue* holder = Lookup(target.name_id);
  auto* space = holder->is_object() ? dynamic_cast<JinjaNamespace*>(holder->as_object().get()) : nullptr;
  if (space == nullptr) return Error("cannot assign attribute on non-namespace object");
  RETURN_IF_ERROR(ChargeBytes(2 * sizeof(TemplateValue)));
  space->values.Set(target.attribute, std::move(value));
  return absl::OkStatus();
}

absl::Status JinjaEvaluator::Assign(const JinjaTarget& target, TemplateValue value) {
  if (!target.attribute.empty()) return AssignAttribute(target, std::move(value));
  if (target.name_id >= 0) {
    SetVariable(target.name_id, std::move(value));
    return absl::OkStatus();
  }
  ASSIGN_OR_RETURN(std::vector<TemplateValue> items, Items(value));
  if (items.size() != target.parts.size()) {
    return Error(
        ConcatText({items.size() < target.parts.size() ? "not enough" : "too many", " values to unpack (expected ",
                    std::to_string(target.parts.size()), ", got ", std::to_string(items.size()), ")"}));
  }
  for (size_t i = 0; i < items.size(); ++i) RETURN_IF_ERROR(Assign(target.parts[i], std::move(items[i])));
  return absl::OkStatus();
}

JinjaEvaluator::ScopeGuard::ScopeGuard(JinjaEvaluator& evaluator, JinjaScope* parent)
    : evaluator_(evaluator), parent_(parent), saved_(evaluator.scope_) {
  Open();
}

JinjaEvaluator::ScopeGuard::~ScopeGuard() {
  Close();
  evaluator_.scope_ = saved_;
}

void JinjaEvaluator::ScopeGuard::Open() {
  JinjaScope* scope;
  if (evaluator_.free_scopes_.empty()) {
    scope = &evaluator_.scopes_.emplace_back();
  } else {
    scope = evaluator_.free_scopes_.back();
    evaluator_.free_scopes_.pop_back();
  }
  scope->parent = parent_;
  scope->is_captured = false;
  evaluator_.scope_ = scope;
}

void JinjaEvaluator::ScopeGuard::Close() {
  JinjaScope* scope = evaluator_.scope_;
  if (scope->is_captured) return;
  scope->variables.clear();
  evaluator_.free_scopes_.push_back(scope);
}

void JinjaEvaluator::ScopeGuard::Renew() {
  if (!evaluator_.scope_->is_captured) {
    evaluator_.scope_->variables.clear();
    return;
  }
  Open();
}

absl::Status JinjaEvaluator::DepthGuard::Check() const {
  if (evaluator_.depth_ <= evaluator_.limits_.max_depth) return absl::OkStatus();
  return evaluator_.Error(
      ConcatText({"nested deeper than the limit of ", std::to_string(evaluator_.limits_.max_depth)}));
}

}  // namespace millrace
