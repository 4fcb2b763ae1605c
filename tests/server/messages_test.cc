// SPDX-License-Identifier: Apache-2.0
// /v1/messages without a server: requests to conversations, runs to blocks and events.
#include <catch2/catch.hpp>
#include <nlohmann/json.hpp>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "server/messages/message_events.h"
#include "server/messages/messages_request.h"
#include "server/wire/api_error.h"
#include "tests/agent/scripted_model.h"

namespace millrace {
namespace {

using nlohmann::json;

MessagesRequest Parse(const std::string& body) {
  auto request = ParseMessages(body, MessagesPurpose::kAnswer);
  INFO(request.status().message());
  REQUIRE(request.ok());
  return *std::move(request);
}

struct Refusal {
  std::string param, code;
  bool operator==(const Refusal&) const = default;
};

Refusal Refused(json more) {
  json body = {{"max_tokens", 5}, {"messages", {{{"role", "user"}, {"content", "hi"}}}}};
  body.update(more);
  const auto request = ParseMessages(body.dump(), MessagesPurpose::kAnswer);
  INFO(body.dump());
  REQUIRE(!request.ok());
  const ApiError error = ToApiError(request.status());
  CHECK(error.http_status == 400);
  return {error.param, error.code};
}

std::string Outline(const Conversation& conversation) {
  std::string out;
  for (const ChatMessage& message : conversation.messages) {
    absl::StrAppend(&out, message.role, ":");
    if (!message.reasoning_content.empty()) absl::StrAppend(&out, "(", message.reasoning_content, ")");
    if (const auto* text = std::get_if<std::string>(&message.content)) out += *text;
    for (const ChatToolCall& call : message.tool_calls) absl::StrAppend(&out, "[", call.name, call.arguments, "]");
    out += '\n';
  }
  return out;
}

TEST_CASE("Messages: blocks become the turns they came from", "[messages]") {
  const MessagesRequest request = Parse(R"({"model":"m","max_tokens":9,"stop_sequences":["END"],"top_k":4,
    "metadata":{"user_id":"u"},"system":[{"type":"text","text":"x-anthropic-billing-header: cch=1"},
      {"type":"text","text":"be kind","cache_control":{"type":"ephemeral"}},{"type":"text","text":"and short"}],
    "messages":[
      {"role":"user","content":[{"type":"text","text":"a"},{"type":"document","source":{"type":"text","data":"b"}}]},
      {"role":"assistant","content":[{"type":"thinking","thinking":"hm","signature":"s"},
        {"type":"redacted_thinking","data":"x"},{"type":"text","text":"calling"},
        {"type":"tool_use","id":"t1","name":"f","input":{"z":1,"a":"two"}},
        {"type":"server_tool_use","id":"s1","name":"web_search","input":{}},
        {"type":"web_search_tool_result","tool_use_id":"s1","content":[]},
        {"type":"tool_use","id":"t2","name":"g","input":{}}]},
      {"role":"user","content":[{"type":"tool_result","tool_use_id":"t1","content":"one"},
        {"type":"tool_result","tool_use_id":"t2","is_error":true,"content":[{"type":"text","text":"bad"}]},
        {"type":"text","text":"go on"}]}]})");
  CHECK(Outline(request.chat.conversation) ==
        "system:be kind\n\nand short\nuser:a\nb\n"
        "assistant:(hm)calling[f{\"z\": 1, \"a\": \"two\"}][g{}]\ntool:one\ntool:Error: bad\nuser:go on\n");
  CHECK(request.chat.params.max_tokens == 9);
  CHECK(request.chat.params.stop == std::vector<std::string>{"END"});
  CHECK(request.chat.params.top_k == 4);
  CHECK(request.chat.conversation.adds_generation_prompt);
}

TEST_CASE("Messages: a last word of the assistant's is gone on with", "[messages]") {
  const MessagesRequest request = Parse(
      R"({"max_tokens":1,"messages":[{"role":"user","content":"q"},{"role":"assistant","content":"The answer is"}]})");
  CHECK(request.chat.conversation.continues_final_message);
  CHECK(!request.chat.conversation.adds_generation_prompt);
}

TEST_CASE("Messages: tools, and which of them must be called", "[messages]") {
  const auto with = [](const std::string& choice) {
    return Parse(absl::StrCat(
        R"({"max_tokens":1,"messages":[{"role":"user","content":"q"}],"tools":[
          {"name":"f","description":"d","input_schema":{"type":"object","properties":{"z":{},"a":{}}}},
          {"type":"web_search_20250305","name":"web_search"},
          {"type":"custom","name":"g","input_schema":{"type":"object"}}],"tool_choice":)",
        choice, "}"));
  };
  const MessagesRequest any = with(R"({"type":"any","disable_parallel_tool_use":true})");
  const TemplateList& tools = any.chat.conversation.tools.as_list();
  REQUIRE(tools.items.size() == 2);
  const TemplateDict& function = tools.items[0].as_dict().Find("function")->as_dict();
  CHECK(function.Find("description")->text() == "d");
  const TemplateValue& properties = *function.Find("parameters")->as_dict().Find("properties");
  CHECK(properties.as_dict().entries()[0].first.text() == "z");
  CHECK(any.chat.required_tools == std::vector<std::string>{"f", "g"});
  CHECK(any.chat.calls_once);
  CHECK(with(R"({"type":"tool","name":"g"})").chat.required_tools == std::vector<std::string>{"g"});
  CHECK(with(R"({"type":"auto"})").chat.required_tools.empty());
  CHECK(!with(R"({"type":"none"})").chat.conversation.tools.is_list());
}

TEST_CASE("Messages: thinking switches the template, and a schema is a grammar", "[messages]") {
  const MessagesRequest off = Parse(
      R"({"max_tokens":1,"messages":[{"role":"user","content":"q"}],"thinking":{"type":"disabled"},
          "output_config":{"format":{"type":"json_schema","schema":{"type":"integer"}}}})");
  CHECK(!off.shows_thinking);
  CHECK(!off.chat.conversation.template_variables.as_dict().Find("enable_thinking")->as_bool());
  CHECK(off.chat.params.grammar != nullptr);
  const MessagesRequest on = Parse(
      R"({"max_tokens":1,"messages":[{"role":"user","content":"q"}],"thinking":{"type":"enabled","budget_tokens":2048}})");
  CHECK(on.shows_thinking);
  CHECK(on.chat.conversation.template_variables.as_dict().Find("enable_thinking")->as_bool());
}

TEST_CASE("Messages: what is wrong is named", "[messages]") {
  const auto content = [](const json& blocks) {
    return Refused({{"messages", {{{"role", "user"}, {"content", blocks}}}}});
  };
  CHECK(Refused({{"max_tokens", nullptr}}) == Refusal{"max_tokens", "missing_required_parameter"});
  CHECK(Refused({{"max_tokens", 0}}) == Refusal{"max_tokens", "invalid_value"});
  CHECK(Refused({{"messages", json::array()}}) == Refusal{"messages", "invalid_value"});
  CHECK(Refused({{"messages", "hi"}}) == Refusal{"messages", "invalid_type"});
  CHECK(Refused({{"messages", {1}}}) == Refusal{"messages", "invalid_type"});
  CHECK(Refused({{"messages", {{{"content", "x"}}}}}) == Refusal{"messages[0].role", "missing_required_parameter"});
  CHECK(Refused({{"messages", {{{"role", "robot"}, {"content", "x"}}}}}) ==
        Refusal{"messages[0].role", "invalid_value"});
  CHECK(Refused({{"messages", {{{"role", "user"}}}}}) == Refusal{"messages[0].content", "missing_required_parameter"});
  CHECK(content({{{"type", "image"}, {"source", {{"type", "base64"}}}}}) ==
        Refusal{"messages[0].content[0].type", "unsupported_value"});
  CHECK(content({{{"type", "redacted_thinking"}}}) == Refusal{"messages", "invalid_value"});
  CHECK(content({{{"type", "tool_use"}, {"id", "a"}, {"name", "f"}, {"input", json::object()}}}) ==
        Refusal{"messages[0].content[0].type", "invalid_value"});
  CHECK(content({{{"type", "tool_result"}}}) ==
        Refusal{"messages[0].content[0].tool_use_id", "missing_required_parameter"});
  CHECK(content({5}) == Refusal{"messages[0].content", "invalid_type"});
  CHECK(Refused({{"system", 5}}) == Refusal{"system", "invalid_type"});
  CHECK(Refused({{"tools", {{{"name", "f"}}}}}) == Refusal{"tools[0].input_schema", "missing_required_parameter"});
  CHECK(Refused({{"tool_choice", {{"type", "any"}}}}) == Refusal{"tool_choice.type", "invalid_value"});
  CHECK(Refused({{"tool_choice", {{"type", "tool"}, {"name", "x"}}}}) == Refusal{"tool_choice.name", "invalid_value"});
  CHECK(Refused({{"stop_sequences", {""}}}) == Refusal{"stop_sequences", "invalid_value"});
  CHECK(Refused({{"thinking", {{"type", "maybe"}}}}) == Refusal{"thinking.type", "invalid_value"});
  CHECK(Refused({{"output_config", {{"format", {{"type", "json_schema"}, {"schema", {{"not", json::object()}}}}}}}}) ==
        Refusal{"output_config.format.schema", "unsupported_value"});
  CHECK(ParseMessages(R"({"messages":[{"role":"user","content":"hi"}]})", MessagesPurpose::kCount).ok());
}

// ---- events -----------------------------------------------------------------------------------------------------

struct Streamed {
  std::vector<json> events;
  json message;  // as a whole answer would be
};

Streamed Stream(std::vector<Turn> turns, RunRequest request, bool shows_thinking = true) {
  ScriptedModel model(std::move(turns));
  std::string bytes;
  MessageEvents events(
      {.id = "msg_1",
       .model = "m",
       .max_tokens = 5,
       .shows_thinking = shows_thinking,
       .source_of = [](std::string_view name) { return ToolSource{.server = "millrace", .name = std::string(name)}; },
       .stream = [&bytes](std::string_view piece) { bytes += piece; }});
  events.Begin(10);
  const Cancellation cancellation;
  const RunResult result =
      RunAgent(model, std::move(request), [&](RunEvent&& event) { events.Handle(event); }, cancellation);
  events.End(result);
  Streamed streamed{.message = json::parse(events.Object())};
  const std::vector<std::string> frames = absl::StrSplit(bytes, "\n\n", absl::SkipEmpty());
  for (const std::string& frame : frames) {
    const std::vector<std::string> lines = absl::StrSplit(frame, '\n');
    REQUIRE(lines.size() == 2);
    streamed.events.push_back(json::parse(lines[1].substr(6)));
    CHECK(lines[0] == "event: " + streamed.events.back()["type"].get<std::string>());
  }
  return streamed;
}

// The message that a listener puts together, as Anthropic's clients do.
json Listen(const std::vector<json>& events) {
  json message;
  std::string input;
  for (const json& event : events) {
    const std::string type = event["type"];
    if (type == "message_start") message = event["message"];
    if (type == "content_block_start") {
      CHECK(event["index"] == message["content"].size());
      message["content"].push_back(event["content_block"]);
      input.clear();
    }
    if (type == "content_block_delta") {
      json& block = message["content"][event["index"].get<size_t>()];
      for (const char* name : {"text", "thinking", "signature"}) {
        if (event["delta"].contains(name))
          block[name] = block[name].get<std::string>() + event["delta"][name].get<std::string>();
      }
      if (event["delta"].contains("partial_json")) input += event["delta"]["partial_json"];
    }
    if (type == "content_block_stop" && !input.empty()) {
      message["content"][event["index"].get<size_t>()]["input"] = json::parse(input);
      input.clear();
    }
    if (type == "message_delta") {
      message.update(event["delta"]);
      message["usage"].update(event["usage"]);
    }
  }
  return message;
}

TEST_CASE("Messages: thinking and text stream in Anthropic's order, and add up to the message", "[messages]") {
  Turn turn = SaysText("hello");
  turn.reasoning = "hm";
  const Streamed streamed = Stream({turn}, {});
  std::vector<std::string> types;
  for (const json& event : streamed.events) types.push_back(event["type"]);
  CHECK(types == std::vector<std::string>{"message_start", "ping", "content_block_start", "content_block_delta",
                                          "content_block_delta", "content_block_stop", "content_block_start",
                                          "content_block_delta", "content_block_stop", "message_delta",
                                          "message_stop"});
  CHECK(Listen(streamed.events) == streamed.message);
  CHECK(streamed.events[0]["message"]["usage"]["input_tokens"] == 10);
  CHECK(streamed.events[0]["message"]["stop_reason"].is_null());
  CHECK(streamed.message["stop_reason"] == "end_turn");
  CHECK(streamed.message["content"][0]["thinking"] == "hm");
  CHECK(streamed.message["content"][1]["text"] == "hello");
  CHECK(streamed.message["usage"]["input_tokens"] == 5);
  CHECK(streamed.message["usage"]["cache_read_input_tokens"] == 5);
  CHECK(streamed.message["usage"]["output_tokens"] == 3);
  CHECK(Stream({turn}, {}, /*shows_thinking=*/false).message["content"].size() == 1);
}

TEST_CASE("Messages: the client's calls are tool_use, ours come with their results", "[messages]") {
  const Streamed theirs = Stream({MakesCalls({{"t1", "f", R"({"z":1,"a":2})"}, {"t2", "f", "not json"}})}, {});
  CHECK(Listen(theirs.events) == theirs.message);
  CHECK(theirs.message["stop_reason"] == "tool_use");
  CHECK(theirs.message["content"][0] ==
        json{{"type", "tool_use"}, {"id", "t1"}, {"name", "f"}, {"input", {{"z", 1}, {"a", 2}}}});
  CHECK(theirs.message["content"][1]["input"]["arguments"] == "not json");
  const auto tool = std::make_shared<ScriptedTool>(
      "calculator", [](std::string_view, absl::Time, const Cancellation&) -> ToolResult { return {.text = "4"}; });
  const Streamed ours = Stream({MakesCalls({{"t1", "calculator", "{}"}}), SaysText("four")}, {.tools = {tool}});
  CHECK(Listen(ours.events) == ours.message);
  REQUIRE(ours.message["content"].size() == 3);
  CHECK(ours.message["content"][0]["type"] == "mcp_tool_use");
  CHECK(ours.message["content"][0]["server_name"] == "millrace");
  CHECK(ours.message["content"][1]["content"][0]["text"] == "4");
  CHECK(ours.message["stop_reason"] == "end_turn");
}

TEST_CASE("Messages: a tool set names a server of ours, and which of its tools", "[messages]") {
  const auto ask = [](const std::string& tools, const std::string& choice = "") {
    return Parse(absl::StrCat(R"({"max_tokens":9,"messages":[{"role":"user","content":"hi"}],"tools":)", tools,
                              choice.empty() ? "" : R"(,"tool_choice":{"type":")" + choice + "\"}", "}"));
  };
  const MessagesRequest all = ask(R"([{"type":"mcp_toolset","mcp_server_name":"shop"}])", "any");
  REQUIRE(all.tool_servers.size() == 1);
  CHECK(all.tool_servers[0].label == "shop");
  CHECK_FALSE(all.tool_servers[0].allowed.has_value());
  CHECK(all.must_call);
  const MessagesRequest some =
      ask(R"([{"type":"mcp_toolset","mcp_server_name":"shop","default_config":{"enabled":false},
      "configs":{"buy":{"enabled":true},"sell":{"enabled":false},"look":{}}}])");
  CHECK(*some.tool_servers[0].allowed == std::vector<std::string>{"buy"});
  CHECK_FALSE(some.must_call);
  CHECK(ask(R"([{"type":"mcp_toolset","mcp_server_name":"shop"}])", "none").tool_servers.empty());
  const auto refused = [](json tool) { return Refused({{"tools", {std::move(tool)}}}); };
  CHECK(refused({{"type", "mcp_toolset"}}).code == "missing_required_parameter");
  CHECK(refused({{"type", "mcp_toolset"}, {"mcp_server_name", "s"}, {"configs", {{"a", {{"enabled", false}}}}}}) ==
        Refusal{"tools[0].configs", "unsupported_value"});
  CHECK(refused({{"type", "mcp_toolset"}, {"mcp_server_name", "s"}, {"configs", json::array({1})}}).param ==
        "tools[0].configs");
  CHECK(refused({{"type", "mcp_toolset"}, {"mcp_server_name", "s"}, {"configs", {{"a", 1}}}}).code == "invalid_type");
  const json twice = {{"type", "mcp_toolset"}, {"mcp_server_name", "s"}};
  CHECK(Refused({{"tools", {twice, twice}}}).param == "tools[1].mcp_server_name");
}

TEST_CASE("Messages: a server's call comes back under the name that the model used", "[messages]") {
  const MessagesRequest request = Parse(R"({"max_tokens":9,"messages":[{"role":"user","content":"hi"},
      {"role":"assistant","content":[
        {"type":"mcp_tool_use","id":"1","server_name":"shop","name":"buy","input":{}},
        {"type":"mcp_tool_result","tool_use_id":"1","content":[{"type":"text","text":"ok"}]},
        {"type":"mcp_tool_use","id":"2","server_name":"millrace","name":"clock","input":{}},
        {"type":"mcp_tool_result","tool_use_id":"2","content":"noon"}]}]})");
  const std::string outline = Outline(request.chat.conversation);
  CHECK(outline.find("[shop__buy{}]") != outline.npos);
  CHECK(outline.find("[clock{}]") != outline.npos);
}

TEST_CASE("Messages: why it stopped", "[messages]") {
  Turn cut = SaysText("too lo");
  cut.finish = TurnFinish::kLength;
  cut.usage.num_output_tokens = 5;
  CHECK(Stream({cut}, {}).message["stop_reason"] == "max_tokens");
  cut.usage.num_output_tokens = 4;
  CHECK(Stream({cut}, {}).message["stop_reason"] == "model_context_window_exceeded");
  Turn stopped = SaysText("one ");
  stopped.stop_sequence = "END";
  const Streamed streamed = Stream({stopped}, {});
  CHECK(streamed.message["stop_reason"] == "stop_sequence");
  CHECK(streamed.message["stop_sequence"] == "END");
  CHECK(Listen(streamed.events) == streamed.message);
}

}  // namespace
}  // namespace millrace
