// SPDX-License-Identifier: Apache-2.0
// Matchers on the bundled vocabulary: masks against every token tried one by one, texts drawn from masks against a
// validator that knows no grammars.
#include "tests/engine_text/schema_support.h"

namespace millrace {
namespace {

using testing::BundledTokenizer;
using testing::ParseOrDie;

const char* const kSchemas[] = {
    R"({"type": "object"})",
    R"({"type": "object", "properties": {"name": {"type": "string", "maxLength": 9}, "age": {"type": "integer",
        "minimum": 0, "maximum": 130}, "tags": {"type": "array", "items": {"enum": ["a", "bc", null, 1.5]}, "maxItems": 3}},
        "required": ["name", "age"]})",
    R"({"$defs": {"n": {"type": "object", "properties": {"v": {"type": "number", "minimum": -1, "maximum": 1},
        "next": {"anyOf": [{"$ref": "#/$defs/n"}, {"type": "null"}]}}, "required": ["v", "next"]}}, "$ref": "#/$defs/n"})",
    R"({"type": "string", "pattern": "^(\\d{2}:){2}\\d{2}|[^a-y]{1,4}$"})",
    R"({"type": "object", "properties": {"kind": {"const": "x"}, "kid": {"type": "boolean"}},
        "additionalProperties": {"type": ["integer", "string"], "maxLength": 4, "minLength": 1}})",
    R"({"type": "array", "prefixItems": [{"type": "string"}], "items": {"type": "integer"}, "minItems": 2, "maxItems": 5})"};

struct Bundle {
  std::unique_ptr<Tokenizer> tokenizer = BundledTokenizer();
  TokenVocabulary vocabulary{*tokenizer, 2048};
  std::shared_ptr<GrammarAutomaton> Automaton(const std::string& schema) {
    auto grammar = CompileJsonSchema(ParseOrDie(schema));
    INFO(grammar.status().message());
    REQUIRE(grammar.ok());
    return std::make_shared<GrammarAutomaton>(*std::move(grammar), vocabulary);
  }
};

bool IsAllowed(const std::vector<uint32_t>& mask, int32_t token) {
  return (mask[static_cast<size_t>(token) / 32] >> (static_cast<uint32_t>(token) % 32) & 1) != 0;
}

// A walk of tokens drawn from the masks, which are checked on the way; the text, if it came to an end.
std::string Walk(Bundle& bundle, std::shared_ptr<GrammarAutomaton> automaton, std::mt19937& random) {
  GrammarMatcher matcher(std::move(automaton));
  std::vector<uint32_t> mask(bundle.vocabulary.num_mask_words());
  std::string text;
  for (int step = 0; step < 400; ++step) {
    matcher.FillMask(mask);
    std::vector<int32_t> allowed;
    for (int32_t token = 0; token < bundle.vocabulary.num_ids(); ++token) {
      GrammarMatcher next = matcher;
      const bool accepts = bundle.tokenizer->HasId(token) && next.Accept(token);
      if (accepts) allowed.push_back(token);
      if (accepts != IsAllowed(mask, token)) {
        INFO("after " << text << " token " << token);
        REQUIRE(accepts == IsAllowed(mask, token));
      }
    }
    if (matcher.CanEnd() && (allowed.empty() || random() % 4 == 0)) return text;
    INFO("after " << text);
    REQUIRE_FALSE(allowed.empty());
    // What closes comes oftener than chance alone would have it, or hardly any text would end.
    int32_t token = allowed[random() % allowed.size()];
    for (const int32_t closing : allowed) {
      const std::string_view bytes = bundle.vocabulary.bytes(closing);
      if (bytes.find_first_of("\"}]") != std::string_view::npos && random() % 3 == 0) token = closing;
    }
    REQUIRE_FALSE(bundle.vocabulary.is_control(token));
    text += bundle.vocabulary.bytes(token);
    REQUIRE(matcher.Accept(token));
  }
  return {};
}

TEST_CASE("GrammarMatcher: masks are what token after token would give, and what they draw is valid", "[grammar]") {
  Bundle bundle;
  std::mt19937 random(7);
  for (const char* schema_text : kSchemas) {
    const TemplateValue schema = ParseOrDie(schema_text);
    const auto automaton = bundle.Automaton(schema_text);
    int num_ended = 0;
    for (int i = 0; i < 12; ++i) {
      const std::string text = Walk(bundle, automaton, random);
      if (text.empty()) continue;
      ++num_ended;
      INFO(schema_text << " gave " << text);
      CHECK(testing::SchemaValidator(schema).IsValid(ParseOrDie(text)));
    }
    INFO(schema_text);
    CHECK(num_ended >= 4);
  }
}

// A value that the schema allows, its members in the schema's order.
TemplateValue Draw(const TemplateValue& root, const TemplateValue& schema, std::mt19937& random, int depth) {
  const auto find = [&](const char* keyword) { return schema.as_dict().Find(keyword); };
  const auto number = [&](const char* keyword, double otherwise) {
    return static_cast<int64_t>(find(keyword) ? find(keyword)->number() : otherwise);
  };
  const auto one_of = [&](const TemplateValue& list) {
    return list.as_list().items[random() % list.as_list().items.size()];
  };
  if (const auto* ref = find("$ref"))
    return Draw(root, testing::ResolveRef(root, std::string(ref->text())), random, depth);
  if (const auto* any = find("anyOf")) {
    return Draw(root, depth > 6 ? any->as_list().items.back() : one_of(*any), random, depth + 1);
  }
  if (const auto* values = find("enum")) return one_of(*values);
  const std::string type(find("type")->text());
  if (type == "null") return TemplateValue::None();
  if (type == "boolean") return TemplateValue::Bool(random() % 2 == 0);
  if (type == "integer") {
    const int64_t low = number("minimum", -1000), high = number("maximum", 100000);
    return TemplateValue::Int(low + static_cast<int64_t>(random() % static_cast<uint64_t>(high - low + 1)));
  }
  if (type == "string") {
    static const std::vector<std::string> kPieces = {"a", "\"",   "\\", "\n", "\xC3\xA9", "\xF0\x9F\x98\x80",
                                                     " ", "\x01", "/"};
    std::string text;
    for (int64_t n = number("minLength", 0) + static_cast<int64_t>(random() % 3); n > 0; --n) {
      text += kPieces[random() % kPieces.size()];
    }
    return TemplateValue::Text(text);
  }
  if (type == "array") {
    std::vector<TemplateValue> items;
    for (size_t n = random() % 4; n > 0; --n) items.push_back(Draw(root, *find("items"), random, depth + 1));
    return TemplateValue::List(std::move(items));
  }
  TemplateValue value = TemplateValue::Dict();
  for (const auto& [key, member] : find("properties")->as_dict().entries()) {
    const auto& required = find("required")->as_list().items;
    const bool is_required =
        std::any_of(required.begin(), required.end(), [&](const auto& name) { return name.text() == key.text(); });
    if (is_required || random() % 2 == 0) value.as_dict().Set(key, Draw(root, member, random, depth + 1));
  }
  return value;
}

TEST_CASE("GrammarMatcher: every value of a schema is taken, however json.dumps wrote it", "[grammar]") {
  const std::string text = R"({"$defs": {"n": {"type": "object", "required": ["v", "kids"], "properties": {
      "v": {"type": "integer", "minimum": -170, "maximum": 12345}, "s": {"type": "string", "minLength": 1, "maxLength": 4},
      "e": {"enum": ["x y", null, {"a": [1, "\u20ac"]}, 2.5]}, "\"odd\"": {"type": "boolean"},
      "free": {"type": "string"}, "one": {"anyOf": [{"$ref": "#/$defs/n"}, {"type": "null"}]},
      "kids": {"type": "array", "items": {"anyOf": [{"$ref": "#/$defs/n"}, {"type": "integer"}]}}}}}, "$ref": "#/$defs/n"})";
  const TemplateValue schema = ParseOrDie(text);
  Bundle bundle;
  const auto automaton = bundle.Automaton(text);
  std::mt19937 random(3);
  for (int i = 0; i < 300; ++i) {
    const TemplateValue value = Draw(schema, schema, random, 0);
    for (const bool is_compact : {false, true}) {
      TemplateJsonStyle style;
      if (is_compact) style.item_separator = ",", style.key_separator = ":";
      TemplateStringBuilder out;
      REQUIRE(AppendJson(value, style, out).ok());
      const std::string json(out.Build().view());
      int32_t state = automaton->start();
      for (const char byte : json) state = automaton->Next(state, static_cast<uint8_t>(byte));
      INFO(json);
      REQUIRE(automaton->can_end(state));
      GrammarMatcher matcher(automaton);
      for (const int32_t token : testing::EncodeOrDie(*bundle.tokenizer, json, SpecialTokens::kPlainText)) {
        REQUIRE(matcher.Accept(token));
      }
      REQUIRE(matcher.CanEnd());
    }
  }
}

TEST_CASE("GrammarAutomaton: memory is bounded, and masks do not depend on what was asked before", "[grammar]") {
  Bundle bundle;
  // Each text of a's and b's is a state of its own, as far as the pattern reaches.
  const auto automaton = bundle.Automaton(R"({"type": "string", "pattern": "^[ab]*a[ab]{14}$"})");
  const auto fresh = bundle.Automaton(R"({"type": "string", "pattern": "^[ab]*a[ab]{14}$"})");
  std::mt19937 random(1);
  const auto feed = [&](GrammarAutomaton& to, const std::string& text) {
    int32_t state = to.start();
    for (const char byte : text) state = to.Next(state, static_cast<uint8_t>(byte));
    return state;
  };
  size_t most = 0;
  int num_trims = 0;
  for (int i = 0; i < 3000; ++i) {
    std::string text = "\"";
    for (int n = 0; n < 24; ++n) text += static_cast<char>('a' + random() % 2);
    num_trims += automaton->Trim() ? 1 : 0;
    const int32_t state = feed(*automaton, text);
    most = std::max(most, automaton->num_states());
    if (i % 100 != 0) continue;
    const auto mask = automaton->Mask(state);
    const auto expected = fresh->Mask(feed(*fresh, text));
    CHECK(std::equal(mask.begin(), mask.end(), expected.begin(), expected.end()));
  }
  CHECK(num_trims > 0);
  CHECK(most <= GrammarAutomaton::kMaxStates + GrammarAutomaton::kMaxWalkStates * 2);
}

}  // namespace
}  // namespace millrace
