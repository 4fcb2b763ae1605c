// SPDX-License-Identifier: Apache-2.0
// SchemaCompiler: objects. Members come in the order in which the schema declares them, others behind.
#include <algorithm>
#include <array>

#include "absl/strings/str_cat.h"
#include "engine/grammar/char_set.h"
#include "engine/grammar/schema_compiler.h"
#include "engine/text/template_json.h"

namespace millrace {
namespace {

// What must follow the bytes of a character so far.
struct Utf8Rest {
  int num_bytes = 0;
  int low = 0x80, high = 0xBF;  // of the next
};

// num_bytes -1: the byte begins no character that stands unescaped in a JSON string.
Utf8Rest RestAfter(int lead) {
  if (lead < 0x80) return {lead < 0x20 || lead == '"' || lead == '\\' ? -1 : 0};
  if (lead < 0xC2 || lead > 0xF4) return {-1};
  if (lead < 0xE0) return {1};
  if (lead < 0xF0) return {2, lead == 0xE0 ? 0xA0 : 0x80, lead == 0xED ? 0x9F : 0xBF};
  return {3, lead == 0xF0 ? 0x90 : 0x80, lead == 0xF4 ? 0x8F : 0xBF};
}

// The rest of a key that is none of the declared ones; states by how many bytes its character still needs.
class OtherKey {
 public:
  OtherKey(GrammarBuilder& builder, int32_t end) : builder_(builder), end_(end) {
    const CharSet plain = CharSet({{0, 0x1F}, {'"', '"'}, {'\\', '\\'}}).Complement();
    needing_[0] = builder.NewState();
    EmitJsonChar(builder, needing_[0], plain, needing_[0]);
    builder.Byte(needing_[0], '"', end);
    for (size_t i = 1; i < needing_.size(); ++i) {
      needing_[i] = builder.NewState();
      builder.Symbols(needing_[i], {0x80, 0xBF}, needing_[i - 1]);
    }
  }

  // Keys beside `names` (sorted), from a state that has read the quote.
  void Emit(int32_t from, const std::vector<std::string_view>& names) {
    open_.push_back({from, 0, names.size(), 0, {}});
    while (!open_.empty() && !builder_.is_full()) {
      const Node node = open_.back();
      open_.pop_back();
      EmitNode(node, names);
    }
  }

 private:
  // names[begin, end) share the first `depth` bytes, which `state` has read.
  struct Node {
    int32_t state;
    size_t begin, end, depth;
    Utf8Rest rest;
  };

  void EmitNode(const Node& node, const std::vector<std::string_view>& names) {
    std::array<int32_t, 257> targets;
    targets.fill(-1);
    const bool is_inside = node.rest.num_bytes > 0;
    for (int byte = 0; byte < 256; ++byte) targets[static_cast<size_t>(byte)] = Elsewhere(node, byte);
    size_t i = node.begin;
    while (i < node.end && names[i].size() == node.depth) ++i;
    if (!is_inside && i == node.begin) targets['"'] = end_;
    while (i < node.end) {
      const char byte = names[i][node.depth];
      size_t j = i;
      while (j < node.end && names[j][node.depth] == byte) ++j;
      Utf8Rest rest = is_inside ? Utf8Rest{node.rest.num_bytes - 1} : RestAfter(static_cast<uint8_t>(byte));
      const int32_t child = targets[static_cast<uint8_t>(byte)] = builder_.NewState();
      open_.push_back({child, i, j, node.depth + 1, rest});
      i = j;
    }
    for (int low = 0; low < 256;) {
      int high = low;
      const int32_t target = targets[static_cast<size_t>(low)];
      while (targets[static_cast<size_t>(high) + 1] == target && high < 255) ++high;
      if (target >= 0) builder_.Symbols(node.state, {low, high}, target);
      low = high + 1;
    }
  }

  // Where a byte leads that no name has there.
  int32_t Elsewhere(const Node& node, int byte) {
    if (node.rest.num_bytes > 0) {
      const bool fits = node.rest.low <= byte && byte <= node.rest.high;
      return fits ? needing_[static_cast<size_t>(node.rest.num_bytes) - 1] : -1;
    }
    const Utf8Rest rest = RestAfter(byte);
    if (rest.num_bytes < 0) return -1;
    if (rest.low == 0x80 && rest.high == 0xBF) return needing_[static_cast<size_t>(rest.num_bytes)];
    const int32_t state = builder_.NewState();
    builder_.Symbols(state, {rest.low, rest.high}, needing_[static_cast<size_t>(rest.num_bytes) - 1]);
    return state;
  }

  GrammarBuilder& builder_;
  const int32_t end_;
  std::array<int32_t, 4> needing_;
  std::vector<Node> open_;
};

bool IsPlain(std::string_view name) {
  return std::all_of(name.begin(), name.end(),
                     [](char c) { return static_cast<uint8_t>(c) >= 0x20 && c != '"' && c != '\\'; });
}

}  // namespace

int32_t SchemaCompiler::EmitQuoted(int32_t from, std::string_view text) {
  return EmitValue(from, TemplateValue::Text(text));
}

std::vector<std::string_view> SchemaCompiler::ReadRequired(const Job& job) {
  std::vector<std::string_view> names;
  const TemplateValue* required = Find(job, "required");
  if (required == nullptr) return names;
  const auto fail = [&] { Fail(job, "required", "must be a list of names"); };
  if (!required->is_list()) return fail(), names;
  for (const TemplateValue& name : required->as_list().items) {
    if (!name.is_string()) return fail(), names;
    names.push_back(name.text());
  }
  return names;
}

// Declared ones, then those that are only required. `more`: the schema of other members, null where there are none.
std::vector<SchemaCompiler::Property> SchemaCompiler::ReadProperties(const Job& job, const TemplateValue* more) {
  std::vector<Property> properties;
  absl::flat_hash_map<std::string_view, size_t> indices;
  if (const TemplateValue* declared = Find(job, "properties")) {
    if (!declared->is_dict()) return Fail(job, "properties", "must be an object"), properties;
    for (const auto& [key, schema] : declared->as_dict().entries()) {
      indices[key.text()] = properties.size();
      properties.push_back({key.text(), RuleOf(Inside(job, schema, std::string("properties/").append(key.text())))});
    }
  }
  for (const std::string_view name : ReadRequired(job)) {
    const auto [found, is_new] = indices.try_emplace(name, properties.size());
    if (is_new && more == nullptr) {
      Fail(job, "required", absl::StrCat("names '", std::string(name), "', which 'properties' does not have"));
      break;
    }
    if (is_new) properties.push_back({name, RuleOf(Inside(job, *more, "additionalProperties"))});
    properties[found->second].is_required = true;
  }
  return properties;
}

int32_t SchemaCompiler::EnterMember(Entries entries) {
  const int32_t member = builder_.NewState();
  if (entries.first >= 0) builder_.Empty(entries.first, member);
  if (entries.next >= 0) builder_.Empty(Separator(entries.next, ","), member);
  return member;
}

SchemaCompiler::Entries SchemaCompiler::EmitProperty(Entries entries, const Property& property) {
  const int32_t key = EmitQuoted(EnterMember(entries), property.name), behind = builder_.NewState();
  builder_.Call(Separator(key, ":"), property.rule, behind);
  if (property.is_required) return {-1, behind};
  if (entries.next >= 0) builder_.Empty(entries.next, behind);
  return {entries.first, behind};
}

void SchemaCompiler::EmitObject(const Job& job) {
  static const TemplateValue kAnything = TemplateValue::Bool(true);
  const TemplateValue* more = Find(job, "additionalProperties");
  // Without a word about others, an object that declares members has no others: models wander off otherwise.
  if (more == nullptr && Find(job, "properties") == nullptr) more = &kAnything;
  if (more != nullptr && more->is_bool() && !more->as_bool()) more = nullptr;
  const std::vector<Property> properties = ReadProperties(job, more);
  if (!status_.ok()) return;
  const int32_t to = builder_.end(job.rule);
  Entries entries{builder_.Literal(builder_.start(job.rule), "{"), -1};
  for (const Property& property : properties) {
    if (builder_.is_full()) return;
    entries = EmitProperty(entries, property);
  }
  for (const int32_t entry : {entries.first, entries.next}) {
    if (entry >= 0) builder_.LiteralTo(entry, "}", to);
  }
  if (more == nullptr) return;
  std::vector<std::string_view> names;
  for (const Property& property : properties) {
    if (IsPlain(property.name)) names.push_back(property.name);
  }
  std::sort(names.begin(), names.end());
  const int32_t member = EnterMember(entries), key = builder_.NewState(), behind = builder_.NewState();
  OtherKey(builder_, key).Emit(builder_.Literal(member, "\""), names);
  builder_.Call(Separator(key, ":"), RuleOf(Inside(job, *more, "additionalProperties")), behind);
  builder_.Empty(Separator(behind, ","), member);
  builder_.LiteralTo(behind, "}", to);
}

}  // namespace millrace
