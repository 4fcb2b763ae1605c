// SPDX-License-Identifier: Apache-2.0
#pragma once
// The objects a chat template meets beside plain values: functions, macros, bound methods, namespaces, `loop`.
// Made by the evaluator, which keeps every one until the render ends; internal to the template engine.
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "engine/text/jinja_ast.h"
#include "engine/text/template_value.h"

namespace millrace {

class JinjaEvaluator;

// The arguments of one call, evaluated.
struct JinjaArgs {
  std::vector<TemplateValue> positional;
  std::vector<std::pair<std::string, TemplateValue>> named;

  // By place, else by name, else null.
  const TemplateValue* Get(size_t index, std::string_view name) const;
  const TemplateValue* GetNamed(std::string_view name) const;
  bool is_empty() const { return positional.empty() && named.empty(); }
};

// The variables of one block. Owned by the evaluator, reused once nothing refers to them.
struct JinjaScope {
  JinjaScope* parent = nullptr;
  std::vector<std::pair<int, TemplateValue>> variables;
  bool is_captured = false;  // a macro was defined inside: it must live until the render ends
};

class JinjaObject : public TemplateObject {
 public:
  virtual bool is_callable() const { return true; }
  virtual absl::StatusOr<TemplateValue> Call(JinjaEvaluator& evaluator, JinjaArgs args);
  // Nothing: no such attribute.
  virtual std::optional<TemplateValue> Attribute(std::string_view name) const { return std::nullopt; }
  // Gives up all values held, so that cycles end.
  virtual void Clear() {}
};

using JinjaFunction = absl::StatusOr<TemplateValue> (*)(JinjaEvaluator&, const JinjaArgs&);
using JinjaMethod = absl::StatusOr<TemplateValue> (*)(JinjaEvaluator&, const TemplateValue& self, const JinjaArgs&);

class JinjaFunctionObject final : public JinjaObject {
 public:
  explicit JinjaFunctionObject(JinjaFunction function) : function_(function) {}
  absl::StatusOr<TemplateValue> Call(JinjaEvaluator& evaluator, JinjaArgs args) override {
    return function_(evaluator, args);
  }

 private:
  JinjaFunction function_;
};

class JinjaBoundMethod final : public JinjaObject {
 public:
  JinjaBoundMethod(TemplateValue self, JinjaMethod method) : self_(std::move(self)), method_(method) {}
  absl::StatusOr<TemplateValue> Call(JinjaEvaluator& evaluator, JinjaArgs args) override {
    return method_(evaluator, self_, args);
  }
  void Clear() override { self_ = TemplateValue(); }

 private:
  TemplateValue self_;
  JinjaMethod method_;
};

class JinjaNamespace final : public JinjaObject {
 public:
  bool is_callable() const override { return false; }
  std::optional<TemplateValue> Attribute(std::string_view name) const override {
    const TemplateValue* found = values.Find(name);
    return found == nullptr ? std::nullopt : std::optional<TemplateValue>(*found);
  }
  void Clear() override { values.Clear(); }

  TemplateDict values;
};

// A macro or the caller of a call block; `definition` belongs to the tree, `scope` to the evaluator.
class JinjaMacro final : public JinjaObject {
 public:
  JinjaMacro(const JinjaStatement& definition, JinjaScope* scope) : definition_(definition), scope_(scope) {}
  absl::StatusOr<TemplateValue> Call(JinjaEvaluator& evaluator, JinjaArgs args) override;
  std::optional<TemplateValue> Attribute(std::string_view name) const override;

 private:
  absl::Status Bind(JinjaEvaluator& evaluator, JinjaArgs& args);

  const JinjaStatement& definition_;
  JinjaScope* scope_;
};

// `loop`: calling it renders the same recursive loop over other items.
class JinjaLoop final : public JinjaObject {
 public:
  JinjaLoop(const JinjaStatement& statement, JinjaScope* scope, int depth)
      : statement_(statement), scope_(scope), depth_(depth) {}
  bool is_callable() const override { return statement_.is_recursive; }
  absl::StatusOr<TemplateValue> Call(JinjaEvaluator& evaluator, JinjaArgs args) override;
  std::optional<TemplateValue> Attribute(std::string_view name) const override;
  void Clear() override;
  const TemplateValue& Cycle(const std::vector<TemplateValue>& values) const { return values[index % values.size()]; }

  std::vector<TemplateValue> items;
  size_t index = 0;  // of the current item
  std::vector<TemplateValue> last_changed;
  bool has_changed_before = false;
  std::weak_ptr<JinjaLoop> self;

 private:
  const JinjaStatement& statement_;
  JinjaScope* scope_;  // around the loop
  int depth_;          // 0 for the outermost
};

// cycler(a, b): next(), current, reset().
class JinjaCycler final : public JinjaObject {
 public:
  explicit JinjaCycler(std::vector<TemplateValue> values) : items(std::move(values)) {}
  bool is_callable() const override { return false; }
  std::optional<TemplateValue> Attribute(std::string_view name) const override;
  void Clear() override { items.clear(); }

  std::vector<TemplateValue> items;  // never empty before Clear
  size_t position = 0;
  std::weak_ptr<JinjaCycler> self;
};

// joiner(sep): empty at the first call, the separator afterwards.
class JinjaJoiner final : public JinjaObject {
 public:
  explicit JinjaJoiner(TemplateValue separator) : separator_(std::move(separator)) {}
  absl::StatusOr<TemplateValue> Call(JinjaEvaluator& evaluator, JinjaArgs args) override;
  void Clear() override { separator_ = TemplateValue(); }

 private:
  TemplateValue separator_;
  bool is_used_ = false;
};

// The method of that name of a str, list, dict ...; null when there is none.
JinjaMethod FindJinjaMethod(const TemplateValue& self, std::string_view name);
JinjaMethod FindStringMethod(std::string_view name);
JinjaMethod FindContainerMethod(const TemplateValue& self, std::string_view name);

// The builtin functions, as name and value.
std::vector<std::pair<std::string_view, JinjaFunction>> JinjaGlobals();

}  // namespace millrace
