// SPDX-License-Identifier: Apache-2.0
// The methods of Python's list and dict that templates call. Lists and dicts may be changed: a render works on copies
// of what it was given.
#include <algorithm>

#include "engine/text/jinja_evaluator.h"
#include "engine/text/jinja_text.h"
#include "kernels/status_macros.h"

namespace millrace {
namespace {

using Result = absl::StatusOr<TemplateValue>;
using Ev = JinjaEvaluator;

absl::Status NeedArgs(Ev& evaluator, const JinjaArgs& args, size_t count) {
  if (args.positional.size() >= count) return absl::OkStatus();
  return evaluator.Error(ConcatText({"expected at least ", std::to_string(count), " argument(s)"}));
}

absl::Status NeedHashable(Ev& evaluator, const TemplateValue& key) {
  if (IsHashable(key)) return absl::OkStatus();
  return evaluator.Error(ConcatText({"unhashable type: '", key.TypeName(), "'"}));
}

Result Append(Ev& evaluator, const TemplateValue& self, const JinjaArgs& args) {
  RETURN_IF_ERROR(NeedArgs(evaluator, args, 1));
  RETURN_IF_ERROR(evaluator.ChargeBytes(2 * sizeof(TemplateValue)));
  evaluator.WillChange(self);
  self.as_list().items.push_back(args.positional[0]);
  return TemplateValue::None();
}

Result Extend(Ev& evaluator, const TemplateValue& self, const JinjaArgs& args) {
  RETURN_IF_ERROR(NeedArgs(evaluator, args, 1));
  ASSIGN_OR_RETURN(std::vector<TemplateValue> items, evaluator.Items(args.positional[0]));
  evaluator.WillChange(self);
  for (TemplateValue& item : items) self.as_list().items.push_back(std::move(item));
  return TemplateValue::None();
}

Result Insert(Ev& evaluator, const TemplateValue& self, const JinjaArgs& args) {
  RETURN_IF_ERROR(NeedArgs(evaluator, args, 2));
  ASSIGN_OR_RETURN(int64_t index, evaluator.ToInt(args.positional[0], "the index"));
  std::vector<TemplateValue>& items = self.as_list().items;
  RETURN_IF_ERROR(evaluator.Charge(static_cast<int64_t>(items.size() / 8)));
  RETURN_IF_ERROR(evaluator.ChargeBytes(2 * sizeof(TemplateValue)));
  const auto count = static_cast<int64_t>(items.size());
  index = std::clamp<int64_t>(index < 0 ? index + count : index, 0, count);
  evaluator.WillChange(self);
  items.insert(items.begin() + index, args.positional[1]);
  return TemplateValue::None();
}

Result PopItem(Ev& evaluator, const TemplateValue& self, const JinjaArgs& args) {
  std::vector<TemplateValue>& items = self.as_list().items;
  const auto count = static_cast<int64_t>(items.size());
  int64_t index = count - 1;
  if (!args.positional.empty()) {
    ASSIGN_OR_RETURN(index, evaluator.ToInt(args.positional[0], "the index"));
    if (index < 0) index += count;
  }
  if (count == 0) return evaluator.Error("pop from empty list");
  if (index < 0 || index >= count) return evaluator.Error("pop index out of range");
  RETURN_IF_ERROR(evaluator.Charge((count - index) / 8));
  TemplateValue item = std::move(items[static_cast<size_t>(index)]);
  items.erase(items.begin() + index);
  return item;
}

Result IndexOf(Ev& evaluator, const TemplateValue& self, const JinjaArgs& args) {
  RETURN_IF_ERROR(NeedArgs(evaluator, args, 1));
  const std::vector<TemplateValue>& items = self.as_list().items;
  for (size_t i = 0; i < items.size(); ++i) {
    RETURN_IF_ERROR(evaluator.Charge(1));
    ASSIGN_OR_RETURN(const bool is_equal, evaluator.Equal(items[i], args.positional[0]));
    if (is_equal) return TemplateValue::Int(static_cast<int64_t>(i));
  }
  return evaluator.Error("the value is not in the list");
}

Result CountOf(Ev& evaluator, const TemplateValue& self, const JinjaArgs& args) {
  RETURN_IF_ERROR(NeedArgs(evaluator, args, 1));
  int64_t count = 0;
  for (const TemplateValue& item : self.as_list().items) {
    RETURN_IF_ERROR(evaluator.Charge(1));
    ASSIGN_OR_RETURN(const bool is_equal, evaluator.Equal(item, args.positional[0]));
    count += is_equal ? 1 : 0;
  }
  return TemplateValue::Int(count);
}

Result ReverseItems(Ev& evaluator, const TemplateValue& self, const JinjaArgs& args) {
  std::vector<TemplateValue>& items = self.as_list().items;
  RETURN_IF_ERROR(evaluator.Charge(static_cast<int64_t>(items.size())));
  std::reverse(items.begin(), items.end());
  return TemplateValue::None();
}

Result ClearItems(Ev& evaluator, const TemplateValue& self, const JinjaArgs& args) {
  if (self.is_list()) TemplateValue::ReleaseAll(std::exchange(self.as_list().items, {}));
  if (self.is_dict()) self.as_dict().Clear();
  return TemplateValue::None();
}

Result CopyItems(Ev& evaluator, const TemplateValue& self, const JinjaArgs& args) {
  if (self.is_list()) {
    RETURN_IF_ERROR(evaluator.ChargeBytes(self.as_list().items.size() * sizeof(TemplateValue)));
    return evaluator.NewList(self.as_list().items);
  }
  RETURN_IF_ERROR(evaluator.ChargeBytes(self.as_dict().size() * 4 * sizeof(TemplateValue)));
  TemplateValue copy = TemplateValue::Dict();
  for (const auto& [key, value] : self.as_dict().entries()) copy.as_dict().Set(key, value);
  return copy;
}

Result Get(Ev& evaluator, const TemplateValue& self, const JinjaArgs& args) {
  RETURN_IF_ERROR(NeedArgs(evaluator, args, 1));
  RETURN_IF_ERROR(NeedHashable(evaluator, args.positional[0]));
  if (const TemplateValue* found = self.as_dict().Find(args.positional[0]); found != nullptr) return *found;
  const TemplateValue* fallback = args.Get(1, "default");
  return fallback == nullptr ? TemplateValue::None() : *fallback;
}

Result SetDefault(Ev& evaluator, const TemplateValue& self, const JinjaArgs& args) {
  RETURN_IF_ERROR(NeedArgs(evaluator, args, 1));
  RETURN_IF_ERROR(NeedHashable(evaluator, args.positional[0]));
  if (const TemplateValue* found = self.as_dict().Find(args.positional[0]); found != nullptr) return *found;
  TemplateValue value = args.positional.size() > 1 ? args.positional[1] : TemplateValue::None();
  RETURN_IF_ERROR(evaluator.ChargeBytes(4 * sizeof(TemplateValue)));
  evaluator.WillChange(self);
  self.as_dict().Set(args.positional[0], value);
  return value;
}

Result Update(Ev& evaluator, const TemplateValue& self, const JinjaArgs& args) {
  evaluator.WillChange(self);
  if (!args.positional.empty()) {
    if (!args.positional[0].is_dict()) return evaluator.Error("update() needs a mapping");
    const std::vector<TemplateDict::Entry> entries = args.positional[0].as_dict().entries();
    RETURN_IF_ERROR(evaluator.ChargeBytes(entries.size() * 4 * sizeof(TemplateValue)));
    for (const auto& [key, value] : entries) self.as_dict().Set(key, value);
  }
  RETURN_IF_ERROR(evaluator.ChargeBytes(args.named.size() * 4 * sizeof(TemplateValue)));
  for (const auto& [name, value] : args.named) self.as_dict().Set(name, value);
  return TemplateValue::None();
}

Result PopKey(Ev& evaluator, const TemplateValue& self, const JinjaArgs& args) {
  RETURN_IF_ERROR(NeedArgs(evaluator, args, 1));
  RETURN_IF_ERROR(NeedHashable(evaluator, args.positional[0]));
  const TemplateValue* found = self.as_dict().Find(args.positional[0]);
  if (found == nullptr) {
    if (args.positional.size() > 1) return args.positional[1];
    return evaluator.Error("pop(): no such key");
  }
  RETURN_IF_ERROR(evaluator.Charge(static_cast<int64_t>(self.as_dict().size())));
  TemplateValue value = *found;
  self.as_dict().Erase(args.positional[0]);
  return value;
}

template <ListKind kind>
Result View(Ev& evaluator, const TemplateValue& self, const JinjaArgs& args) {
  std::vector<TemplateValue> items;
  items.reserve(self.as_dict().size());
  for (const auto& [key, value] : self.as_dict().entries()) {
    if (kind == ListKind::kItems) {
      ASSIGN_OR_RETURN(TemplateValue pair, evaluator.NewList({key, value}, ListKind::kTuple));
      items.push_back(std::move(pair));
    } else {
      items.push_back(kind == ListKind::kKeys ? key : value);
    }
  }
  return evaluator.NewList(std::move(items), kind);
}

struct NamedMethod {
  std::string_view name;
  JinjaMethod method;
};

constexpr NamedMethod kListMethods[] = {
    {"append", Append}, {"extend", Extend},  {"insert", Insert},        {"pop", PopItem},      {"index", IndexOf},
    {"count", CountOf}, {"copy", CopyItems}, {"reverse", ReverseItems}, {"clear", ClearItems},
};
constexpr NamedMethod kTupleMethods[] = {{"index", IndexOf}, {"count", CountOf}};
constexpr NamedMethod kDictMethods[] = {
    {"get", Get},
    {"items", View<ListKind::kItems>},
    {"keys", View<ListKind::kKeys>},
    {"values", View<ListKind::kValues>},
    {"update", Update},
    {"setdefault", SetDefault},
    {"pop", PopKey},
    {"copy", CopyItems},
    {"clear", ClearItems},
};

template <size_t count>
JinjaMethod FindIn(const NamedMethod (&methods)[count], std::string_view name) {
  for (const NamedMethod& candidate : methods) {
    if (candidate.name == name) return candidate.method;
  }
  return nullptr;
}

}  // namespace

JinjaMethod FindContainerMethod(const TemplateValue& self, std::string_view name) {
  if (self.is_dict()) return FindIn(kDictMethods, name);
  if (self.as_list().kind == ListKind::kList) return FindIn(kListMethods, name);
  if (self.as_list().kind == ListKind::kTuple) return FindIn(kTupleMethods, name);
  return nullptr;
}

}  // namespace millrace
