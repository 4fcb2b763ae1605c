// SPDX-License-Identifier: Apache-2.0
#pragma once
// The values a chat template works on, with Python's meaning: undefined, None, bool, int, float, str, list and its
// relatives, dict, and objects of the engine (macros, bound methods, namespaces). Also the form in which tools and
// tool arguments reach the templates. Copies share containers; a container is written by one thread only, and
// never while others read it (a render works on its own copy of what it was given).
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <variant>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "engine/text/template_string.h"

namespace millrace {

struct TemplateList;
class TemplateDict;

// Things only the engine makes: see jinja_object.h.
class TemplateObject {
 public:
  virtual ~TemplateObject() = default;
};

class TemplateValue {
 public:
  enum class Kind { kUndefined, kNone, kBool, kInt, kFloat, kString, kList, kDict, kObject };

  TemplateValue() = default;                         // undefined
  static TemplateValue Undefined(std::string what);  // `what` completes the message of a later error
  static TemplateValue None() { return TemplateValue(Data(std::in_place_index<1>)); }
  static TemplateValue Bool(bool value) { return TemplateValue(Data(value)); }
  static TemplateValue Int(int64_t value) { return TemplateValue(Data(value)); }
  static TemplateValue Float(double value) { return TemplateValue(Data(value)); }
  static TemplateValue String(TemplateString value) { return TemplateValue(Data(std::move(value))); }
  // Request data; never a control token.
  static TemplateValue Text(std::string_view text) {
    return String(TemplateString(std::string(text), TextOrigin::kData));
  }
  // Text the operator vouches for (special tokens, role names).
  static TemplateValue Trusted(std::string_view text) {
    return String(TemplateString(std::string(text), TextOrigin::kTemplate));
  }
  static TemplateValue List(std::vector<TemplateValue> items = {});
  static TemplateValue List(TemplateList list);
  static TemplateValue Dict();
  static TemplateValue Object(std::shared_ptr<TemplateObject> object) { return TemplateValue(Data(std::move(object))); }

  Kind kind() const { return static_cast<Kind>(data_.index()); }
  bool is_undefined() const { return kind() == Kind::kUndefined; }
  bool is_none() const { return kind() == Kind::kNone; }
  bool is_bool() const { return kind() == Kind::kBool; }
  bool is_int() const { return kind() == Kind::kInt; }
  bool is_float() const { return kind() == Kind::kFloat; }
  bool is_string() const { return kind() == Kind::kString; }
  bool is_list() const { return kind() == Kind::kList; }  // any of the list's relatives
  bool is_dict() const { return kind() == Kind::kDict; }
  bool is_object() const { return kind() == Kind::kObject; }
  bool is_number() const { return is_bool() || is_int() || is_float(); }

  // REQUIRES for each: the matching kind.
  bool as_bool() const { return *std::get_if<bool>(&data_); }
  int64_t as_int() const { return *std::get_if<int64_t>(&data_); }
  double as_float() const { return *std::get_if<double>(&data_); }
  const TemplateString& as_string() const { return *std::get_if<TemplateString>(&data_); }
  std::string_view text() const { return as_string().view(); }
  TemplateList& as_list() const { return **std::get_if<std::shared_ptr<TemplateList>>(&data_); }
  TemplateDict& as_dict() const { return **std::get_if<std::shared_ptr<TemplateDict>>(&data_); }
  const std::shared_ptr<TemplateObject>& as_object() const {
    return *std::get_if<std::shared_ptr<TemplateObject>>(&data_);
  }
  const std::shared_ptr<TemplateList>& shared_list() const {
    return *std::get_if<std::shared_ptr<TemplateList>>(&data_);
  }
  const std::shared_ptr<TemplateDict>& shared_dict() const {
    return *std::get_if<std::shared_ptr<TemplateDict>>(&data_);
  }
  // bool, int or float as a double; REQUIRES is_number().
  double number() const;
  // bool or int; REQUIRES is_bool() or is_int().
  int64_t integer() const { return is_bool() ? int64_t{as_bool()} : as_int(); }

  bool IsTruthy() const;
  // What an error says of an undefined value: "'x' is undefined".
  std::string UndefinedMessage() const;
  // Python's name of the type: "str", "NoneType", ...
  const char* TypeName() const;
  // Drops the last reference without recursion, however deep the tree.
  static void ReleaseAll(std::vector<TemplateValue> values);

 private:
  struct UndefinedData {
    std::shared_ptr<const std::string> what;
  };
  using Data =
      std::variant<UndefinedData, std::monostate, bool, int64_t, double, TemplateString, std::shared_ptr<TemplateList>,
                   std::shared_ptr<TemplateDict>, std::shared_ptr<TemplateObject>>;
  explicit TemplateValue(Data data) : data_(std::move(data)) {}

  Data data_;
};

enum class ListKind { kList, kTuple, kIterator, kRange, kKeys, kValues, kItems };

struct TemplateList {
  TemplateList() = default;
  TemplateList(ListKind list_kind, std::vector<TemplateValue> list_items)
      : kind(list_kind), items(std::move(list_items)) {}
  TemplateList(TemplateList&&) = default;
  TemplateList(const TemplateList&) = default;
  TemplateList& operator=(TemplateList&&) = default;
  ~TemplateList() { TemplateValue::ReleaseAll(std::move(items)); }

  ListKind kind = ListKind::kList;
  std::vector<TemplateValue> items;  // an iterator that was used up has none
};

// Keeps insertion order, finds by Python's equality (1 == 1.0 == True).
class TemplateDict {
 public:
  using Entry = std::pair<TemplateValue, TemplateValue>;
  TemplateDict() = default;
  TemplateDict(const TemplateDict&) = delete;
  TemplateDict& operator=(const TemplateDict&) = delete;
  ~TemplateDict();

  const std::vector<Entry>& entries() const { return entries_; }
  std::vector<Entry>& mutable_values() { return entries_; }  // keys must stay
  size_t size() const { return entries_.size(); }
  // Null when absent. A key that Python cannot hash (list, dict) is never found.
  const TemplateValue* Find(const TemplateValue& key) const;
  const TemplateValue* Find(std::string_view key) const;
  // Adds or overwrites. REQUIRES: IsHashable(key).
  void Set(TemplateValue key, TemplateValue value);
  void Set(std::string_view key, TemplateValue value) { Set(TemplateValue::Trusted(key), std::move(value)); }
  bool Erase(const TemplateValue& key);  // linear
  void Clear();

 private:
  const Entry* FindEntry(size_t hash, const TemplateValue* key, std::string_view text) const;

  std::vector<Entry> entries_;
  std::unordered_multimap<size_t, uint32_t> index_;  // built once the dict is larger than a few entries
};

bool IsHashable(const TemplateValue& value);

// Python's ==. Takes one off `budget` per pair compared; answers false when it is used up or the values are nested
// deeper than kMaxValueDepth.
bool ValuesEqual(const TemplateValue& a, const TemplateValue& b, int64_t& budget);
inline constexpr int kMaxValueDepth = 200;

// Python's str() and repr(), appended with the origin of the pieces. ResourceExhausted: nested deeper than
// kMaxValueDepth or longer than max_bytes in all.
absl::Status AppendStr(const TemplateValue& value, size_t max_bytes, TemplateStringBuilder& out);
absl::Status AppendRepr(const TemplateValue& value, size_t max_bytes, TemplateStringBuilder& out);
// Python's repr() of a float: shortest digits that read back, exponent below 1e-4 and from 1e16.
std::string FloatRepr(double value);

// A copy that shares no container with the original (strings are shared). ResourceExhausted: nested too deep.
absl::StatusOr<TemplateValue> CopyContainers(const TemplateValue& value);

}  // namespace millrace
