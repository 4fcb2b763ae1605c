// SPDX-License-Identifier: Apache-2.0
// Filters on lists, dicts and other sequences.
#include <algorithm>

#include "engine/text/jinja_evaluator.h"
#include "engine/text/jinja_filters.h"
#include "engine/text/jinja_parser.h"
#include "engine/text/jinja_string.h"
#include "engine/text/jinja_text.h"
#include "kernels/status_macros.h"

namespace millrace {
namespace {

using Result = absl::StatusOr<TemplateValue>;
using Ev = JinjaEvaluator;

bool IsTruthyArg(const TemplateValue* value) { return value != nullptr && value->IsTruthy(); }

Result Length(Ev& evaluator, const TemplateValue& input, const JinjaArgs& args) {
  if (input.is_undefined()) return TemplateValue::Int(0);
  if (input.is_string()) {
    RETURN_IF_ERROR(evaluator.Charge(static_cast<int64_t>(input.text().size() / 64)));
    return TemplateValue::Int(static_cast<int64_t>(CountChars(input.text())));
  }
  if (input.is_dict()) return TemplateValue::Int(static_cast<int64_t>(input.as_dict().size()));
  if (input.is_list() && input.as_list().kind != ListKind::kIterator) {
    return TemplateValue::Int(static_cast<int64_t>(input.as_list().items.size()));
  }
  return evaluator.Error(ConcatText({"object of type '", input.TypeName(), "' has no len()"}));
}

Result First(Ev& evaluator, const TemplateValue& input, const JinjaArgs& args) {
  ASSIGN_OR_RETURN(const std::vector<TemplateValue> items, evaluator.Items(input));
  return items.empty() ? TemplateValue::Undefined("no first item, the sequence was empty") : items.front();
}

Result Last(Ev& evaluator, const TemplateValue& input, const JinjaArgs& args) {
  ASSIGN_OR_RETURN(const std::vector<TemplateValue> items, evaluator.Items(input));
  return items.empty() ? TemplateValue::Undefined("no last item, the sequence was empty") : items.back();
}

Result List(Ev& evaluator, const TemplateValue& input, const JinjaArgs& args) {
  ASSIGN_OR_RETURN(std::vector<TemplateValue> items, evaluator.Items(input));
  return evaluator.NewList(std::move(items));
}

Result Reverse(Ev& evaluator, const TemplateValue& input, const JinjaArgs& args) {
  ASSIGN_OR_RETURN(std::vector<TemplateValue> items, evaluator.Items(input));
  std::reverse(items.begin(), items.end());
  if (input.is_string()) return JoinText(evaluator, TemplateString(), items);
  return evaluator.NewList(std::move(items), ListKind::kIterator);
}

Result ItemPairs(Ev& evaluator, const TemplateValue& input, const JinjaArgs& args) {
  if (input.is_undefined()) return evaluator.NewList({}, ListKind::kIterator);
  if (!input.is_dict()) return evaluator.Error("Can only get item pairs from a mapping.");
  std::vector<TemplateValue> items;
  for (const auto& [key, value] : input.as_dict().entries()) {
    ASSIGN_OR_RETURN(TemplateValue pair, evaluator.NewList({key, value}, ListKind::kTuple));
    items.push_back(std::move(pair));
  }
  return evaluator.NewList(std::move(items), ListKind::kIterator);
}

Result Join(Ev& evaluator, const TemplateValue& input, const JinjaArgs& args) {
  ASSIGN_OR_RETURN(std::vector<TemplateValue> items, evaluator.Items(input));
  if (const TemplateValue* attribute = args.Get(1, "attribute"); attribute != nullptr && !attribute->is_none()) {
    for (TemplateValue& item : items) {
      ASSIGN_OR_RETURN(item, evaluator.Path(item, *attribute));
    }
  }
  TemplateString separator;
  if (const TemplateValue* given = args.Get(0, "d"); given != nullptr) {
    ASSIGN_OR_RETURN(separator, evaluator.ToString(*given));
  }
  return JoinText(evaluator, separator, items);
}

// What to order or compare an item by: its attribute if asked for, in lower case unless case counts.
struct SortKey {
  const TemplateValue* attribute = nullptr;
  bool is_case_sensitive = false;

  Result Of(Ev& evaluator, const TemplateValue& item) const {
    if (attribute == nullptr || attribute->is_none()) return Fold(evaluator, item);
    if (!attribute->is_string() || attribute->text().find(',') == std::string_view::npos) {
      ASSIGN_OR_RETURN(const TemplateValue value, evaluator.Path(item, *attribute));
      return Fold(evaluator, value);
    }
    std::vector<TemplateValue> parts;
    std::string_view rest = attribute->text();
    while (true) {
      const size_t comma = rest.find(',');
      ASSIGN_OR_RETURN(const TemplateValue value, evaluator.Path(item, TemplateValue::Trusted(rest.substr(0, comma))));
      ASSIGN_OR_RETURN(TemplateValue folded, Fold(evaluator, value));
      parts.push_back(std::move(folded));
      if (comma == rest.npos) return evaluator.NewList(std::move(parts), ListKind::kTuple);
      rest.remove_prefix(comma + 1);
    }
  }

  Result Fold(Ev& evaluator, const TemplateValue& value) const {
    if (is_case_sensitive || !value.is_string()) return value;
    RETURN_IF_ERROR(evaluator.Charge(static_cast<int64_t>(value.text().size() / 8)));
    return evaluator.NewString(MapCase(value.as_string(), CaseMapping::kLower));
  }
};

enum class Direction { kAscending, kDescending };

// Stable merge sort, because a comparison may fail.
absl::Status SortBy(Ev& evaluator, std::vector<std::pair<TemplateValue, TemplateValue>>& keyed, Direction direction) {
  auto scratch = keyed;
  for (size_t width = 1; width < keyed.size(); width *= 2) {
    for (size_t begin = 0; begin < keyed.size(); begin += 2 * width) {
      size_t left = begin, right = std::min(begin + width, keyed.size());
      const size_t left_end = right, right_end = std::min(begin + 2 * width, keyed.size());
      for (size_t out = begin; out < right_end; ++out) {
        bool takes_right = left >= left_end;
        if (left < left_end && right < right_end) {
          const bool is_descending = direction == Direction::kDescending;
          ASSIGN_OR_RETURN(takes_right, is_descending ? evaluator.Less(keyed[left].first, keyed[right].first)
                                                      : evaluator.Less(keyed[right].first, keyed[left].first));
        }
        scratch[out] = std::move(keyed[takes_right ? right++ : left++]);
      }
    }
    std::swap(keyed, scratch);
  }
  return absl::OkStatus();
}

Result SortItems(Ev& evaluator, std::vector<TemplateValue> items, const SortKey& key, Direction direction) {
  std::vector<std::pair<TemplateValue, TemplateValue>> keyed;
  keyed.reserve(items.size());
  RETURN_IF_ERROR(evaluator.ChargeBytes(items.size() * 4 * sizeof(TemplateValue)));
  for (TemplateValue& item : items) {
    ASSIGN_OR_RETURN(TemplateValue value, key.Of(evaluator, item));
    keyed.emplace_back(std::move(value), std::move(item));
  }
  RETURN_IF_ERROR(SortBy(evaluator, keyed, direction));
  for (size_t i = 0; i < keyed.size(); ++i) items[i] = std::move(keyed[i].second);
  return evaluator.NewList(std::move(items));
}

Result Sort(Ev& evaluator, const TemplateValue& input, const JinjaArgs& args) {
  ASSIGN_OR_RETURN(std::vector<TemplateValue> items, evaluator.Items(input));
  const SortKey key{args.Get(2, "attribute"), IsTruthyArg(args.Get(1, "case_sensitive"))};
  const bool is_reversed = IsTruthyArg(args.Get(0, "reverse"));
  return SortItems(evaluator, std::move(items), key, is_reversed ? Direction::kDescending : Direction::kAscending);
}

Result DictSort(Ev& evaluator, const TemplateValue& input, const JinjaArgs& args) {
  if (input.is_undefined()) return evaluator.Error(input.UndefinedMessage());
  if (!input.is_dict()) {
    return evaluator.Error(ConcatText({"'", input.TypeName(), " object' has no attribute 'items'"}));
  }
  int64_t position = 0;
  if (const TemplateValue* by = args.Get(1, "by"); by != nullptr) {
    const bool is_known = by->is_string() && (by->text() == "key" || by->text() == "value");
    if (!is_known) return evaluator.Error("You can only sort by either \"key\" or \"value\"");
    position = by->text() == "value" ? 1 : 0;
  }
  std::vector<TemplateValue> items;
  for (const auto& [key, value] : input.as_dict().entries()) {
    ASSIGN_OR_RETURN(TemplateValue pair, evaluator.NewList({key, value}, ListKind::kTuple));
    items.push_back(std::move(pair));
  }
  const TemplateValue attribute = TemplateValue::Int(position);
  const SortKey key{&attribute, IsTruthyArg(args.Get(0, "case_sensitive"))};
  const bool is_reversed = IsTruthyArg(args.Get(2, "reverse"));
  return SortItems(evaluator, std::move(items), key, is_reversed ? Direction::kDescending : Direction::kAscending);
}

Result Unique(Ev& evaluator, const TemplateValue& input, const JinjaArgs& args) {
  ASSIGN_OR_RETURN(std::vector<TemplateValue> items, evaluator.Items(input));
  const SortKey key{args.Get(1, "attribute"), IsTruthyArg(args.Get(0, "case_sensitive"))};
  TemplateDict seen;
  std::vector<TemplateValue> kept;
  for (TemplateValue& item : items) {
    ASSIGN_OR_RETURN(TemplateValue value, key.Of(evaluator, item));
    RETURN_IF_ERROR(evaluator.Charge(1));
    if (!IsHashable(value)) return evaluator.Error(ConcatText({"unhashable type: '", value.TypeName(), "'"}));
    if (seen.Find(value) != nullptr) continue;
    seen.Set(std::move(value), TemplateValue::None());
    kept.push_back(std::move(item));
  }
  return evaluator.NewList(std::move(kept), ListKind::kIterator);
}

template <Direction direction>
Result Extreme(Ev& evaluator, const TemplateValue& input, const JinjaArgs& args) {
  ASSIGN_OR_RETURN(std::vector<TemplateValue> items, evaluator.Items(input));
  if (items.empty()) return TemplateValue::Undefined("no aggregated item, the sequence was empty");
  const SortKey key{args.Get(1, "attribute"), IsTruthyArg(args.Get(0, "case_sensitive"))};
  size_t best = 0;
  ASSIGN_OR_RETURN(TemplateValue best_key, key.Of(evaluator, items[0]));
  for (size_t i = 1; i < items.size(); ++i) {
    ASSIGN_OR_RETURN(TemplateValue value, key.Of(evaluator, items[i]));
    ASSIGN_OR_RETURN(const bool is_better, direction == Direction::kAscending ? evaluator.Less(value, best_key)
                                                                              : evaluator.Less(best_key, value));
    if (!is_better) continue;
    best = i;
    best_key = std::move(value);
  }
  return items[best];
}

Result Sum(Ev& evaluator, const TemplateValue& input, const JinjaArgs& args) {
  ASSIGN_OR_RETURN(const std::vector<TemplateValue> items, evaluator.Items(input));
  const TemplateValue* attribute = args.Get(0, "attribute");
  const TemplateValue* start = args.Get(1, "start");
  TemplateValue total = start == nullptr ? TemplateValue::Int(0) : *start;
  for (const TemplateValue& item : items) {
    RETURN_IF_ERROR(evaluator.Charge(1));
    TemplateValue value = item;
    if (attribute != nullptr && !attribute->is_none()) {
      ASSIGN_OR_RETURN(value, evaluator.Path(item, *attribute));
    }
    ASSIGN_OR_RETURN(total, evaluator.Binary(JinjaOp::kAdd, total, value));
  }
  return total;
}

// The arguments after the first `count`.
JinjaArgs RestOf(const JinjaArgs& args, size_t count) {
  JinjaArgs rest;
  rest.positional.assign(args.positional.begin() + static_cast<ptrdiff_t>(std::min(count, args.positional.size())),
                         args.positional.end());
  rest.named = args.named;
  return rest;
}

Result Map(Ev& evaluator, const TemplateValue& input, const JinjaArgs& args) {
  ASSIGN_OR_RETURN(std::vector<TemplateValue> items, evaluator.Items(input));
  if (const TemplateValue* attribute = args.GetNamed("attribute"); args.positional.empty() && attribute != nullptr) {
    const TemplateValue* fallback = args.GetNamed("default");
    for (TemplateValue& item : items) {
      RETURN_IF_ERROR(evaluator.Charge(1));
      ASSIGN_OR_RETURN(item, evaluator.Path(item, *attribute, fallback));
    }
    return evaluator.NewList(std::move(items), ListKind::kIterator);
  }
  if (args.positional.empty() || !args.positional[0].is_string()) {
    return evaluator.Error("map requires a filter argument");
  }
  const JinjaFilter filter = FindJinjaFilter(args.positional[0].text());
  if (filter == nullptr) return evaluator.Error(ConcatText({"no filter named '", args.positional[0].text(), "'"}));
  const JinjaArgs rest = RestOf(args, 1);
  JinjaEvaluator::DepthGuard guard(evaluator);
  RETURN_IF_ERROR(guard.Check());
  for (TemplateValue& item : items) {
    RETURN_IF_ERROR(evaluator.Charge(1));
    ASSIGN_OR_RETURN(item, filter(evaluator, item, rest));
  }
  return evaluator.NewList(std::move(items), ListKind::kIterator);
}

enum class Keep { kPassing, kFailing };

template <Keep keep, bool by_attribute>
Result Select(Ev& evaluator, const TemplateValue& input, const JinjaArgs& args) {
  ASSIGN_OR_RETURN(std::vector<TemplateValue> items, evaluator.Items(input));
  constexpr size_t kTestIndex = by_attribute ? 1 : 0;
  if (by_attribute && args.positional.empty()) return evaluator.Error("missing parameter for attribute name");
  JinjaTest test = nullptr;
  if (args.positional.size() > kTestIndex) {
    const TemplateValue& name = args.positional[kTestIndex];
    test = name.is_string() ? FindJinjaTest(name.text()) : nullptr;
    if (test == nullptr) {
      return evaluator.Error(ConcatText({"no test named '", name.is_string() ? name.text() : "?", "'"}));
    }
  }
  const JinjaArgs rest = RestOf(args, kTestIndex + 1);
  std::vector<TemplateValue> kept;
  for (TemplateValue& item : items) {
    RETURN_IF_ERROR(evaluator.Charge(1));
    TemplateValue value = item;
    if (by_attribute) {
      ASSIGN_OR_RETURN(value, evaluator.Path(item, args.positional[0]));
    }
    bool passes = value.IsTruthy();
    if (test != nullptr) {
      ASSIGN_OR_RETURN(passes, test(evaluator, value, rest));
    }
    if (passes == (keep == Keep::kPassing)) kept.push_back(std::move(item));
  }
  return evaluator.NewList(std::move(kept), ListKind::kIterator);
}

Result Batch(Ev& evaluator, const TemplateValue& input, const JinjaArgs& args) {
  const TemplateValue* given = args.Get(0, "linecount");
  if (given == nullptr) return evaluator.Error("batch needs a line count");
  ASSIGN_OR_RETURN(const int64_t count, evaluator.ToInt(*given, "linecount"));
  if (count < 1 || count > evaluator.limits().max_range_items) return evaluator.Error("a line count out of range");
  ASSIGN_OR_RETURN(std::vector<TemplateValue> items, evaluator.Items(input));
  const TemplateValue* fill = args.Get(1, "fill_with");
  std::vector<TemplateValue> batches, row;
  for (size_t i = 0; i < items.size(); ++i) {
    row.push_back(std::move(items[i]));
    if (static_cast<int64_t>(row.size()) < count && i + 1 < items.size()) continue;
    while (fill != nullptr && !fill->is_none() && static_cast<int64_t>(row.size()) < count) row.push_back(*fill);
    ASSIGN_OR_RETURN(TemplateValue batch, evaluator.NewList(std::exchange(row, {})));
    batches.push_back(std::move(batch));
  }
  return evaluator.NewList(std::move(batches), ListKind::kIterator);
}

Result SliceFilter(Ev& evaluator, const TemplateValue& input, const JinjaArgs& args) {
  const TemplateValue* given = args.Get(0, "slices");
  if (given == nullptr) return evaluator.Error("slice needs a number of slices");
  ASSIGN_OR_RETURN(const int64_t count, evaluator.ToInt(*given, "slices"));
  if (count < 1 || count > 10'000) return evaluator.Error("a number of slices out of range");
  ASSIGN_OR_RETURN(const std::vector<TemplateValue> items, evaluator.Items(input));
  const TemplateValue* fill = args.Get(1, "fill_with");
  const auto num_slices = static_cast<size_t>(count);
  const size_t base = items.size() / num_slices, extra = items.size() % num_slices;
  std::vector<TemplateValue> slices;
  size_t at = 0;
  for (size_t i = 0; i < num_slices; ++i) {
    const size_t end = at + base + (i < extra ? 1 : 0);
    std::vector<TemplateValue> row(items.begin() + static_cast<ptrdiff_t>(at),
                                   items.begin() + static_cast<ptrdiff_t>(end));
    if (fill != nullptr && !fill->is_none() && i >= extra && extra > 0) row.push_back(*fill);
    ASSIGN_OR_RETURN(TemplateValue slice, evaluator.NewList(std::move(row)));
    slices.push_back(std::move(slice));
    at = end;
  }
  return evaluator.NewList(std::move(slices), ListKind::kIterator);
}

Result GroupBy(Ev& evaluator, const TemplateValue& input, const JinjaArgs& args) {
  const TemplateValue* attribute = args.Get(0, "attribute");
  if (attribute == nullptr) return evaluator.Error("groupby needs an attribute");
  ASSIGN_OR_RETURN(std::vector<TemplateValue> items, evaluator.Items(input));
  const SortKey key{attribute, IsTruthyArg(args.Get(2, "case_sensitive"))};
  ASSIGN_OR_RETURN(const TemplateValue sorted, SortItems(evaluator, std::move(items), key, Direction::kAscending));
  std::vector<TemplateValue> groups, members;
  const std::vector<TemplateValue>& ordered = sorted.as_list().items;
  for (size_t i = 0; i < ordered.size(); ++i) {
    members.push_back(ordered[i]);
    if (i + 1 < ordered.size()) {
      ASSIGN_OR_RETURN(const TemplateValue here, key.Of(evaluator, ordered[i]));
      ASSIGN_OR_RETURN(const TemplateValue next, key.Of(evaluator, ordered[i + 1]));
      ASSIGN_OR_RETURN(const bool is_same, evaluator.Equal(here, next));
      if (is_same) continue;
    }
    ASSIGN_OR_RETURN(TemplateValue grouper, evaluator.Path(members[0], *attribute));
    ASSIGN_OR_RETURN(TemplateValue list, evaluator.NewList(std::exchange(members, {})));
    ASSIGN_OR_RETURN(TemplateValue group, evaluator.NewList({std::move(grouper), std::move(list)}, ListKind::kTuple));
    groups.push_back(std::move(group));
  }
  return evaluator.NewList(std::move(groups));
}

Result AttributeFilter(Ev& evaluator, const TemplateValue& input, const JinjaArgs& args) {
  const TemplateValue* name = args.Get(0, "name");
  if (name == nullptr || !name->is_string()) return evaluator.Error("attr needs a name");
  if (input.is_dict() && FindJinjaMethod(input, name->text()) == nullptr) {
    return TemplateValue::Undefined("attr does not look at the items of a dict");
  }
  return evaluator.Attribute(input, name->text());
}

constexpr NamedJinjaFilter kFilters[] = {
    {"attr", AttributeFilter},
    {"batch", Batch},
    {"count", Length},
    {"dictsort", DictSort},
    {"first", First},
    {"groupby", GroupBy},
    {"items", ItemPairs},
    {"join", Join},
    {"last", Last},
    {"length", Length},
    {"list", List},
    {"map", Map},
    {"max", Extreme<Direction::kDescending>},
    {"min", Extreme<Direction::kAscending>},
    {"reject", Select<Keep::kFailing, false>},
    {"rejectattr", Select<Keep::kFailing, true>},
    {"reverse", Reverse},
    {"select", Select<Keep::kPassing, false>},
    {"selectattr", Select<Keep::kPassing, true>},
    {"slice", SliceFilter},
    {"sort", Sort},
    {"sum", Sum},
    {"unique", Unique},
};

}  // namespace

JinjaFilter FindSequenceFilter(std::string_view name) {
  for (const NamedJinjaFilter& candidate : kFilters) {
    if (candidate.name == name) return candidate.filter;
  }
  return nullptr;
}

}  // namespace millrace
