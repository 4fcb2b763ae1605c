// SPDX-License-Identifier: Apache-2.0
// SchemaCompiler: what the values of each type look like.
#include <algorithm>

#include "absl/strings/str_cat.h"
#include "engine/grammar/char_set.h"
#include "engine/grammar/pattern.h"
#include "engine/grammar/schema_compiler.h"
#include "engine/text/template_json.h"

namespace millrace {
namespace {

constexpr int64_t kNoLimit = int64_t{1} << 50;

std::string ToJson(const TemplateValue& value) {
  TemplateStringBuilder text;
  if (!AppendJson(value, {}, text).ok()) return {};
  return std::string(text.Build().view());
}

bool IsOfType(const TemplateValue& value, std::string_view type) {
  if (type == "null") return value.is_none();
  if (type == "boolean") return value.is_bool();
  if (type == "integer") return value.is_int();
  if (type == "number") return value.is_int() || value.is_float();
  if (type == "string") return value.is_string();
  if (type == "array") return value.is_list();
  return type == "object" && value.is_dict();
}

}  // namespace

int32_t SchemaCompiler::CharRule() {
  if (char_rule_ < 0) {
    char_rule_ = builder_.NewRule();
    EmitAnyJsonChar(builder_, builder_.start(char_rule_), builder_.end(char_rule_));
  }
  return char_rule_;
}

int32_t SchemaCompiler::StringRule() {
  if (string_rule_ < 0) {
    string_rule_ = builder_.NewRule();
    const int32_t inside = builder_.Literal(builder_.start(string_rule_), "\"");
    EmitAnyJsonChar(builder_, inside, inside);
    builder_.Byte(inside, '"', builder_.end(string_rule_));
  }
  return string_rule_;
}

int32_t SchemaCompiler::Separator(int32_t from, std::string_view text) {
  const int32_t to = builder_.NewState(), tight = builder_.Literal(from, text);
  builder_.Empty(tight, to);
  builder_.Byte(tight, ' ', to);
  return to;
}

void SchemaCompiler::EmitAnyValue(int32_t rule) {
  const int32_t from = builder_.start(rule), to = builder_.end(rule);
  for (const std::string_view word : {"null", "true", "false"}) builder_.LiteralTo(from, word, to);
  EmitAnyNumber(builder_, from, to);
  builder_.Call(from, StringRule(), to);
  const int32_t list = builder_.Literal(from, "["), item = builder_.NewState(), behind_item = builder_.NewState();
  builder_.LiteralTo(list, "]", to);
  builder_.Empty(list, item);
  builder_.Call(item, rule, behind_item);
  builder_.Empty(Separator(behind_item, ","), item);
  builder_.LiteralTo(behind_item, "]", to);
  const int32_t object = builder_.Literal(from, "{"), member = builder_.NewState(), behind = builder_.NewState();
  const int32_t key = builder_.NewState();
  builder_.LiteralTo(object, "}", to);
  builder_.Empty(object, member);
  builder_.Call(member, StringRule(), key);
  builder_.Call(Separator(key, ":"), rule, behind);
  builder_.Empty(Separator(behind, ","), member);
  builder_.LiteralTo(behind, "}", to);
}

void SchemaCompiler::EmitType(const Job& job, Type type) {
  const int32_t from = builder_.start(job.rule), to = builder_.end(job.rule);
  switch (type) {
    case Type::kNull:
      return builder_.LiteralTo(from, "null", to);
    case Type::kBoolean:
      builder_.LiteralTo(from, "true", to);
      return builder_.LiteralTo(from, "false", to);
    case Type::kInteger:
      return EmitNumbers(job, NumberKind::kInteger);
    case Type::kNumber:
      return EmitNumbers(job, NumberKind::kReal);
    case Type::kString:
      return EmitString(job);
    case Type::kArray:
      return EmitArray(job);
    case Type::kObject:
      return EmitObject(job);
  }
}

void SchemaCompiler::EmitNumbers(const Job& job, NumberKind kind) {
  NumberRange range{.kind = kind};
  bool is_bounded = kind == NumberKind::kInteger;
  for (const std::string_view keyword : {"minimum", "exclusiveMinimum", "maximum", "exclusiveMaximum"}) {
    const auto bound = ReadBound(job, keyword, kind);
    if (!bound.has_value()) continue;
    is_bounded = true;
    if (keyword.ends_with("inimum")) range.low = std::max(range.low, *bound);
    if (keyword.ends_with("aximum")) range.high = std::min(range.high, *bound);
  }
  if (!status_.ok()) return;
  if (!is_bounded) return EmitAnyNumber(builder_, builder_.start(job.rule), builder_.end(job.rule));
  if (range.low > range.high) return Fail(job, "minimum", "and 'maximum' leave no number");
  EmitNumber(builder_, builder_.start(job.rule), range, builder_.end(job.rule));
}

void SchemaCompiler::EmitString(const Job& job) {
  const int32_t from = builder_.start(job.rule), to = builder_.end(job.rule);
  const TemplateValue* pattern = Find(job, "pattern");
  const bool has_length = Find(job, "minLength") != nullptr || Find(job, "maxLength") != nullptr;
  if (pattern == nullptr && !has_length) return builder_.Call(from, StringRule(), to);
  int32_t state = builder_.Literal(from, "\"");
  const int32_t quote = builder_.NewState();
  builder_.Byte(quote, '"', to);
  if (pattern != nullptr) {
    if (has_length) return Fail(job, "pattern", "is not supported beside 'minLength' or 'maxLength'");
    if (!pattern->is_string()) return Fail(job, "pattern", "must be a string");
    const absl::Status status = EmitPattern(builder_, state, pattern->text(), quote);
    if (!status.ok()) Fail(job, "pattern", std::string(status.message()));
    return;
  }
  const int64_t least = ReadCount(job, "minLength", 0), most = ReadCount(job, "maxLength", kNoLimit);
  if (least > most) return Fail(job, "minLength", "is more than 'maxLength'");
  for (int64_t i = 0; i < (most == kNoLimit ? least : most) && !builder_.is_full(); ++i) {
    if (i >= least) builder_.Empty(state, quote);
    const int32_t next = builder_.NewState();
    builder_.Call(state, CharRule(), next);
    state = next;
  }
  if (most == kNoLimit) EmitAnyJsonChar(builder_, state, state);
  builder_.Empty(state, quote);
}

void SchemaCompiler::EmitValues(const Job& job, std::string_view keyword) {
  const TemplateValue& given = *Find(job, keyword);
  if (keyword == "enum" && (!given.is_list() || given.as_list().items.empty())) {
    return Fail(job, keyword, "must be a list of values");
  }
  const TemplateValue* types = Find(job, "type");
  const auto is_of_type = [&](const TemplateValue& value) {
    if (types == nullptr) return true;
    if (types->is_string()) return IsOfType(value, types->text());
    if (!types->is_list()) return false;
    const auto& names = types->as_list().items;
    return std::any_of(names.begin(), names.end(),
                       [&](const TemplateValue& name) { return name.is_string() && IsOfType(value, name.text()); });
  };
  const auto emit = [&](const TemplateValue& value) {
    if (!is_of_type(value) || builder_.is_full()) return;
    builder_.Empty(EmitValue(builder_.start(job.rule), value), builder_.end(job.rule));
  };
  if (keyword == "const") return emit(given);
  for (const TemplateValue& value : given.as_list().items) emit(value);
}

// As deep as a JSON text that was parsed may be.
int32_t SchemaCompiler::EmitValue(int32_t from, const TemplateValue& value) {
  if (builder_.is_full()) return from;
  if (value.is_list()) {
    int32_t state = builder_.Literal(from, "[");
    const auto& items = value.as_list().items;
    for (size_t i = 0; i < items.size(); ++i) state = EmitValue(i == 0 ? state : Separator(state, ","), items[i]);
    return builder_.Literal(state, "]");
  }
  if (!value.is_dict()) return builder_.Literal(from, ToJson(value));
  int32_t state = builder_.Literal(from, "{");
  bool is_first = true;
  for (const auto& [key, member] : value.as_dict().entries()) {
    if (!std::exchange(is_first, false)) state = Separator(state, ",");
    state = EmitValue(Separator(builder_.Literal(state, ToJson(key)), ":"), member);
  }
  return builder_.Literal(state, "}");
}

void SchemaCompiler::EmitArray(const Job& job) {
  const TemplateValue* items = Find(job, "items");
  const TemplateValue* prefix = Find(job, "prefixItems");
  if (prefix != nullptr && !prefix->is_list()) return Fail(job, "prefixItems", "must be a list of schemas");
  const size_t num_prefix = prefix == nullptr ? 0 : prefix->as_list().items.size();
  const int64_t least = ReadCount(job, "minItems", 0), most = ReadCount(job, "maxItems", kNoLimit);
  if (least > most) return Fail(job, "minItems", "is more than 'maxItems'");
  const int32_t rest = items == nullptr ? AnyValueRule() : RuleOf(Inside(job, *items, "items"));
  const int32_t to = builder_.end(job.rule);
  int32_t next = builder_.Literal(builder_.start(job.rule), "[");
  if (least == 0) builder_.LiteralTo(next, "]", to);
  for (int64_t i = 0; i < most && !builder_.is_full(); ++i) {
    const auto index = static_cast<size_t>(i);
    const int32_t rule = index < num_prefix
                             ? RuleOf(Inside(job, prefix->as_list().items[index], absl::StrCat("prefixItems/", index)))
                             : rest;
    const int32_t behind = builder_.NewState();
    builder_.Call(next, rule, behind);
    if (i + 1 >= least) builder_.LiteralTo(behind, "]", to);
    next = Separator(behind, ",");
    if (most == kNoLimit && i + 1 >= least && index >= num_prefix) {
      builder_.Call(next, rest, behind);
      return;
    }
  }
}

}  // namespace millrace
