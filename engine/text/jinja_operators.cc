// SPDX-License-Identifier: Apache-2.0
// Attributes, items and slices, and comparison of values as Python does them.
#include <algorithm>
#include <charconv>

#include "engine/text/jinja_evaluator.h"
#include "engine/text/jinja_text.h"
#include "kernels/status_macros.h"

namespace millrace {
namespace {

std::string ObjectName(const TemplateValue& object) {
  if (object.is_none()) return "'None'";
  return ConcatText({"'", object.TypeName(), " object'"});
}

// What Python's slice.indices gives.
struct SliceBounds {
  int64_t start = 0;
  int64_t stop = 0;
  int64_t step = 1;
};

SliceBounds ResolveSlice(const TemplateValue (&bounds)[3], int64_t count) {
  SliceBounds result;
  if (!bounds[2].is_none()) result.step = std::clamp<int64_t>(bounds[2].integer(), -INT32_MAX, INT32_MAX);
  const bool is_backward = result.step < 0;
  const auto resolve = [&](const TemplateValue& bound, int64_t absent) {
    if (bound.is_none()) return absent;
    int64_t value = bound.integer();
    if (value < 0) value = std::max(value, -count - 1) + count;
    return std::clamp<int64_t>(value, is_backward ? -1 : 0, is_backward ? count - 1 : count);
  };
  result.start = resolve(bounds[0], is_backward ? count - 1 : 0);
  result.stop = resolve(bounds[1], is_backward ? -1 : count);
  return result;
}

TemplateString SliceString(const TemplateString& text, const TemplateValue (&bounds)[3]) {
  const std::string_view view = text.view();
  const bool is_ascii = IsAscii(view);
  const SliceBounds range = ResolveSlice(bounds, static_cast<int64_t>(CountChars(view)));
  if (range.step == 1) {
    if (range.start >= range.stop) return TemplateString();
    const auto offset = [&](int64_t index) {
      return is_ascii ? static_cast<size_t>(index) : CharOffset(view, static_cast<size_t>(index));
    };
    return text.Slice(offset(range.start), offset(range.stop));
  }
  std::vector<size_t> offsets;
  for (size_t at = 0; at < view.size(); at += CharBytes(view, at)) offsets.push_back(at);
  offsets.push_back(view.size());
  TemplateStringBuilder builder;
  for (int64_t i = range.start; range.step > 0 ? i < range.stop : i > range.stop; i += range.step) {
    const auto index = static_cast<size_t>(i);
    builder.AppendSlice(text, offsets[index], offsets[index + 1]);
  }
  return builder.Build();
}

bool IsOrdering(JinjaOp op) {
  return op == JinjaOp::kLt || op == JinjaOp::kLe || op == JinjaOp::kGt || op == JinjaOp::kGe;
}

}  // namespace

absl::StatusOr<TemplateValue> JinjaEvaluator::Attribute(const TemplateValue& object, std::string_view name) {
  if (object.is_undefined()) return Error(object.UndefinedMessage());
  if (object.is_object()) {
    auto* known = dynamic_cast<JinjaObject*>(object.as_object().get());
    std::optional<TemplateValue> value = known == nullptr ? std::nullopt : known->Attribute(name);
    if (value.has_value()) return *std::move(value);
    return TemplateValue::Undefined(ConcatText({"'", name, "' is no attribute of the object"}));
  }
  if (const JinjaMethod method = FindJinjaMethod(object, name); method != nullptr) {
    ASSIGN_OR_RETURN(auto bound, Keep(std::make_shared<JinjaBoundMethod>(object, method)));
    return TemplateValue::Object(std::move(bound));
  }
  if (object.is_dict()) {
    if (const TemplateValue* found = object.as_dict().Find(name); found != nullptr) return *found;
  }
  return TemplateValue::Undefined(ConcatText({ObjectName(object), " has no attribute '", name, "'"}));
}

absl::StatusOr<TemplateValue> JinjaEvaluator::Item(const TemplateValue& object, const TemplateValue& key) {
  if (object.is_undefined()) return Error(object.UndefinedMessage());
  const bool is_index = key.is_int() || key.is_bool();
  if (object.is_dict()) {
    if (const TemplateValue* found = object.as_dict().Find(key); found != nullptr) return *found;
  } else if (object.is_list() && is_index) {
    const TemplateList& list = object.as_list();
    const auto count = static_cast<int64_t>(list.items.size());
    const int64_t index = key.integer() < 0 ? key.integer() + count : key.integer();
    const bool has_items =
        list.kind == ListKind::kList || list.kind == ListKind::kTuple || list.kind == ListKind::kRange;
    if (has_items && index >= 0 && index < count) return list.items[static_cast<size_t>(index)];
  } else if (object.is_string() && is_index) {
    const std::string_view view = object.text();
    RETURN_IF_ERROR(Charge(static_cast<int64_t>(view.size() / 64)));
    const auto count = static_cast<int64_t>(CountChars(view));
    const int64_t index = key.integer() < 0 ? key.integer() + count : key.integer();
    if (index >= 0 && index < count) {
      const size_t offset = CharOffset(view, static_cast<size_t>(index));
      return TemplateValue::String(object.as_string().Slice(offset, offset + CharBytes(view, offset)));
    }
  }
  if (key.is_string()) return Attribute(object, key.text());
  TemplateStringBuilder printed;
  if (!key.is_list() && !key.is_dict()) RETURN_IF_ERROR(AppendRepr(key, 100, printed));
  return TemplateValue::Undefined(ConcatText({ObjectName(object), " has no element ", printed.Build().view()}));
}

absl::StatusOr<TemplateValue> JinjaEvaluator::Path(const TemplateValue& object, const TemplateValue& path,
                                                   const TemplateValue* fallback) {
  TemplateValue value = object;
  if (!path.is_string()) {
    ASSIGN_OR_RETURN(value, Item(object, path));
    return value.is_undefined() && fallback != nullptr ? *fallback : value;
  }
  std::string_view rest = path.text();
  while (true) {
    const size_t dot = rest.find('.');
    const std::string_view part = rest.substr(0, dot);
    int64_t index = 0;
    const auto [end, error] = std::from_chars(part.data(), part.data() + part.size(), index);
    const bool is_index = !part.empty() && error == std::errc() && end == part.data() + part.size() && index >= 0;
    ASSIGN_OR_RETURN(value, Item(value, is_index ? TemplateValue::Int(index) : TemplateValue::Trusted(part)));
    if (value.is_undefined() && fallback != nullptr) value = *fallback;
    if (dot == rest.npos) return value;
    rest.remove_prefix(dot + 1);
  }
}

absl::StatusOr<TemplateValue> JinjaEvaluator::Slice(const TemplateValue& object, const TemplateValue (&bounds)[3]) {
  for (const TemplateValue& bound : bounds) {
    if (bound.is_undefined()) return Error(bound.UndefinedMessage());
    if (!bound.is_none() && !bound.is_int() && !bound.is_bool()) return Error("slice indices must be integers or None");
  }
  if (!bounds[2].is_none() && bounds[2].integer() == 0) return Error("slice step cannot be zero");
  if (object.is_undefined()) return Error(object.UndefinedMessage());
  if (object.is_string()) {
    RETURN_IF_ERROR(Charge(static_cast<int64_t>(object.text().size() / 32)));
    return NewString(SliceString(object.as_string(), bounds));
  }
  const bool has_items =
      object.is_list() && object.as_list().kind != ListKind::kIterator && object.as_list().kind < ListKind::kKeys;
  if (!has_items) return Error(ConcatText({"a value of type ", object.TypeName(), " cannot be sliced"}));
  const TemplateList& list = object.as_list();
  const SliceBounds range = ResolveSlice(bounds, static_cast<int64_t>(list.items.size()));
  std::vector<TemplateValue> items;
  for (int64_t i = range.start; range.step > 0 ? i < range.stop : i > range.stop; i += range.step) {
    items.push_back(list.items[static_cast<size_t>(i)]);
  }
  return NewList(std::move(items), list.kind);
}

absl::StatusOr<bool> JinjaEvaluator::Equal(const TemplateValue& a, const TemplateValue& b) {
  if (a.is_string() && b.is_string()) return a.text() == b.text();
  int64_t budget = steps_left_;
  const bool is_equal = ValuesEqual(a, b, budget);
  RETURN_IF_ERROR(Charge(steps_left_ - budget));
  return is_equal;
}

absl::StatusOr<bool> JinjaEvaluator::Less(const TemplateValue& a, const TemplateValue& b, int depth) {
  RETURN_IF_ERROR(Charge(1));
  if (a.is_undefined()) return Error(a.UndefinedMessage());
  if (b.is_undefined()) return Error(b.UndefinedMessage());
  if (a.is_number() && b.is_number()) {
    if (!a.is_float() && !b.is_float()) return a.integer() < b.integer();
    return a.number() < b.number();
  }
  if (a.is_string() && b.is_string()) return a.text() < b.text();  // UTF-8 orders as code points do
  if (a.is_list() && b.is_list() && a.as_list().kind == b.as_list().kind && depth < kMaxValueDepth &&
      a.as_list().kind <= ListKind::kTuple) {
    const auto& left = a.as_list().items;
    const auto& right = b.as_list().items;
    for (size_t i = 0; i < left.size() && i < right.size(); ++i) {
      ASSIGN_OR_RETURN(const bool is_equal, Equal(left[i], right[i]));
      if (!is_equal) return Less(left[i], right[i], depth + 1);
    }
    return left.size() < right.size();
  }
  return Error(ConcatText({"'<' not supported between instances of '", a.TypeName(), "' and '", b.TypeName(), "'"}));
}

absl::StatusOr<bool> JinjaEvaluator::Contains(const TemplateValue& container, const TemplateValue& item) {
  if (container.is_string()) {
    if (item.is_undefined()) return Error(item.UndefinedMessage());
    if (!item.is_string()) {
      return Error(ConcatText({"'in <string>' requires string as left operand, not ", item.TypeName()}));
    }
    const std::string_view text = container.text(), part = item.text();
    RETURN_IF_ERROR(Charge(static_cast<int64_t>(text.size() / 256)));
    return FindText(text, part, 0) != text.npos;
  }
  if (container.is_dict()) return container.as_dict().Find(item) != nullptr;
  if (container.is_list()) {
    for (const TemplateValue& candidate : container.as_list().items) {
      RETURN_IF_ERROR(Charge(1));
      ASSIGN_OR_RETURN(const bool is_equal, Equal(candidate, item));
      if (is_equal) return true;
    }
    return false;
  }
  if (container.is_undefined()) return false;
  if (const auto* space = container.is_object() ? dynamic_cast<JinjaNamespace*>(container.as_object().get()) : nullptr;
      space != nullptr) {
    return space->values.Find(item) != nullptr;
  }
  return Error(ConcatText({"argument of type '", container.TypeName(), "' is not iterable"}));
}

absl::StatusOr<bool> JinjaEvaluator::Compare(JinjaOp op, const TemplateValue& a, const TemplateValue& b) {
  if (op == JinjaOp::kIn || op == JinjaOp::kNotIn) {
    ASSIGN_OR_RETURN(const bool is_inside, Contains(b, a));
    return is_inside == (op == JinjaOp::kIn);
  }
  if (IsOrdering(op)) {
    if (op == JinjaOp::kLt) return Less(a, b);
    if (op == JinjaOp::kGt) return Less(b, a);
    ASSIGN_OR_RETURN(const bool is_less, op == JinjaOp::kLe ? Less(a, b) : Less(b, a));
    if (is_less) return true;
  }
  ASSIGN_OR_RETURN(const bool is_equal, Equal(a, b));
  return is_equal != (op == JinjaOp::kNe);
}

absl::StatusOr<std::vector<TemplateValue>> JinjaEvaluator::Items(const TemplateValue& iterable) {
  std::vector<TemplateValue> items;
  if (iterable.is_undefined()) return items;
  if (iterable.is_list()) {
    TemplateList& list = iterable.as_list();
    RETURN_IF_ERROR(Charge(static_cast<int64_t>(list.items.size() / 8)));
    RETURN_IF_ERROR(ChargeBytes(list.items.size() * sizeof(TemplateValue)));
    if (list.kind == ListKind::kIterator) return std::exchange(list.items, {});
    return list.items;
  }
  if (iterable.is_dict()) {
    RETURN_IF_ERROR(ChargeBytes(iterable.as_dict().size() * sizeof(TemplateValue)));
    for (const auto& [key, value] : iterable.as_dict().entries()) items.push_back(key);
    return items;
  }
  if (iterable.is_string()) {
    const TemplateString& text = iterable.as_string();
    RETURN_IF_ERROR(Charge(static_cast<int64_t>(text.size_bytes())));
    RETURN_IF_ERROR(ChargeBytes(text.size_bytes() * 4 * sizeof(TemplateValue)));
    for (size_t at = 0; at < text.size_bytes();) {
      const size_t end = at + CharBytes(text.view(), at);
      items.push_back(TemplateValue::String(text.Slice(at, end)));
      at = end;
    }
    return items;
  }
  return Error(ConcatText({"'", iterable.TypeName(), "' object is not iterable"}));
}

}  // namespace millrace
