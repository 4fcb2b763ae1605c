// SPDX-License-Identifier: Apache-2.0
#pragma once
// SchemaCompiler: the schemas of one document, each a rule of a grammar under construction. Stack object, one thread;
// the documents outlive it. Schemas are compiled from a list, never by recursion: a hostile one cannot reach the
// stack's end.
#include <cstdint>
#include <deque>
#include <initializer_list>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "engine/grammar/json_schema.h"
#include "engine/grammar/number_range.h"

namespace millrace {

class SchemaCompiler {
 public:
  SchemaCompiler(GrammarBuilder& builder, const JsonSchemaLimits& limits) : builder_(builder), limits_(limits) {}

  // The rule of a whole document; REQUIRES: the document outlives the compiler.
  absl::StatusOr<int32_t> Compile(const TemplateValue& document);

 private:
  // A schema and where it stands.
  struct Place {
    const TemplateValue* schema = nullptr;  // null: any value
    const TemplateValue* document = nullptr;
    std::string path;
  };
  struct Job {
    Place place;
    int32_t rule;
  };
  enum class Type : uint8_t { kNull, kBoolean, kInteger, kNumber, kString, kArray, kObject };
  struct Property {
    std::string_view name;
    int32_t rule;
    bool is_required = false;
  };

  int32_t RuleOf(Place place);
  int32_t AnyValueRule() { return RuleOf({}); }
  int32_t CharRule();
  int32_t StringRule();
  void CompileOne(const Job& job);
  void EmitDict(const Job& job);
  void EmitAnyValue(int32_t rule);
  void EmitReference(const Job& job, const TemplateValue& reference);
  void EmitChoices(const Job& job, std::string_view keyword);
  void EmitValues(const Job& job, std::string_view keyword);
  void EmitType(const Job& job, Type type);
  void EmitNumbers(const Job& job, NumberKind kind);
  void EmitString(const Job& job);
  void EmitArray(const Job& job);
  void EmitObject(const Job& job);
  std::vector<Property> ReadProperties(const Job& job, const TemplateValue* more);
  std::vector<std::string_view> ReadRequired(const Job& job);
  // Where the next member may come, without and behind a comma; -1: not at all.
  struct Entries {
    int32_t first = -1;
    int32_t next = -1;
  };
  Entries EmitProperty(Entries entries, const Property& property);
  int32_t EnterMember(Entries entries);
  int32_t EmitValue(int32_t from, const TemplateValue& value);
  int32_t EmitQuoted(int32_t from, std::string_view text);
  // Behind the text, and one space if there is one.
  int32_t Separator(int32_t from, std::string_view text);

  std::vector<Type> ReadTypes(const Job& job);
  bool CheckKeywords(const Job& job);
  bool CheckAlone(const Job& job, std::string_view keyword, std::initializer_list<std::string_view> beside);
  const TemplateValue* Find(const Job& job, std::string_view keyword) const;
  int64_t ReadCount(const Job& job, std::string_view keyword, int64_t otherwise);
  std::optional<int64_t> ReadBound(const Job& job, std::string_view keyword, NumberKind kind);
  Place Inside(const Job& job, const TemplateValue& schema, std::string_view step) const;
  void Fail(const Job& job, std::string_view keyword, std::string_view what);

  GrammarBuilder& builder_;
  const JsonSchemaLimits limits_;
  absl::Status status_;
  std::deque<Job> jobs_;
  absl::flat_hash_map<const TemplateValue*, int32_t> rules_;  // null: any value
  int32_t char_rule_ = -1;
  int32_t string_rule_ = -1;
};

}  // namespace millrace
