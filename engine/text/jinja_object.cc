// SPDX-License-Identifier: Apache-2.0
#include "engine/text/jinja_object.h"

#include <algorithm>

#include "engine/text/jinja_evaluator.h"
#include "engine/text/jinja_format.h"
#include "engine/text/jinja_text.h"
#include "kernels/status_macros.h"

namespace millrace {
namespace {

using Result = absl::StatusOr<TemplateValue>;

Result CallRange(JinjaEvaluator& evaluator, const JinjaArgs& args) {
  if (args.positional.empty() || args.positional.size() > 3) return evaluator.Error("range expected 1 to 3 arguments");
  int64_t numbers[3] = {0, 0, 1};
  for (size_t i = 0; i < args.positional.size(); ++i) {
    ASSIGN_OR_RETURN(numbers[i], evaluator.ToInt(args.positional[i], "range() argument"));
  }
  if (args.positional.size() == 1) std::swap(numbers[0], numbers[1]);
  const auto [start, stop, step] = numbers;
  if (step == 0) return evaluator.Error("range() arg 3 must not be zero");
  std::vector<TemplateValue> items;
  const int64_t max_items = evaluator.limits().max_range_items;
  for (__int128 i = start; step > 0 ? i < stop : i > stop; i += step) {
    if (static_cast<int64_t>(items.size()) >= max_items) {
      return evaluator.Error(ConcatText({"a range longer than the limit of ", std::to_string(max_items)}));
    }
    items.push_back(TemplateValue::Int(static_cast<int64_t>(i)));
  }
  return evaluator.NewList(std::move(items), ListKind::kRange);
}

Result CallNamespace(JinjaEvaluator& evaluator, const JinjaArgs& args) {
  ASSIGN_OR_RETURN(auto space, evaluator.Keep(std::make_shared<JinjaNamespace>()));
  if (!args.positional.empty() && args.positional[0].is_dict()) {
    RETURN_IF_ERROR(evaluator.Charge(static_cast<int64_t>(args.positional[0].as_dict().size())));
    for (const auto& [key, value] : args.positional[0].as_dict().entries()) space->values.Set(key, value);
  }
  for (const auto& [name, value] : args.named) space->values.Set(name, value);
  return TemplateValue::Object(std::move(space));
}

Result CallDict(JinjaEvaluator& evaluator, const JinjaArgs& args) {
  TemplateValue dict = TemplateValue::Dict();
  if (!args.positional.empty()) {
    const TemplateValue& source = args.positional[0];
    if (source.is_dict()) {
      RETURN_IF_ERROR(evaluator.ChargeBytes(source.as_dict().size() * 2 * sizeof(TemplateValue)));
      for (const auto& [key, value] : source.as_dict().entries()) dict.as_dict().Set(key, value);
    } else {
      ASSIGN_OR_RETURN(const std::vector<TemplateValue> pairs, evaluator.Items(source));
      for (const TemplateValue& pair : pairs) {
        ASSIGN_OR_RETURN(std::vector<TemplateValue> parts, evaluator.Items(pair));
        if (parts.size() != 2 || !IsHashable(parts[0])) return evaluator.Error("dict() needs pairs of key and value");
        dict.as_dict().Set(std::move(parts[0]), std::move(parts[1]));
      }
    }
  }
  RETURN_IF_ERROR(evaluator.ChargeBytes(sizeof(TemplateDict) + args.named.size() * 2 * sizeof(TemplateValue)));
  for (const auto& [name, value] : args.named) dict.as_dict().Set(name, value);
  return dict;
}

Result CallRaise(JinjaEvaluator& evaluator, const JinjaArgs& args) {
  const TemplateValue* message = args.Get(0, "message");
  if (message == nullptr) return evaluator.Error("raise_exception was called");
  ASSIGN_OR_RETURN(const TemplateString text, evaluator.ToString(*message));
  return evaluator.Error(text.view());
}

Result CallStrftimeNow(JinjaEvaluator& evaluator, const JinjaArgs& args) {
  const TemplateValue* format = args.Get(0, "format");
  if (format == nullptr || !format->is_string()) return evaluator.Error("strftime_now needs a format string");
  const JinjaRenderOptions& options = evaluator.options();
  ASSIGN_OR_RETURN(TemplateString text, FormatTime(evaluator, format->as_string(), options.now, options.time_zone));
  return evaluator.NewString(std::move(text));
}

Result CallCycler(JinjaEvaluator& evaluator, const JinjaArgs& args) {
  if (args.positional.empty()) return evaluator.Error("cycler needs at least one item");
  ASSIGN_OR_RETURN(auto cycler, evaluator.Keep(std::make_shared<JinjaCycler>(args.positional)));
  cycler->self = cycler;
  return TemplateValue::Object(std::move(cycler));
}

Result CallJoiner(JinjaEvaluator& evaluator, const JinjaArgs& args) {
  const TemplateValue* separator = args.Get(0, "sep");
  ASSIGN_OR_RETURN(
      auto joiner,
      evaluator.Keep(std::make_shared<JinjaJoiner>(separator == nullptr ? TemplateValue::Trusted(", ") : *separator)));
  return TemplateValue::Object(std::move(joiner));
}

// Methods of objects receive the object as a value.
JinjaLoop* AsLoop(const TemplateValue& self) {
  return self.is_object() ? dynamic_cast<JinjaLoop*>(self.as_object().get()) : nullptr;
}

Result LoopCycle(JinjaEvaluator& evaluator, const TemplateValue& self, const JinjaArgs& args) {
  const JinjaLoop* loop = AsLoop(self);
  if (loop == nullptr || args.positional.empty()) return evaluator.Error("no items for cycling given");
  return loop->Cycle(args.positional);
}

Result LoopChanged(JinjaEvaluator& evaluator, const TemplateValue& self, const JinjaArgs& args) {
  JinjaLoop* loop = AsLoop(self);
  if (loop == nullptr) return evaluator.Error("changed() outside of a loop");
  bool is_changed = !loop->has_changed_before || loop->last_changed.size() != args.positional.size();
  for (size_t i = 0; !is_changed && i < args.positional.size(); ++i) {
    ASSIGN_OR_RETURN(const bool is_equal, evaluator.Equal(loop->last_changed[i], args.positional[i]));
    is_changed = !is_equal;
  }
  loop->has_changed_before = true;
  loop->last_changed = args.positional;
  return TemplateValue::Bool(is_changed);
}

Result CyclerNext(JinjaEvaluator& evaluator, const TemplateValue& self, const JinjaArgs& args) {
  auto* cycler = self.is_object() ? dynamic_cast<JinjaCycler*>(self.as_object().get()) : nullptr;
  if (cycler == nullptr || cycler->items.empty()) return evaluator.Error("an empty cycler");
  TemplateValue value = cycler->items[cycler->position];
  cycler->position = (cycler->position + 1) % cycler->items.size();
  return value;
}

Result CyclerReset(JinjaEvaluator& evaluator, const TemplateValue& self, const JinjaArgs& args) {
  auto* cycler = self.is_object() ? dynamic_cast<JinjaCycler*>(self.as_object().get()) : nullptr;
  if (cycler != nullptr) cycler->position = 0;
  return TemplateValue::None();
}

}  // namespace

const TemplateValue* JinjaArgs::Get(size_t index, std::string_view name) const {
  if (index < positional.size()) return &positional[index];
  return GetNamed(name);
}

const TemplateValue* JinjaArgs::GetNamed(std::string_view name) const {
  for (const auto& [known, value] : named) {
    if (known == name) return &value;
  }
  return nullptr;
}

Result JinjaObject::Call(JinjaEvaluator& evaluator, JinjaArgs args) {
  return evaluator.Error("the object is not callable");
}

// Fills the macro's parameters into the current scope: given ones, then defaults, which may use earlier parameters.
absl::Status JinjaMacro::Bind(JinjaEvaluator& evaluator, JinjaArgs& args) {
  const JinjaSignature& signature = definition_.signature;
  const std::string name = definition_.text.is_empty() ? "caller" : std::string(definition_.text.view());
  const size_t num_parameters = signature.parameters.size();
  const size_t num_required = num_parameters - signature.defaults.size();
  std::vector<bool> is_used(args.named.size());
  for (size_t i = 0; i < num_parameters; ++i) {
    const auto& [id, parameter] = signature.parameters[i];
    const auto given = std::find_if(args.named.begin(), args.named.end(),
                                    [&](const auto& candidate) { return candidate.first == parameter; });
    if (i < args.positional.size()) {
      if (given != args.named.end()) {
        return evaluator.Error(ConcatText({"macro '", name, "' got '", parameter, "' twice"}));
      }
      evaluator.SetVariable(id, args.positional[i]);
    } else if (given != args.named.end()) {
      is_used[static_cast<size_t>(given - args.named.begin())] = true;
      evaluator.SetVariable(id, given->second);
    } else if (i >= num_required) {
      ASSIGN_OR_RETURN(TemplateValue value, evaluator.Evaluate(*signature.defaults[i - num_required]));
      evaluator.SetVariable(id, std::move(value));
    } else {
      evaluator.SetVariable(id, TemplateValue::Undefined(ConcatText({"parameter '", parameter, "' was not provided"})));
    }
  }
  TemplateValue kwargs = TemplateValue::Dict();
  for (size_t i = 0; i < args.named.size(); ++i) {
    if (is_used[i]) continue;
    auto& [keyword, value] = args.named[i];
    if (keyword == "caller" && signature.uses_caller) {
      evaluator.SetVariable(evaluator.caller_id(), std::move(value));
    } else if (signature.uses_kwargs) {
      kwargs.as_dict().Set(keyword, std::move(value));
    } else {
      return evaluator.Error(ConcatText({"macro '", name, "' takes no keyword argument '", keyword, "'"}));
    }
  }
  if (signature.uses_kwargs) evaluator.SetVariable(evaluator.kwargs_id(), std::move(kwargs));
  if (signature.uses_varargs) {
    const size_t first = std::min(num_parameters, args.positional.size());
    std::vector<TemplateValue> rest(args.positional.begin() + static_cast<ptrdiff_t>(first), args.positional.end());
    ASSIGN_OR_RETURN(TemplateValue varargs, evaluator.NewList(std::move(rest), ListKind::kTuple));
    evaluator.SetVariable(evaluator.varargs_id(), std::move(varargs));
  } else if (args.positional.size() > num_parameters) {
    return evaluator.Error(
        ConcatText({"macro '", name, "' takes not more than ", std::to_string(num_parameters), " argument(s)"}));
  }
  return absl::OkStatus();
}

Result JinjaMacro::Call(JinjaEvaluator& evaluator, JinjaArgs args) {
  JinjaEvaluator::DepthGuard guard(evaluator);
  RETURN_IF_ERROR(guard.Check());
  JinjaEvaluator::ScopeGuard scope(evaluator, scope_);
  if (definition_.signature.uses_caller && evaluator.caller_id() >= 0) {
    evaluator.SetVariable(evaluator.caller_id(), TemplateValue::Undefined("no caller defined"));
  }
  RETURN_IF_ERROR(Bind(evaluator, args));
  return evaluator.Capture(definition_.bodies[0]);
}

std::optional<TemplateValue> JinjaMacro::Attribute(std::string_view name) const {
  if (name == "name") return TemplateValue::String(definition_.text);
  if (name == "caller") return TemplateValue::Bool(definition_.signature.uses_caller);
  if (name == "catch_kwargs") return TemplateValue::Bool(definition_.signature.uses_kwargs);
  if (name == "catch_varargs") return TemplateValue::Bool(definition_.signature.uses_varargs);
  return std::nullopt;
}

Result JinjaLoop::Call(JinjaEvaluator& evaluator, JinjaArgs args) {
  if (!statement_.is_recursive) return evaluator.Error("the loop is not marked as recursive");
  const TemplateValue* iterable = args.Get(0, "iterable");
  if (iterable == nullptr) return evaluator.Error("loop() needs what to loop over");
  JinjaEvaluator::DepthGuard guard(evaluator);
  RETURN_IF_ERROR(guard.Check());
  return evaluator.CaptureLoop(statement_, *iterable, scope_, depth_ + 1);
}

std::optional<TemplateValue> JinjaLoop::Attribute(std::string_view name) const {
  const auto count = static_cast<int64_t>(items.size());
  const auto at = static_cast<int64_t>(index);
  if (name == "index") return TemplateValue::Int(at + 1);
  if (name == "index0") return TemplateValue::Int(at);
  if (name == "revindex") return TemplateValue::Int(count - at);
  if (name == "revindex0") return TemplateValue::Int(count - at - 1);
  if (name == "first") return TemplateValue::Bool(at == 0);
  if (name == "last") return TemplateValue::Bool(at == count - 1);
  if (name == "length") return TemplateValue::Int(count);
  if (name == "depth") return TemplateValue::Int(depth_ + 1);
  if (name == "depth0") return TemplateValue::Int(depth_);
  if (name == "previtem") return at > 0 ? items[index - 1] : TemplateValue::Undefined("there is no previous item");
  if (name == "nextitem") return at + 1 < count ? items[index + 1] : TemplateValue::Undefined("there is no next item");
  const JinjaMethod method = name == "cycle" ? LoopCycle : name == "changed" ? LoopChanged : nullptr;
  if (method == nullptr) return std::nullopt;
  const auto object = self.lock();
  return TemplateValue::Object(std::make_shared<JinjaBoundMethod>(TemplateValue::Object(object), method));
}

void JinjaLoop::Clear() {
  items.clear();
  last_changed.clear();
}

std::optional<TemplateValue> JinjaCycler::Attribute(std::string_view name) const {
  if (name == "current" && !items.empty()) return items[position];
  const JinjaMethod method = name == "next" ? CyclerNext : name == "reset" ? CyclerReset : nullptr;
  if (method == nullptr) return std::nullopt;
  const auto object = self.lock();
  return TemplateValue::Object(std::make_shared<JinjaBoundMethod>(TemplateValue::Object(object), method));
}

Result JinjaJoiner::Call(JinjaEvaluator& evaluator, JinjaArgs args) {
  if (!is_used_) {
    is_used_ = true;
    return TemplateValue::String(TemplateString());
  }
  return separator_;
}

JinjaMethod FindJinjaMethod(const TemplateValue& self, std::string_view name) {
  if (self.is_string()) return FindStringMethod(name);
  if (self.is_list() || self.is_dict()) return FindContainerMethod(self, name);
  return nullptr;
}

std::vector<std::pair<std::string_view, JinjaFunction>> JinjaGlobals() {
  return {{"range", CallRange},   {"namespace", CallNamespace},   {"dict", CallDict},
          {"cycler", CallCycler}, {"raise_exception", CallRaise}, {"strftime_now", CallStrftimeNow},
          {"joiner", CallJoiner}};
}

}  // namespace millrace
