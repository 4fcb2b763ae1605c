// SPDX-License-Identifier: Apache-2.0
// Schemas to grammars: which texts they take, read byte by byte; which schemas they refuse.
#include "tests/engine_text/schema_support.h"

namespace millrace {
namespace {

using testing::BundledTokenizer;
using testing::ParseOrDie;

// Texts against a schema, by bytes alone.
class Acceptor {
 public:
  explicit Acceptor(const std::string& schema)
      : tokenizer_(BundledTokenizer()), vocabulary_(*tokenizer_, tokenizer_->vocab_size()) {
    auto grammar = CompileJsonSchema(ParseOrDie(schema));
    INFO(schema << ": " << grammar.status().message());
    REQUIRE(grammar.ok());
    automaton_ = std::make_unique<GrammarAutomaton>(*std::move(grammar), vocabulary_);
  }
  bool operator()(std::string_view text) {
    int32_t state = automaton_->start();
    for (const char byte : text) state = automaton_->Next(state, static_cast<uint8_t>(byte));
    return automaton_->can_end(state);
  }

 private:
  const std::unique_ptr<Tokenizer> tokenizer_;
  const TokenVocabulary vocabulary_;
  std::unique_ptr<GrammarAutomaton> automaton_;
};

struct Case {
  std::string schema;
  std::vector<std::string> right, wrong;
};

void CheckCases(const std::vector<Case>& cases) {
  for (const Case& one : cases) {
    Acceptor accepts(one.schema);
    const TemplateValue schema = ParseOrDie(one.schema);
    for (const std::string& text : one.right) {
      INFO(one.schema << " takes " << text);
      CHECK(accepts(text));
      CHECK(testing::SchemaValidator(schema).IsValid(ParseOrDie(text)));
    }
    for (const std::string& text : one.wrong) {
      INFO(one.schema << " refuses " << text);
      CHECK_FALSE(accepts(text));
    }
  }
}

TEST_CASE("JsonSchema: scalars", "[grammar]") {
  CheckCases({
      {R"({"type": "null"})", {"null"}, {"", "nul", "nullx", "0"}},
      {R"({"type": ["boolean", "null"]})", {"true", "false", "null"}, {"True", "\"true\""}},
      {R"({"type": "integer"})", {"0", "-1", "17", "999999999999999999"}, {"-", "01", "1.0", "1e3", "-0", "+1", "1 "}},
      {R"({"type": "integer", "minimum": 7, "maximum": 1203})",
       {"7", "10", "99", "1203", "1099"},
       {"6", "1204", "2000", "-7", "07"}},
      {R"({"type": "integer", "exclusiveMinimum": -12, "maximum": 3.5})", {"-11", "-1", "0", "3"}, {"-12", "4", "-0"}},
      {R"({"type": "integer", "minimum": -300, "maximum": -25})", {"-25", "-99", "-300"}, {"-24", "-301", "0", "25"}},
      {R"({"type": "number"})", {"0", "-0.5", "1e9", "2.25E-3", "12"}, {".5", "1.", "1e", "00", "NaN", "--1"}},
      {R"({"type": "number", "minimum": 0, "maximum": 1})", {"0", "0.25", "1", "1.0"}, {"1.5", "-0.1", "2", "1e0"}},
      {R"({"type": "number", "minimum": -2})", {"-2", "-1.5", "-0.5", "40.125"}, {"-2.5", "-3"}},
      {R"({"enum": ["a", 1, null, {"b": [1, 2]}]})",
       {"\"a\"", "1", "null", R"({"b": [1, 2]})", R"({"b":[1,2]})"},
       {"\"b\"", "2", "{}"}},
      {R"({"type": "string", "enum": ["x", 1]})", {"\"x\""}, {"1"}},
      {R"({"const": "caf\u00e9\n"})", {"\"caf\xC3\xA9\\n\""}, {"\"cafe\""}},
  });
}

TEST_CASE("JsonSchema: strings and patterns", "[grammar]") {
  CheckCases({
      {R"({"type": "string"})",
       {R"("")", R"("a\"\\\/\b\u00e9")", R"("\ud83d\ude00")", "\"\xF0\x9F\x98\x80\""},
       {R"("a)", R"("\x")", R"("\ud83d")", R"("\ude00\ud83d")", "\"\n\"", "\"\xC0\x80\"", "\"\xED\xA0\x80\"",
        "\"\xFF\""}},
      {R"({"type": "string", "minLength": 2, "maxLength": 3})",
       {R"("ab")", "\"\xE2\x82\xAC\xC3\xA9x\"", R"("\n\u0041")"},
       {R"("a")", R"("abcd")"}},
      {R"({"type": "string", "minLength": 1})", {R"("a")", R"("abcdefgh")"}, {R"("")"}},
      {R"({"type": "string", "pattern": "^[a-c]+$"})", {R"("a")", R"("abccba")"}, {R"("")", R"("abd")", R"("xa")"}},
      {R"({"type": "string", "pattern": "\\d{3}-\\d{2,4}"})", {R"("555-12")", R"("tel 555-1234 x")"}, {R"("55-12")"}},
      {R"({"type": "string", "pattern": "^(foo|ba[rz])?x$|^y{2,}"})",
       {R"("x")", R"("foox")", R"("bazx")", R"("yy")", R"("yyy!")"},
       {R"("bax")", R"("y")", R"("xx")"}},
      {R"({"type": "string", "pattern": "^\\w+@\\w+\\.(?:com|org)$"})",
       {R"("a_1@b.com")"},
       {R"("a@b.net")", R"("a@b,com")"}},
      {R"({"type": "string", "pattern": "^[^\\s\"]*$"})",
       {R"("ab")", R"("a\\b")"},
       {R"("a b")", R"("a\"b")", R"("a\nb")"}},
      {R"({"type": "string", "pattern": "^a.c$"})", {R"("abc")", R"("a\"c")"}, {R"("a\nc")", R"("ac")"}},
      {R"({"type": "string", "pattern": "^(ab*)+c??$"})", {R"("a")", R"("abbac")"}, {R"("ba")", R"("c")"}},
  });
}

TEST_CASE("JsonSchema: arrays and objects", "[grammar]") {
  CheckCases({
      {R"({"type": "array", "items": {"type": "integer"}})",
       {"[]", "[1]", "[1, 2,3]"},
       {"[", "[1,]", "[,1]", "[1,  2]"}},
      {R"({"type": "array", "items": {"type": "boolean"}, "minItems": 1, "maxItems": 2})",
       {"[true]", "[true, false]"},
       {"[]", "[true,true,true]"}},
      {R"({"type": "array", "items": {"type": "null"}, "minItems": 3})",
       {"[null,null,null]", "[null,null,null,null]"},
       {"[null,null]"}},
      {R"({"type": "array", "prefixItems": [{"type": "string"}, {"type": "integer"}], "items": false})",
       {"[]", R"(["a"])", R"(["a", 1])"},
       {"[1]", R"(["a",1,2])"}},
      {R"({"type": "object", "properties": {"b": {"type": "integer"}, "a": {"type": "null"}}, "required": ["a"]})",
       {R"({"b": 1, "a": null})", R"({"a":null})"},
       {"{}", R"({"b":1})", R"({"a":null,"b":1})", R"({"a":null,"c":1})"}},
      {R"({"type": "object", "properties": {"a": {}, "b": {}}})",
       {"{}", R"({"a":1})", R"({"b": []})", R"({"a":{}, "b":"x"})"},
       {R"({,"a":1})", R"({"a":1,})", "{ }"}},
      {R"({"type": "object"})", {"{}", R"({"x": {"y": [1, {"z": null}]}, "": 2})"}, {"[]", R"({"x"})"}},
      {R"({"type": "object", "properties": {"name": {"type": "string"}, "n\u00e9": {"type": "null"}},
          "additionalProperties": {"type": "integer"}})",
       {R"({"name": "x", "nam": 1, "names": 2})", R"({"": 3, "x": 4})", "{\"n\xC3\xA8\": 1}", "{\"n\xC3\xA9\": null}"},
       {R"({"name": 1})", R"({"other": "x"})", "{\"n\xC3\xA9\": 1}", "{\"n\xC3\": 1}", R"({"x": 1, "name": 2})"}},
      {R"({"required": ["a"], "additionalProperties": {"type": "integer"}})",
       {R"({"a": 1})", R"({"a":1,"b":2})"},
       {"{}"}},
  });
}

TEST_CASE("JsonSchema: choices and references", "[grammar]") {
  CheckCases({
      {R"({"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}]})",
       {R"("a")", R"(["a"])"},
       {"1"}},
      {R"({"allOf": [{"type": "null"}], "title": "t", "default": 3, "format": "date"})", {"null"}, {"3"}},
      {R"({"$defs": {"tree": {"type": "object", "properties": {"left": {"$ref": "#/$defs/tree"}, "v": {"type": "integer"}},
          "required": ["v"]}}, "$ref": "#/$defs/tree"})",
       {R"({"v": 1})", R"({"left": {"left": {"v": 1}, "v": 2}, "v": 3})"},
       {R"({"left": {}, "v": 1})"}},
      {R"({"definitions": {"a/b~c": {"const": 1}}, "$ref": "#/definitions/a~1b~0c", "x-unknown": {"oneOf": 1}})",
       {"1"},
       {"2"}},
      {"true", {"1", "[[[{}]]]"}, {"", "tru"}},
  });
}

TEST_CASE("JsonSchema: what would change the meaning is refused by name and place", "[grammar]") {
  const auto refused = [](const std::string& schema, const std::string& keyword, const std::string& path) {
    const auto grammar = CompileJsonSchema(ParseOrDie(schema));
    INFO(schema << ": " << grammar.status().message());
    REQUIRE(grammar.status().code() == absl::StatusCode::kInvalidArgument);
    CHECK(std::string(grammar.status().message()).find(keyword) != std::string::npos);
    CHECK(std::string(grammar.status().message()).find(path) != std::string::npos);
  };
  refused(R"({"properties": {"a": {"oneOf": []}}})", "'oneOf'", "#/properties/a");
  refused(R"({"items": {"not": {}}})", "'not'", "#/items");
  refused(R"({"uniqueItems": true, "type": "array"})", "'uniqueItems'", "#");
  refused(R"({"type": "integer", "multipleOf": 3})", "'multipleOf'", "#");
  refused(R"({"anyOf": [{}], "minLength": 3})", "'minLength'", "#");
  refused(R"({"type": "number", "minimum": 0.5})", "'minimum'", "#");
  refused(R"x({"type": "string", "pattern": "a(?=b)"})x", "'pattern'", "#");
  refused(R"({"type": "string", "pattern": "(a"})", "'pattern'", "#");
  refused(R"({"type": "string", "pattern": "a", "maxLength": 3})", "'pattern'", "#");
  refused(R"({"$ref": "http://example.com/s"})", "'$ref'", "#");
  refused(R"({"$ref": "#/$defs/missing"})", "'$ref'", "#/$defs/missing");
  refused(R"({"type": "date"})", "'type'", "#");
  refused(R"({"properties": {"a": 3}})", "object or a boolean", "#/properties/a");
  refused(R"({"type": "object", "properties": {}, "required": ["a"]})", "'required'", "#");
  refused(R"({"type": "array", "minItems": 3, "maxItems": 2})", "'minItems'", "#");
}

TEST_CASE("JsonSchema: hostile schemas end with a status", "[grammar]") {
  const auto refused = [](const std::string& schema) {
    const auto grammar = CompileJsonSchema(ParseOrDie(schema));
    INFO(schema.substr(0, 200) << ": " << grammar.status().message());
    CHECK(grammar.status().code() == absl::StatusCode::kInvalidArgument);
  };
  refused(R"({"$ref": "#"})");
  refused(R"({"anyOf": [{"$ref": "#/anyOf/1"}, {"$ref": "#"}]})");
  refused("false");
  refused(R"({"type": "object", "properties": {"a": {"$ref": "#"}}, "required": ["a"]})");
  refused(R"({"type": "string", "maxLength": 1000000000})");
  refused(R"({"type": "array", "maxItems": 1e15})");
  refused(R"({"type": "string", "pattern": "(((a{999}){999}){999}){999}"})");
  refused(R"({"type": "string", "pattern": ")" + std::string(3000, '(') + "\"}");
  std::string deep = "true";
  for (int i = 0; i < 70; ++i) deep = R"({"type":"array","minItems":1,"items":)" + deep + "}";
  refused(deep);
  // Choices of the same choices, again and again: one frame each, not two to the power of their number.
  std::string diamonds = R"({"$ref": "#/$defs/d0", "$defs": {)";
  for (int i = 0; i < 40; ++i) {
    const std::string next = R"({"$ref": "#/$defs/d)" + std::to_string(i + 1) + "\"}";
    diamonds += "\"d" + std::to_string(i) + R"(": {"anyOf": [)" + next + "," + next + "]},";
  }
  Acceptor accepts(diamonds + R"("d40": {"const": 1}}})");
  CHECK(accepts("1"));
}

TEST_CASE("JsonSchema: nesting ends where the limit leaves room to close", "[grammar]") {
  Acceptor accepts(R"({"type": "array", "items": {"$ref": "#"}})");
  const auto nested = [](size_t depth) { return std::string(depth, '[') + std::string(depth, ']'); };
  CHECK(accepts(nested(kMaxGrammarDepth)));
  CHECK_FALSE(accepts(nested(200)));
}

}  // namespace
}  // namespace millrace
