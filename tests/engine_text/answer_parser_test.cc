// SPDX-License-Identifier: Apache-2.0
#include "engine/text/answer_parser.h"

#include <catch2/catch.hpp>
#include <filesystem>
#include <fstream>
#include <map>
#include <random>
#include <sstream>

#include "engine/text/json_slices.h"

namespace millrace {
namespace {

struct Case {
  const char* about;
  ToolCallFormat format;
  std::string text;
  std::string reasoning;
  std::string content;
  std::vector<std::pair<std::string, std::string>> calls;  // name, arguments
  int32_t num_malformed = 0;
  bool starts_in_reasoning = false;
};

using enum ToolCallFormat;

const std::vector<Case> kCases = {
    {"no format: markers stay", kNone, " a <tool_call>{}</tool_call> \n", "", " a <tool_call>{}</tool_call> \n", {}},
    {"text alone keeps its spaces", kHermes, "  two words \n", "", "  two words \n", {}},
    {"one call",
     kHermes,
     "<tool_call>\n{\"name\": \"f\", \"arguments\": {\"b\": 1, \"a\": [1, {\"x\": null}]}}\n</tool_call>",
     "",
     "",
     {{"f", "{\"b\": 1, \"a\": [1, {\"x\": null}]}"}}},
    {"two calls and text around them",
     kHermes,
     "Let me see.\n<tool_call>{\"name\":\"f\",\"arguments\":{}}</tool_call>\n\n<tool_call>{\"arguments\": {\"k\": "
     "\"v\"}, "
     "\"name\": \"g\"}</tool_call>\n Done. ",
     "",
     "Let me see.Done.",
     {{"f", "{}"}, {"g", "{\"k\": \"v\"}"}}},
    {"markers inside strings",
     kHermes,
     R"(<tool_call>{"name": "f", "arguments": {"t": "</tool_call> } ] \" <tool_call>"}}</tool_call>)",
     "",
     "",
     {{"f", R"({"t": "</tool_call> } ] \" <tool_call>"})"}}},
    {"unicode and escapes stay as written",
     kHermes,
     R"(<tool_call>{"name": "gr\u00fc\u00df", "arguments": {"t": "日本 \ud83d\ude00 é"}}</tool_call>)",
     "",
     "",
     {{"grüß", R"({"t": "日本 \ud83d\ude00 é"})"}}},
    {"arguments as text, as null, and left out",
     kHermes,
     R"(<tool_call>{"name": "f", "arguments": "{\"a\": 1}"}</tool_call><tool_call>{"name": "g", "arguments": null}</tool_call><tool_call>{"name": "h"}</tool_call>)",
     "",
     "",
     {{"f", "{\"a\": 1}"}, {"g", "{}"}, {"h", "{}"}}},
    {"the end of the text closes a call",
     kHermes,
     "<tool_call>\n{\"name\": \"f\", \"arguments\": {\"a\": 1}}",
     "",
     "",
     {{"f", "{\"a\": 1}"}}},
    {"a call that is cut off is none",
     kHermes,
     "Hm <tool_call>\n{\"name\": \"f\", \"argum",
     "",
     "Hm{\"name\": \"f\", \"argum",
     {}},
    {"no JSON in the markers", kHermes, "<tool_call>f(1)</tool_call> x", "", "f(1) x", {}, 1},
    {"JSON that is broken", kHermes, "<tool_call>{\"name\": f}</tool_call>", "", "{\"name\": f}", {}, 1},
    {"arguments that are no object",
     kHermes,
     R"(<tool_call>{"name": "f", "arguments": [1]}</tool_call>)",
     "",
     R"({"name": "f", "arguments": [1]})",
     {},
     1},
    {"a name that is none",
     kHermes,
     R"(<tool_call>{"name": "", "arguments": {}}</tool_call>)",
     "",
     R"({"name": "", "arguments": {}})",
     {},
     1},
    {"a marker that is not finished", kHermes, "a < b <tool_ca", "", "a < b <tool_ca", {}},
    {"reasoning before content", kHermes, "<think>\nHm.\n\nYes. \n</think>\n\nAnswer.", "Hm.\n\nYes.", "Answer.", {}},
    {"reasoning before a call",
     kHermes,
     "\n<think>x <tool_call>{\"name\": \"no\"}</tool_call></think>\n\n<tool_call>{\"name\": \"f\"}</tool_call>",
     "x <tool_call>{\"name\": \"no\"}</tool_call>",
     "",
     {{"f", "{}"}}},
    {"reasoning that the prompt began", kNone, "so it is.</think>Four", "so it is.", "Four", {}, 0, true},
    {"reasoning without an end", kNone, "<think> still at it </thin", "still at it </thin", "", {}},
    {"empty reasoning", kNone, "<think>\n\n</think>\n\nHi", "", "Hi", {}},
    {"less-than is no reasoning", kNone, "<thing>", "", "<thing>", {}},
    {"Mistral's list",
     kMistral,
     R"([TOOL_CALLS][{"name": "f", "arguments": {"a": 1}, "id": "123456789"}, {"name": "g", "arguments": {"t": "]"}}])",
     "",
     "",
     {{"f", "{\"a\": 1}"}, {"g", "{\"t\": \"]\"}"}}},
    {"Mistral's names",
     kMistral,
     R"(Well. [TOOL_CALLS]f[ARGS]{"a": 1}[TOOL_CALLS]g[CALL_ID]abc[ARGS]{"b": {"c": 2}}[TOOL_CALLS]h{"d": 3})",
     "",
     "Well.",
     {{"f", "{\"a\": 1}"}, {"g", "{\"b\": {\"c\": 2}}"}, {"h", "{\"d\": 3}"}}},
    {"Mistral's list with a fault is no call at all",
     kMistral,
     R"([TOOL_CALLS][{"name": "f"}, {"nam": "g"}])",
     "",
     R"([{"name": "f"}, {"nam": "g"}])",
     {},
     1},
    {"Llama's JSON",
     kLlamaJson,
     " {\"name\": \"f\", \"parameters\": {\"a\": \"1\"}}\n",
     "",
     "",
     {{"f", "{\"a\": \"1\"}"}}},
    {"Llama's JSON, twice",
     kLlamaJson,
     R"(<|python_tag|>{"name": "f", "parameters": {}}; {"name": "g", "parameters": {"x": 1}})",
     "",
     "",
     {{"f", "{}"}, {"g", "{\"x\": 1}"}}},
    {"JSON that is an answer",
     kLlamaJson,
     R"({"name": "Ada", "parameters": {}})",
     "",
     R"({"name": "Ada", "parameters": {}})",
     {}},
    {"JSON that is no object", kLlamaJson, "{not json", "", "{not json", {}},
    {"text with JSON in it",
     kLlamaJson,
     R"(Use {"name": "f", "parameters": {}})",
     "",
     R"(Use {"name": "f", "parameters": {}})",
     {}},
};

AnswerParser MakeParser(const Case& c) {
  return AnswerParser({.format = c.format,
                       .splits_reasoning = true,
                       .starts_in_reasoning = c.starts_in_reasoning,
                       .tool_names = {"f", "g", "h"}});
}

void CheckParts(const Case& c, const std::vector<std::string_view>& pieces) {
  AnswerParser parser = MakeParser(c);
  AnswerParts parts;
  for (const std::string_view piece : pieces) parser.Push(piece, parts);
  parser.Finish(parts);
  CHECK(parts.reasoning == c.reasoning);
  CHECK(parts.content == c.content);
  std::vector<std::pair<std::string, std::string>> calls;
  for (const ParsedToolCall& call : parts.calls) calls.emplace_back(call.name, call.arguments);
  CHECK(calls == c.calls);
  CHECK(parser.num_calls() == static_cast<int32_t>(calls.size()));
  CHECK(parser.num_malformed() == c.num_malformed);
}

}  // namespace

TEST_CASE("AnswerParser: parts of whole answers", "[answer_parser]") {
  for (const Case& c : kCases) {
    INFO(c.about);
    CheckParts(c, {c.text});
  }
}

TEST_CASE("AnswerParser: the parts do not depend on where the text is cut", "[answer_parser]") {
  std::mt19937 random(7);
  for (const Case& c : kCases) {
    INFO(c.about);
    const std::string_view text = c.text;
    for (size_t cut = 1; cut < text.size(); ++cut) CheckParts(c, {text.substr(0, cut), text.substr(cut)});
    for (int i = 0; i < 100; ++i) {
      std::vector<std::string_view> pieces;
      for (size_t at = 0; at < text.size();) {
        const size_t num_bytes = 1 + random() % (i % 12 + 1);
        pieces.push_back(text.substr(at, num_bytes));
        at += num_bytes;
      }
      CheckParts(c, pieces);
    }
  }
}

TEST_CASE("AnswerParser: content is passed on before the answer ends", "[answer_parser]") {
  AnswerParser parser({.format = ToolCallFormat::kHermes});
  AnswerParts parts;
  parser.Push("Hello <to", parts);
  CHECK(parts.content == "Hello");
  parser.Push("ad> <tool_call>{\"name\": \"f\"}", parts);
  CHECK(parts.content == "Hello <toad>");
  CHECK(parts.calls.size() == 1);
}

TEST_CASE("JsonSlices: values as they stand in the text", "[answer_parser]") {
  const auto object = JsonSlices(R"( { "a" : 1.0e5 , "b\"c":[1, {"}": "]"}] ,"d":"x,y" })");
  REQUIRE(object.size() == 3);
  CHECK(object[0] == std::pair<std::string_view, std::string_view>("a", "1.0e5"));
  CHECK(object[1] == std::pair<std::string_view, std::string_view>(R"(b\"c)", R"([1, {"}": "]"}])"));
  CHECK(object[2] == std::pair<std::string_view, std::string_view>("d", R"("x,y")"));
  const auto list = JsonSlices("[true,null , {} ]");
  REQUIRE(list.size() == 3);
  CHECK(list[1].second == "null");
  CHECK(JsonSlices("{}").empty());
  CHECK(JsonSlices(" [ ] ").empty());
}

TEST_CASE("DetectToolCallFormat: from the templates of real models", "[answer_parser]") {
  const std::filesystem::path folder = std::string(MILLRACE_SHARED_DATA_DIR) + "/templates/llama.cpp";
  if (!std::filesystem::exists(folder)) {
    WARN("[SKIPPED] no templates at " + folder.string());
    return;
  }
  const std::map<std::string, ToolCallFormat> expected = {
      {"Qwen-Qwen2.5-7B-Instruct.jinja", kHermes},
      {"Qwen-Qwen3-0.6B.jinja", kHermes},
      {"NousResearch-Hermes-3-Llama-3.1-8B-tool_use.jinja", kHermes},
      {"meta-llama-Llama-3.1-8B-Instruct.jinja", kLlamaJson},
      {"meta-llama-Llama-3.3-70B-Instruct.jinja", kLlamaJson},
      {"mistralai-Mistral-Nemo-Instruct-2407.jinja", kMistral},
      {"mistralai-Ministral-3-14B-Reasoning-2512.jinja", kMistral},
      {"Qwen3-Coder.jinja", kNone},
      {"GLM-4.6.jinja", kNone},
      {"MiniMax-M2.jinja", kNone},
  };
  int num_found = 0;
  for (const auto& [name, format] : expected) {
    std::ifstream file(folder / name);
    if (!file) continue;
    std::stringstream text;
    text << file.rdbuf();
    auto parsed = ChatTemplate::Parse(text.str(), "<s>", "</s>");
    INFO(name);
    REQUIRE(parsed.ok());
    CHECK(DetectToolCallFormat(**parsed) == format);
    ++num_found;
  }
  CHECK(num_found >= 6);
}

}  // namespace millrace
