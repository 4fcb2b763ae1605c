// SPDX-License-Identifier: Apache-2.0
// Grammars of answers with calls: what they take and refuse, and that what is drawn from them parses as calls that
// satisfy their schemas, in every format.
#include "engine/grammar/tool_calls.h"

#include "engine/text/answer_parser.h"
#include "tests/engine_text/schema_support.h"

namespace millrace {
namespace {

using testing::BundledTokenizer;
using testing::ParseOrDie;

const char* const kTools = R"([
    {"type": "function", "function": {"name": "add", "parameters": {"type": "object", "properties":
        {"n": {"type": "integer", "minimum": 0, "maximum": 99}, "kind": {"enum": ["a", "b"]}}, "required": ["n"]}}},
    {"function": {"name": "stop"}}])";
const std::vector<std::string> kNames = {"add", "stop"};

class CallGrammar {
 public:
  // Whether a model may write the text and stop.
  bool Takes(const CallGrammarOptions& options, const std::string& text,
             SpecialTokens special = SpecialTokens::kParse) {
    GrammarMatcher matcher = Match(options, text, special);
    return !matcher.is_dead() && matcher.CanEnd();
  }
  // Whether it may write the text, then go on.
  bool Begins(const CallGrammarOptions& options, const std::string& text) {
    return !Match(options, text, SpecialTokens::kParse).is_dead();
  }
  GrammarMatcher Match(const CallGrammarOptions& options, const std::string& text, SpecialTokens special) {
    auto grammar = CompileToolCalls(tools, options);
    INFO(grammar.status().message());
    REQUIRE(grammar.ok());
    GrammarMatcher matcher(std::make_shared<GrammarAutomaton>(*std::move(grammar), vocabulary));
    for (const int32_t token : testing::EncodeOrDie(*tokenizer, text, special)) matcher.Accept(token);
    return matcher;
  }

  TemplateValue tools = ParseOrDie(kTools);
  std::unique_ptr<Tokenizer> tokenizer = BundledTokenizer();
  TokenVocabulary vocabulary{*tokenizer, 2048};
};

CallGrammarOptions Options(ToolCallFormat format, bool is_required, CallCount count = CallCount::kAny) {
  return {.format = format, .names = kNames, .count = count, .is_required = is_required};
}

TEST_CASE("ToolCalls: required calls of Hermes are calls and nothing else", "[grammar]") {
  CallGrammar f;
  const auto any = Options(ToolCallFormat::kHermes, true),
             one = Options(ToolCallFormat::kHermes, true, CallCount::kOne);
  const std::string add = "<tool_call>\n{\"name\": \"add\", \"arguments\": {\"n\": 3}}\n</tool_call>";
  const std::string stop = "<tool_call>{\"name\": \"stop\", \"arguments\": {}}</tool_call>";
  for (const SpecialTokens special : {SpecialTokens::kParse, SpecialTokens::kPlainText}) {
    CHECK(f.Takes(one, add, special));
    CHECK(f.Takes(any, add + "\n" + stop, special));
    CHECK_FALSE(f.Takes(one, add + "\n" + stop, special));
    CHECK_FALSE(f.Takes(any, "Sure. " + add, special));
    CHECK_FALSE(f.Takes(any, "<tool_call>{\"name\": \"add\", \"arguments\": {}}</tool_call>", special));
    CHECK_FALSE(f.Takes(any, add.substr(0, add.size() - 12), special));
  }
  CallGrammarOptions unknown = any;
  unknown.names = {"sub"};
  CHECK_FALSE(CompileToolCalls(f.tools, unknown).ok());
}

TEST_CASE("ToolCalls: an answer that may call is any text until a call begins", "[grammar]") {
  CallGrammar f;
  struct Case {
    ToolCallFormat format;
    std::string call, wrong_name, wrong_argument;
  };
  const std::vector<Case> cases = {
      {ToolCallFormat::kHermes, "<tool_call>\n{\"name\": \"add\", \"arguments\": {\"n\": 3}}\n</tool_call>",
       "<tool_call>\n{\"name\": \"sub", "<tool_call>\n{\"name\": \"add\", \"arguments\": {\"n\": 3.5"},
      {ToolCallFormat::kLlamaJson, R"({"name": "add", "parameters": {"n": 3}})", R"({"name": "sub)",
       R"({"name": "add", "parameters": {"n": "3)"},
      {ToolCallFormat::kMistral, R"([TOOL_CALLS][{"name": "add", "arguments": {"n": 3}, "id": "a1B2c3D4e"}])",
       R"([TOOL_CALLS][{"name": "sub)", R"([TOOL_CALLS][{"name": "add", "arguments": {"n": -)"},
      {ToolCallFormat::kMistral, R"([TOOL_CALLS]add[ARGS]{"n": 3})", R"([TOOL_CALLS]sub[)",
       R"([TOOL_CALLS]add[CALL_ID]a1B2c3D4e[ARGS]{"m)"}};
  for (const Case& c : cases) {
    INFO(c.call);
    const CallGrammarOptions options = Options(c.format, false);
    CHECK(f.Takes(options, "Just a text, with < and [ and {\"name\": \"sub\"} in it."));
    CHECK(f.Takes(options, ""));
    CHECK(f.Takes(options, c.call));
    CHECK(f.Begins(options, c.call.substr(0, c.call.size() - 1)));
    CHECK_FALSE(f.Takes(options, c.call.substr(0, c.call.size() - 1)));
    CHECK_FALSE(f.Begins(options, c.wrong_name));
    CHECK_FALSE(f.Begins(options, c.wrong_argument));
    if (c.format == ToolCallFormat::kLlamaJson) continue;  // it calls at the beginning or not at all
    CHECK(f.Takes(options, "I shall add. " + c.call));
    CHECK_FALSE(f.Begins(options, "I shall add. " + c.wrong_name));
  }
}

TEST_CASE("ToolCalls: Hermes may go on behind a call, unless one is all it may make", "[grammar]") {
  CallGrammar f;
  const std::string add = "<tool_call>\n{\"name\": \"add\", \"arguments\": {\"n\": 3}}\n</tool_call>";
  CHECK(f.Takes(Options(ToolCallFormat::kHermes, false), add + "\n" + add + " That was it."));
  CHECK_FALSE(f.Begins(Options(ToolCallFormat::kHermes, false), add + "\n<tool_call>\n{\"name\": \"sub"));
  CHECK(f.Takes(Options(ToolCallFormat::kHermes, false, CallCount::kOne), "Well. " + add));
  CHECK_FALSE(f.Begins(Options(ToolCallFormat::kHermes, false, CallCount::kOne), add + "\n<tool_call>"));
}

TEST_CASE("ToolCalls: an answer of Llama in JSON is a call only if a name comes first", "[grammar]") {
  CallGrammar f;
  const CallGrammarOptions options = Options(ToolCallFormat::kLlamaJson, false);
  for (const char* text : {R"({"answer": 42})", R"( { "names": ["add"]})", "{", R"({"na)", "{}", R"({"name )"}) {
    INFO(text);
    CHECK(f.Takes(options, text));
  }
  for (const char* text : {R"({"name"})", R"({ "name": 3)", R"({"name": "add", "arguments)"}) {
    INFO(text);
    CHECK_FALSE(f.Begins(options, text));
  }
  CHECK(f.Takes(options, R"( {"name":"add","parameters":{"n":3}}; {"name": "stop", "parameters": {}})"));
  CHECK(f.Takes(options, "<|python_tag|>{\"name\": \"stop\", \"parameters\": {}}"));
  CHECK_FALSE(f.Begins(options, "<|python_tag|>{\"name\": \"sub"));
}

TEST_CASE("ToolCalls: what is thought before is free, also to speak of calls", "[grammar]") {
  CallGrammar f;
  const std::string thought = "I could write <tool_call>{\"name\": \"sub\"} but no.";
  const std::string add = "<tool_call>{\"name\": \"add\", \"arguments\": {\"n\": 3}}</tool_call>";
  for (const bool is_required : {false, true}) {
    CallGrammarOptions options = Options(ToolCallFormat::kHermes, is_required);
    options.has_reasoning = true;
    CHECK(f.Takes(options, "<think>" + thought + "</think>\n\n" + add));
    CHECK(f.Takes(options, add));
    CHECK(f.Takes(options, "\n<think></think>All done.") == !is_required);
    CHECK_FALSE(f.Begins(options, "<think>" + thought + "</think>\n\n<tool_call>{\"name\": \"sub"));
    CHECK_FALSE(f.Begins(options, thought));
    options.starts_in_reasoning = true;
    CHECK(f.Takes(options, thought + "</think>" + add));
    CHECK_FALSE(f.Begins(options, thought + "</think><tool_call>{\"name\": \"sub"));
    CHECK(f.Takes(options, thought) == !is_required);
  }
}

TEST_CASE("ToolCalls: a schema that cannot be had is refused where it must hold, else any object will do",
          "[grammar]") {
  CallGrammar f;
  const auto tools_with = [](const std::string& strict) {
    return ParseOrDie(R"([{"function": {"name": "add", "parameters": {"oneOf": []})" + strict + "}}]");
  };
  CallGrammarOptions options = Options(ToolCallFormat::kHermes, false);
  options.names = {"add"};
  f.tools = tools_with("");
  CHECK(f.Takes(options, R"(<tool_call>{"name": "add", "arguments": {"x": [1]}}</tool_call>)"));
  CHECK_FALSE(f.Begins(options, R"(<tool_call>{"name": "add", "arguments": [)"));
  f.tools = tools_with(R"(, "strict": true)");
  CHECK_FALSE(CompileToolCalls(f.tools, options).ok());
  f.tools = tools_with("");
  options.is_required = true;
  CHECK_FALSE(CompileToolCalls(f.tools, options).ok());
}

// Draws an answer token by token; empty if it did not end in time.
std::string Draw(CallGrammar& f, GrammarMatcher matcher, std::mt19937& random) {
  std::vector<uint32_t> mask(f.vocabulary.num_mask_words());
  std::string text;
  for (int step = 0; step < 600; ++step) {
    if (matcher.CanEnd()) return text;
    matcher.FillMask(mask);
    std::vector<int32_t> allowed;
    for (int32_t token = 0; token < f.vocabulary.num_ids(); ++token) {
      if (mask[static_cast<size_t>(token) / 32] >> (static_cast<uint32_t>(token) % 32) & 1) allowed.push_back(token);
    }
    REQUIRE_FALSE(allowed.empty());
    int32_t token = allowed[random() % allowed.size()];
    for (const int32_t closing : allowed) {
      if (f.vocabulary.bytes(closing).find_first_of("\"}]") != std::string_view::npos && random() % 3 == 0)
        token = closing;
    }
    text += f.vocabulary.is_control(token) ? f.tokenizer->IdToToken(token) : f.vocabulary.bytes(token);
    REQUIRE(matcher.Accept(token));
  }
  return {};
}

TEST_CASE("ToolCalls: whatever is drawn parses as calls of offered tools that satisfy their schemas", "[grammar]") {
  CallGrammar f;
  std::mt19937 random(11);
  const TemplateValue schema = *f.tools.as_list().items[0].as_dict().Find("function")->as_dict().Find("parameters");
  for (const auto format : {ToolCallFormat::kHermes, ToolCallFormat::kLlamaJson, ToolCallFormat::kMistral}) {
    int num_calls = 0;
    for (int i = 0; i < 40; ++i) {
      const std::string text = Draw(f, f.Match(Options(format, true), "", SpecialTokens::kParse), random);
      if (text.empty()) continue;
      AnswerParser parser({.format = format, .tool_names = kNames});
      AnswerParts parts;
      parser.Push(text, parts);
      parser.Finish(parts);
      INFO(text);
      CHECK(parts.content.empty());
      REQUIRE_FALSE(parts.calls.empty());
      for (const ParsedToolCall& call : parts.calls) {
        ++num_calls;
        const TemplateValue arguments = ParseOrDie(call.arguments);
        CHECK((call.name == "stop" || call.name == "add"));
        if (call.name == "add") CHECK(testing::SchemaValidator(schema).IsValid(arguments));
      }
    }
    CHECK(num_calls > 10);
  }
}

}  // namespace
}  // namespace millrace
