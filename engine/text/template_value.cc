// SPDX-License-Identifier: Apache-2.0
#include "engine/text/template_value.h"

#include <charconv>
#include <cmath>
#include <functional>

#include "absl/strings/str_cat.h"
#include "kernels/status_macros.h"

namespace millrace {
namespace {

constexpr size_t kIndexFromEntries = 9;  // below this a linear look is faster

absl::Status TooDeep() {
  return absl::InvalidArgumentError(absl::StrCat("a value is nested deeper than ", kMaxValueDepth, " levels"));
}

// Equal values have equal hashes; big tuples are hashed by their head, so that the cost stays bounded.
size_t HashOf(const TemplateValue& value, int depth = 0) {
  switch (value.kind()) {
    case TemplateValue::Kind::kBool:
    case TemplateValue::Kind::kInt:
    case TemplateValue::Kind::kFloat:
      return std::hash<double>()(value.number());
    case TemplateValue::Kind::kString:
      return std::hash<std::string_view>()(value.text());
    case TemplateValue::Kind::kList: {
      size_t hash = 0x9e3779b9;
      if (depth >= 3) return hash;
      const auto& items = value.as_list().items;
      for (size_t i = 0; i < items.size() && i < 8; ++i) hash = hash * 31 + HashOf(items[i], depth + 1);
      return hash;
    }
    default:
      return static_cast<size_t>(value.kind());
  }
}

bool EqualAtDepth(const TemplateValue& a, const TemplateValue& b, int depth, int64_t& budget);

bool ListsEqual(const TemplateList& a, const TemplateList& b, int depth, int64_t& budget) {
  if (&a == &b) return true;
  if (a.kind != b.kind || a.kind == ListKind::kIterator || a.kind == ListKind::kValues) return false;
  if (a.items.size() != b.items.size()) return false;
  for (size_t i = 0; i < a.items.size(); ++i) {
    if (!EqualAtDepth(a.items[i], b.items[i], depth + 1, budget)) return false;
  }
  return true;
}

bool DictsEqual(const TemplateDict& a, const TemplateDict& b, int depth, int64_t& budget) {
  if (&a == &b) return true;
  if (a.size() != b.size()) return false;
  for (const auto& [key, value] : a.entries()) {
    const TemplateValue* other = b.Find(key);
    if (other == nullptr || !EqualAtDepth(value, *other, depth + 1, budget)) return false;
  }
  return true;
}

bool EqualAtDepth(const TemplateValue& a, const TemplateValue& b, int depth, int64_t& budget) {
  if (--budget < 0 || depth > kMaxValueDepth) return false;
  if (a.is_number() && b.is_number()) {
    if (!a.is_float() && !b.is_float()) return a.integer() == b.integer();
    // long double holds every int64 exactly.
    const auto wide = [](const TemplateValue& v) {
      return v.is_float() ? static_cast<long double>(v.as_float()) : static_cast<long double>(v.integer());
    };
    return wide(a) == wide(b);
  }
  if (a.kind() != b.kind()) return false;
  switch (a.kind()) {
    case TemplateValue::Kind::kString:
      return a.text() == b.text();
    case TemplateValue::Kind::kList:
      return ListsEqual(a.as_list(), b.as_list(), depth, budget);
    case TemplateValue::Kind::kDict:
      return DictsEqual(a.as_dict(), b.as_dict(), depth, budget);
    case TemplateValue::Kind::kObject:
      return a.as_object() == b.as_object();
    default:
      return true;  // undefined, None
  }
}

// A string as Python prints it inside a list: quotes, and escapes for what is not printable.
void AppendStringRepr(const TemplateString& text, TemplateStringBuilder& out) {
  const std::string_view view = text.view();
  const bool has_single = view.find('\'') != view.npos;
  const char quote = has_single && view.find('"') == view.npos ? '"' : '\'';
  const std::string_view quote_text(&quote, 1);
  out.Append(quote_text, TextOrigin::kData);
  size_t done = 0;
  for (size_t i = 0; i < view.size(); ++i) {
    const auto c = static_cast<unsigned char>(view[i]);
    if (c >= 0x20 && c != 0x7f && c != '\\' && c != static_cast<unsigned char>(quote)) continue;
    out.AppendSlice(text, done, i);
    done = i + 1;
    if (c == '\n') {
      out.Append("\\n", TextOrigin::kData);
    } else if (c == '\r') {
      out.Append("\\r", TextOrigin::kData);
    } else if (c == '\t') {
      out.Append("\\t", TextOrigin::kData);
    } else if (c == '\\' || c == static_cast<unsigned char>(quote)) {
      const char escaped[2] = {'\\', static_cast<char>(c)};
      out.Append(std::string_view(escaped, 2), TextOrigin::kData);
    } else {
      out.Append(absl::StrCat("\\x", absl::Hex(c, absl::kZeroPad2)), TextOrigin::kData);
    }
  }
  out.AppendSlice(text, done, view.size());
  out.Append(quote_text, TextOrigin::kData);
}

struct ReprWriter {
  size_t max_bytes;
  TemplateStringBuilder& out;

  void Put(std::string_view text) { out.Append(text, TextOrigin::kData); }

  absl::Status Write(const TemplateValue& value, int depth) {
    if (depth > kMaxValueDepth) return TooDeep();
    if (out.size_bytes() > max_bytes) return absl::InvalidArgumentError("a printed value is too long");
    switch (value.kind()) {
      case TemplateValue::Kind::kUndefined:
        Put("Undefined");
        return absl::OkStatus();
      case TemplateValue::Kind::kString:
        AppendStringRepr(value.as_string(), out);
        return absl::OkStatus();
      case TemplateValue::Kind::kList:
        return WriteList(value.as_list(), depth);
      case TemplateValue::Kind::kDict:
        return WriteDict(value.as_dict(), depth);
      default:
        return WriteScalar(value);
    }
  }

  absl::Status WriteScalar(const TemplateValue& value) {
    if (value.is_none()) {
      Put("None");
    } else if (value.is_bool()) {
      Put(value.as_bool() ? "True" : "False");
    } else if (value.is_int()) {
      Put(absl::StrCat(value.as_int()));
    } else if (value.is_float()) {
      Put(FloatRepr(value.as_float()));
    } else {
      Put(absl::StrCat("<", value.TypeName(), " object>"));
    }
    return absl::OkStatus();
  }

  absl::Status WriteList(const TemplateList& list, int depth) {
    static constexpr std::string_view kOpen[] = {
        "[", "(", "<generator object [", "range(", "dict_keys([", "dict_values([", "dict_items(["};
    static constexpr std::string_view kClose[] = {"]", ")", "]>", ")", "])", "])", "])"};
    const auto kind = static_cast<size_t>(list.kind);
    if (list.kind == ListKind::kRange) {
      const size_t count = list.items.size();
      const int64_t first = count == 0 ? 0 : list.items[0].as_int();
      const int64_t step = count < 2 ? 1 : list.items[1].as_int() - first;
      Put(absl::StrCat("range(", first, ", ", first + static_cast<int64_t>(count) * step));
      Put(step == 1 ? ")" : absl::StrCat(", ", step, ")"));
      return absl::OkStatus();
    }
    Put(kOpen[kind]);
    for (size_t i = 0; i < list.items.size(); ++i) {
      if (i > 0) Put(", ");
      RETURN_IF_ERROR(Write(list.items[i], depth + 1));
    }
    if (list.kind == ListKind::kTuple && list.items.size() == 1) Put(",");
    Put(kClose[kind]);
    return absl::OkStatus();
  }

  absl::Status WriteDict(const TemplateDict& dict, int depth) {
    Put("{");
    bool is_first = true;
    for (const auto& [key, value] : dict.entries()) {
      if (!is_first) Put(", ");
      is_first = false;
      RETURN_IF_ERROR(Write(key, depth + 1));
      Put(": ");
      RETURN_IF_ERROR(Write(value, depth + 1));
    }
    Put("}");
    return absl::OkStatus();
  }
};

absl::StatusOr<TemplateValue> CopyAtDepth(const TemplateValue& value, int depth) {
  if (depth > kMaxValueDepth) return TooDeep();
  if (value.is_list()) {
    TemplateList copy;
    copy.kind = value.as_list().kind;
    copy.items.reserve(value.as_list().items.size());
    for (const TemplateValue& item : value.as_list().items) {
      ASSIGN_OR_RETURN(TemplateValue copied, CopyAtDepth(item, depth + 1));
      copy.items.push_back(std::move(copied));
    }
    return TemplateValue::List(std::move(copy));
  }
  if (value.is_dict()) {
    TemplateValue copy = TemplateValue::Dict();
    for (const auto& [key, item] : value.as_dict().entries()) {
      ASSIGN_OR_RETURN(TemplateValue copied, CopyAtDepth(item, depth + 1));
      copy.as_dict().Set(key, std::move(copied));
    }
    return copy;
  }
  return value;
}

}  // namespace

TemplateValue TemplateValue::Undefined(std::string what) {
  return TemplateValue(Data(UndefinedData{std::make_shared<const std::string>(std::move(what))}));
}

TemplateValue TemplateValue::List(std::vector<TemplateValue> items) {
  return List(TemplateList(ListKind::kList, std::move(items)));
}

TemplateValue TemplateValue::List(TemplateList list) {
  return TemplateValue(Data(std::make_shared<TemplateList>(std::move(list))));
}

TemplateValue TemplateValue::Dict() { return TemplateValue(Data(std::make_shared<TemplateDict>())); }

double TemplateValue::number() const {
  if (is_float()) return as_float();
  return static_cast<double>(integer());
}

bool TemplateValue::IsTruthy() const {
  switch (kind()) {
    case Kind::kUndefined:
    case Kind::kNone:
      return false;
    case Kind::kBool:
      return as_bool();
    case Kind::kInt:
      return as_int() != 0;
    case Kind::kFloat:
      return as_float() != 0;
    case Kind::kString:
      return !as_string().is_empty();
    case Kind::kList:
      return as_list().kind == ListKind::kIterator || !as_list().items.empty();
    case Kind::kDict:
      return as_dict().size() > 0;
    case Kind::kObject:
      return true;
  }
  return true;
}

std::string TemplateValue::UndefinedMessage() const {
  const auto* data = std::get_if<UndefinedData>(&data_);
  if (data == nullptr || data->what == nullptr) return "a value is undefined";
  return *data->what;
}

const char* TemplateValue::TypeName() const {
  static constexpr const char* kNames[] = {"Undefined", "NoneType", "bool", "int",   "float",
                                           "str",       "list",     "dict", "object"};
  static constexpr const char* kListNames[] = {"list",      "tuple",       "generator", "range",
                                               "dict_keys", "dict_values", "dict_items"};
  if (is_list()) return kListNames[static_cast<size_t>(as_list().kind)];
  return kNames[static_cast<size_t>(kind())];
}

void TemplateValue::ReleaseAll(std::vector<TemplateValue> values) {
  // A container held only here is emptied into the work list before it dies, so that no destructor nests.
  while (!values.empty()) {
    TemplateValue value = std::move(values.back());
    values.pop_back();
    if (value.is_list() && value.shared_list().use_count() == 1) {
      for (TemplateValue& item : value.as_list().items) {
        if (item.is_list() || item.is_dict()) values.push_back(std::move(item));
      }
      value.as_list().items.clear();
    } else if (value.is_dict() && value.shared_dict().use_count() == 1) {
      for (auto& [key, item] : value.as_dict().mutable_values()) {
        if (key.is_list()) values.push_back(std::move(key));
        if (item.is_list() || item.is_dict()) values.push_back(std::move(item));
      }
      value.as_dict().Clear();
    }
  }
}

TemplateDict::~TemplateDict() {
  std::vector<TemplateValue> values;
  for (auto& [key, value] : entries_) {
    if (key.is_list()) values.push_back(std::move(key));
    if (value.is_list() || value.is_dict()) values.push_back(std::move(value));
  }
  if (!values.empty()) TemplateValue::ReleaseAll(std::move(values));
}

const TemplateDict::Entry* TemplateDict::FindEntry(size_t hash, const TemplateValue* key, std::string_view text) const {
  const auto matches = [&](const Entry& entry) {
    if (key == nullptr || key->is_string()) return entry.first.is_string() && entry.first.text() == text;
    int64_t budget = 1000;
    return ValuesEqual(entry.first, *key, budget);
  };
  if (index_.empty()) {
    for (const Entry& entry : entries_) {
      if (matches(entry)) return &entry;
    }
    return nullptr;
  }
  const auto [begin, end] = index_.equal_range(hash);
  for (auto it = begin; it != end; ++it) {
    if (matches(entries_[it->second])) return &entries_[it->second];
  }
  return nullptr;
}

const TemplateValue* TemplateDict::Find(std::string_view key) const {
  const size_t hash = index_.empty() ? 0 : std::hash<std::string_view>()(key);
  const Entry* entry = FindEntry(hash, nullptr, key);
  return entry == nullptr ? nullptr : &entry->second;
}

const TemplateValue* TemplateDict::Find(const TemplateValue& key) const {
  if (key.is_string()) return Find(key.text());
  if (!IsHashable(key)) return nullptr;
  const Entry* entry = FindEntry(HashOf(key), &key, {});
  return entry == nullptr ? nullptr : &entry->second;
}

void TemplateDict::Set(TemplateValue key, TemplateValue value) {
  if (const TemplateValue* found = Find(key); found != nullptr) {
    *const_cast<TemplateValue*>(found) = std::move(value);
    return;
  }
  entries_.emplace_back(std::move(key), std::move(value));
  if (entries_.size() < kIndexFromEntries) return;
  if (index_.empty()) {
    for (size_t i = 0; i < entries_.size(); ++i) index_.emplace(HashOf(entries_[i].first), static_cast<uint32_t>(i));
  } else {
    index_.emplace(HashOf(entries_.back().first), static_cast<uint32_t>(entries_.size() - 1));
  }
}

bool TemplateDict::Erase(const TemplateValue& key) {
  const TemplateValue* found = Find(key);
  if (found == nullptr) return false;
  std::vector<Entry> kept;
  for (Entry& entry : entries_) {
    if (&entry.second != found) kept.push_back(std::move(entry));
  }
  entries_.clear();
  index_.clear();
  for (Entry& entry : kept) Set(std::move(entry.first), std::move(entry.second));
  return true;
}

void TemplateDict::Clear() {
  entries_.clear();
  index_.clear();
}

bool IsHashable(const TemplateValue& value) {
  if (value.is_dict()) return false;
  if (!value.is_list()) return true;
  if (value.as_list().kind != ListKind::kTuple || value.as_list().items.size() > 64) return false;
  for (const TemplateValue& item : value.as_list().items) {
    // One level of tuples is enough for templates and keeps the check shallow.
    if (item.is_list() || item.is_dict()) return false;
  }
  return true;
}

bool ValuesEqual(const TemplateValue& a, const TemplateValue& b, int64_t& budget) {
  return EqualAtDepth(a, b, 0, budget);
}

absl::Status AppendRepr(const TemplateValue& value, size_t max_bytes, TemplateStringBuilder& out) {
  return ReprWriter{max_bytes, out}.Write(value, 0);
}

absl::Status AppendStr(const TemplateValue& value, size_t max_bytes, TemplateStringBuilder& out) {
  if (value.is_string()) {
    out.Append(value.as_string());
    return absl::OkStatus();
  }
  if (value.is_undefined()) return absl::OkStatus();
  return AppendRepr(value, max_bytes, out);
}

std::string FloatRepr(double value) {
  if (std::isnan(value)) return "nan";
  if (std::isinf(value)) return value > 0 ? "inf" : "-inf";
  char buffer[64];
  const double magnitude = std::fabs(value);
  const bool is_plain = magnitude == 0 || (magnitude >= 1e-4 && magnitude < 1e16);
  const auto format = is_plain ? std::chars_format::fixed : std::chars_format::scientific;
  const auto end = std::to_chars(buffer, buffer + sizeof buffer, value, format).ptr;
  std::string text(buffer, end);
  if (is_plain && text.find('.') == text.npos) text += ".0";
  return text;
}

absl::StatusOr<TemplateValue> CopyContainers(const TemplateValue& value) { return CopyAtDepth(value, 0); }

}  // namespace millrace
