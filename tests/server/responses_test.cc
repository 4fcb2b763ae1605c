// SPDX-License-Identifier: Apache-2.0
// /v1/responses without a server: requests to conversations, runs to items and events.
#include <catch2/catch.hpp>
#include <map>
#include <nlohmann/json.hpp>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "server/responses/item_reader.h"
#include "server/responses/response_events.h"
#include "server/responses/responses_request.h"
#include "server/wire/api_error.h"
#include "tests/agent/scripted_model.h"

namespace millrace {
namespace {

using nlohmann::json;

ResponsesRequest Parse(const json& body, const ItemSource& source = {}) {
  auto request = ParseResponses(body.dump(), source);
  INFO(request.status().message());
  REQUIRE(request.ok());
  return *std::move(request);
}

struct Refusal {
  std::string param, code;
  bool operator==(const Refusal&) const = default;
};

Refusal Refused(const json& body, const ItemSource& source = {}) {
  const auto request = ParseResponses(body.dump(), source);
  INFO(body.dump());
  REQUIRE(!request.ok());
  const ApiError error = ToApiError(request.status());
  INFO(error.message);
  CHECK(error.http_status == 400);
  return {error.param, error.code};
}

std::string TextOf(const ChatMessage& message) {
  const auto* text = std::get_if<std::string>(&message.content);
  return text != nullptr ? *text : "";
}

// role:text[calls] of each message, one per line.
std::string Outline(const Conversation& conversation) {
  std::string out;
  for (const ChatMessage& message : conversation.messages) {
    absl::StrAppend(&out, message.role, ":");
    if (!message.reasoning_content.empty()) absl::StrAppend(&out, "(", message.reasoning_content, ")");
    absl::StrAppend(&out, TextOf(message));
    for (const ChatToolCall& call : message.tool_calls) absl::StrAppend(&out, "[", call.name, call.arguments, "]");
    out += '\n';
  }
  return out;
}

const json kFunction = {{"type", "function"}, {"name", "f"}, {"parameters", {{"type", "object"}}}};
const json kOther = {{"type", "function"}, {"name", "g"}, {"parameters", {{"type", "object"}}}};

TEST_CASE("Responses: a text is a user's message, instructions the system's", "[responses]") {
  const ResponsesRequest request =
      Parse({{"model", "m"}, {"input", "hi"}, {"instructions", "be kind"}, {"client_metadata", {{"x", 1}}}});
  CHECK(request.chat.model == "m");
  CHECK(Outline(request.chat.conversation) == "system:be kind\nuser:hi\n");
  CHECK(request.is_stored);
  CHECK(request.mode == AnswerMode::kWhole);
  const json input = json::parse(request.input);
  REQUIRE(input.size() == 1);
  CHECK(input[0]["type"] == "message");
  CHECK(input[0]["content"] == json::array({{{"type", "input_text"}, {"text", "hi"}}}));
  CHECK(request.item_ids == std::vector<std::string>{input[0]["id"]});
}

TEST_CASE("Responses: items of a history become the turns they came from", "[responses]") {
  const json input = json::array({
      {{"role", "developer"}, {"content", "terse"}},
      {{"role", "user"},
       {"content", {{{"type", "input_text"}, {"text", "a"}}, {{"type", "input_text"}, {"text", "b"}}}}},
      {{"type", "reasoning"},
       {"id", "rs"},
       {"summary", json::array()},
       {"content", {{{"type", "reasoning_text"}, {"text", "think"}}}}},
      {{"type", "message"},
       {"role", "assistant"},
       {"id", "m"},
       {"status", "completed"},
       {"content", {{{"type", "output_text"}, {"text", "calling"}, {"annotations", json::array()}}}}},
      {{"type", "function_call"}, {"call_id", "c1"}, {"name", "f"}, {"arguments", "{\"x\":1}"}},
      {{"type", "function_call"}, {"call_id", "c2"}, {"name", "g"}, {"arguments", "{}"}},
      {{"type", "function_call_output"}, {"call_id", "c1"}, {"output", "one"}},
      {{"type", "function_call_output"}, {"call_id", "c2"}, {"output", {{{"type", "input_text"}, {"text", "two"}}}}},
      {{"type", "mcp_call"},
       {"id", "mcp_1"},
       {"server_label", "millrace"},
       {"name", "calculator"},
       {"arguments", "{\"expression\":\"1\"}"},
       {"output", "1"}},
      {{"type", "code_interpreter_call"},
       {"id", "ci_1"},
       {"code", "print(2)"},
       {"container_id", "auto"},
       {"outputs", {{{"type", "logs"}, {"logs", "2\n"}}}}},
      {{"type", "mcp_list_tools"}, {"id", "l"}, {"server_label", "millrace"}, {"tools", json::array()}},
      {{"role", "user"}, {"content", "and?"}},
  });
  const ResponsesRequest request = Parse({{"input", input}, {"instructions", "rules"}});
  CHECK(Outline(request.chat.conversation) ==
        "system:rules\n\nterse\nuser:ab\nassistant:(think)calling[f{\"x\":1}][g{}]\ntool:one\ntool:two\n"
        "assistant:[calculator{\"expression\":\"1\"}]\ntool:1\nassistant:[python{\"code\":\"print(2)\"}]\ntool:2\n\n"
        "user:and?\n");
  CHECK(request.item_ids.size() == input.size());
  for (const json& item : json::parse(request.input)) CHECK(item["id"].is_string());
}

TEST_CASE("Responses: reasoning packed for a client that stores nothing comes back as it was", "[responses]") {
  const std::string text = "caf\xC3\xA9 \"quoted\"";
  CHECK(UnpackReasoning(PackReasoning(text)) == text);
  CHECK(UnpackReasoning("gAAAAB-of-somebody-else").empty());
  CHECK(UnpackReasoning("text-base64:!!!").empty());
  const ResponsesRequest request =
      Parse({{"input",
              {{{"role", "user"}, {"content", "q"}},
               {{"type", "reasoning"}, {"summary", json::array()}, {"encrypted_content", PackReasoning("so")}},
               {{"type", "reasoning"}, {"summary", json::array()}, {"encrypted_content", "gAAAA"}},
               {{"role", "assistant"}, {"content", "a"}}}},
             {"store", false},
             {"include", {"reasoning.encrypted_content"}}});
  CHECK(Outline(request.chat.conversation) == "user:q\nassistant:a\n");
  CHECK(request.shows_encrypted_reasoning);
  CHECK(!request.is_stored);
}

TEST_CASE("Responses: what earlier responses said comes before the input", "[responses]") {
  const ItemSource source{
      .history = [](const std::string& id) -> absl::StatusOr<std::vector<std::string>> {
        if (id != "resp_1") return absl::NotFoundError("no such response");
        return std::vector<std::string>{
            R"([{"role":"user","content":"q1"},{"type":"function_call","call_id":"c","name":"f","arguments":"{}"}])"};
      },
      .item = [](const std::string& id) -> absl::StatusOr<std::string> {
        if (id != "msg_1") return absl::NotFoundError("no such item");
        return R"({"id":"msg_1","type":"message","role":"user","content":"referred"})";
      }};
  const ResponsesRequest request = Parse({{"previous_response_id", "resp_1"},
                                          {"instructions", "new"},
                                          {"input",
                                           {{{"type", "function_call_output"}, {"call_id", "c"}, {"output", "r"}},
                                            {{"type", "item_reference"}, {"id", "msg_1"}},
                                            {{"id", "msg_1"}}}}},
                                         source);
  CHECK(Outline(request.chat.conversation) ==
        "system:new\nuser:q1\nassistant:[f{}]\ntool:r\nuser:referred\nuser:referred\n");
  CHECK(json::parse(request.input).size() == 3);

  const auto unknown = ParseResponses(R"({"input":"x","previous_response_id":"resp_2"})", source);
  CHECK(ToApiError(unknown.status()).http_status == 404);
  CHECK(ToApiError(unknown.status()).param == "previous_response_id");
  CHECK(ToApiError(unknown.status()).code == "previous_response_not_found");
  const auto item = ParseResponses(R"({"input":[{"type":"item_reference","id":"msg_2"}]})", source);
  CHECK(ToApiError(item.status()).http_status == 404);
  CHECK(ToApiError(item.status()).param == "input[0].id");
  CHECK(Refused({{"input", "x"}, {"previous_response_id", "resp_1"}}).param == "previous_response_id");
}

TEST_CASE("Responses: functions reach the conversation in the client's order, other kinds are passed over",
          "[responses]") {
  const auto request = ParseResponses(
      R"({"input":"x","tools":[{"type":"web_search"},{"type":"function","name":"f","strict":true,
          "parameters":{"type":"object","properties":{"z":{"type":"string"},"a":{"type":"string"}}}},
          {"type":"namespace","name":"n","tools":[]},{"type":"custom","name":"patch"},
          {"type":"mcp","server_label":"millrace","authorization":"secret","headers":{"x":"secret"},"allowed_tools":["calculator"],"require_approval":"never"},
          {"type":"code_interpreter","container":{"type":"auto"}}]})",
      {});
  REQUIRE(request.ok());
  const TemplateList& tools = request->chat.conversation.tools.as_list();
  REQUIRE(tools.items.size() == 1);
  const TemplateDict& function = tools.items[0].as_dict().Find("function")->as_dict();
  CHECK(function.Find("name")->text() == "f");
  CHECK(function.Find("strict") == nullptr);
  const TemplateDict& properties = function.Find("parameters")->as_dict().Find("properties")->as_dict();
  CHECK(properties.entries()[0].first.text() == "z");
  REQUIRE(request->tool_servers.size() == 1);
  CHECK(request->tool_servers[0].label == "millrace");
  CHECK(request->tool_servers[0].allowed == std::vector<std::string>{"calculator"});
  CHECK(request->has_code_interpreter);
  const json echo = json::parse("{" + request->echo + "}");
  CHECK(echo["tools"].size() == 6);
  CHECK(echo["tools"][1]["description"].is_null());
  CHECK(request->echo.find("secret") == std::string::npos);
}

TEST_CASE("Responses: tool_choice narrows what is offered and what must be called", "[responses]") {
  const auto choose = [](const json& choice) {
    return Parse({{"input", "x"},
                  {"tools",
                   {kFunction,
                    kOther,
                    {{"type", "mcp"}, {"server_label", "millrace"}},
                    {{"type", "code_interpreter"}, {"container", {{"type", "auto"}}}}}},
                  {"tool_choice", choice}});
  };
  const auto num_functions = [](const ResponsesRequest& request) {
    const TemplateValue& tools = request.chat.conversation.tools;
    return tools.is_list() ? tools.as_list().items.size() : size_t{0};
  };
  const ResponsesRequest none = choose("none");
  CHECK(num_functions(none) == 0);
  CHECK(none.tool_servers.empty());
  CHECK(!none.has_code_interpreter);
  CHECK(!none.must_call);
  const ResponsesRequest required = choose("required");
  CHECK(required.must_call);
  CHECK(required.chat.required_tools.empty());
  const ResponsesRequest named = choose({{"type", "function"}, {"name", "g"}});
  CHECK(named.chat.required_tools == std::vector<std::string>{"g"});
  CHECK(named.chat.calls_once);
  CHECK(num_functions(named) == 2);
  const ResponsesRequest allowed =
      choose({{"type", "allowed_tools"},
              {"mode", "required"},
              {"tools", {{{"type", "function"}, {"name", "f"}}, {{"type", "mcp"}, {"server_label", "millrace"}}}}});
  CHECK(num_functions(allowed) == 1);
  CHECK(allowed.must_call);
  CHECK(allowed.tool_servers.size() == 1);
  CHECK(!allowed.has_code_interpreter);
  const ResponsesRequest server = choose({{"type", "mcp"}, {"server_label", "millrace"}, {"name", "clock"}});
  CHECK(num_functions(server) == 0);
  CHECK(server.tool_servers[0].allowed == std::vector<std::string>{"clock"});
  CHECK(server.must_call);
  CHECK(choose({{"type", "code_interpreter"}}).tool_servers.empty());
}

TEST_CASE("Responses: what is wrong is named", "[responses]") {
  const auto with = [](const char* name, const json& value) {
    json body = {{"input", "x"}, {"tools", {kFunction}}};
    body[name] = value;
    return Refused(body);
  };
  const json image = {{{"role", "user"}, {"content", {{{"type", "input_image"}, {"image_url", "data:"}}}}}};
  CHECK(Refused(json::object()) == Refusal{"input", "missing_required_parameter"});
  CHECK(with("input", 5) == Refusal{"input", "invalid_type"});
  CHECK(with("input", json::array()) == Refusal{"input", "invalid_value"});
  CHECK(with("input", {1}) == Refusal{"input[0]", "invalid_type"});
  CHECK(with("input", image) == Refusal{"input[0].content[0].type", "unsupported_value"});
  CHECK(with("input", {{{"role", "robot"}, {"content", "x"}}}) == Refusal{"input[0].role", "invalid_value"});
  CHECK(with("input", {{{"role", "user"}}}) == Refusal{"input[0].content", "missing_required_parameter"});
  CHECK(with("input", {{{"type", "computer_call"}}}) == Refusal{"input[0].type", "unsupported_value"});
  CHECK(with("input", {{{"type", "function_call_output"}, {"call_id", "c"}, {"output", "x"}}}) ==
        Refusal{"input[0].call_id", "invalid_value"});
  CHECK(with("input", {{{"type", "function_call"}, {"call_id", "c"}}}) ==
        Refusal{"input[0].name", "missing_required_parameter"});
  CHECK(with("input", {{{"type", "item_reference"}, {"id", 7}}}) == Refusal{"input[0].id", "invalid_type"});
  CHECK(with("background", true) == Refusal{"background", "unsupported_value"});
  CHECK(with("conversation", "c") == Refusal{"conversation", "unsupported_parameter"});
  CHECK(with("truncation", "auto") == Refusal{"truncation", "unsupported_value"});
  CHECK(with("truncation", "some") == Refusal{"truncation", "invalid_value"});
  CHECK(with("temperature", "hot") == Refusal{"temperature", "invalid_type"});
  CHECK(with("temperature", 3) == Refusal{"temperature", "invalid_value"});
  CHECK(with("max_output_tokens", 0) == Refusal{"max_output_tokens", "invalid_value"});
  CHECK(with("include", {"everything"}) == Refusal{"include", "invalid_value"});
  CHECK(with("include", {"message.output_text.logprobs"}) == Refusal{"include", "unsupported_value"});
  CHECK(with("top_logprobs", 2) == Refusal{"top_logprobs", "unsupported_value"});
  CHECK(with("reasoning", {{"effort", "huge"}}) == Refusal{"reasoning.effort", "invalid_value"});
  CHECK(with("service_tier", "gold") == Refusal{"service_tier", "invalid_value"});
  CHECK(with("metadata", {{"k", 1}}) == Refusal{"metadata", "invalid_type"});
  CHECK(with("text", {{"format", {{"type", "xml"}}}}) == Refusal{"text.format.type", "invalid_value"});
  CHECK(with("text", {{"format", {{"type", "json_schema"}, {"name", "n"}}}}) ==
        Refusal{"text.format.schema", "missing_required_parameter"});
  CHECK(with("text", {{"format", {{"type", "json_schema"}, {"name", "n"}, {"schema", {{"not", json::object()}}}}}}) ==
        Refusal{"text.format.schema", "unsupported_value"});
  CHECK(with("tools", {{{"name", "f"}}}) == Refusal{"tools[0].type", "missing_required_parameter"});
  CHECK(with("tools", {kFunction, kFunction}) == Refusal{"tools[1].name", "invalid_value"});
  CHECK(with("tools", {{{"type", "mcp"}, {"server_label", "l"}, {"server_url", "http://x"}}}) ==
        Refusal{"tools[0].server_url", "unsupported_parameter"});
  CHECK(with("tools", {{{"type", "mcp"}, {"server_label", "l"}, {"require_approval", "always"}}}) ==
        Refusal{"tools[0].require_approval", "unsupported_value"});
  CHECK(with("tool_choice", "maybe") == Refusal{"tool_choice", "invalid_value"});
  CHECK(with("tool_choice", {{"type", "function"}, {"name", "none"}}) == Refusal{"tool_choice.name", "invalid_value"});
  CHECK(with("tool_choice", {{"type", "file_search"}}) == Refusal{"tool_choice.type", "unsupported_value"});
  CHECK(with("tool_choice", {{"type", "mcp"}, {"server_label", "none"}}) ==
        Refusal{"tool_choice.server_label", "invalid_value"});
}

TEST_CASE("Responses: text.format is a grammar, reasoning.effort a variable of the template", "[responses]") {
  const ResponsesRequest request =
      Parse({{"input", "x"},
             {"text", {{"format", {{"type", "json_schema"}, {"name", "n"}, {"schema", {{"type", "integer"}}}}}}},
             {"reasoning", {{"effort", "none"}}}});
  CHECK(request.chat.params.grammar != nullptr);
  const TemplateDict& variables = request.chat.conversation.template_variables.as_dict();
  CHECK(variables.Find("reasoning_effort")->text() == "none");
  CHECK(!variables.Find("enable_thinking")->as_bool());
  CHECK(Parse({{"input", "x"}, {"text", {{"format", {{"type", "json_object"}}}}}}).chat.params.grammar != nullptr);
  CHECK(Parse({{"input", "x"}, {"text", {{"format", {{"type", "text"}}}}}}).chat.params.grammar == nullptr);
}

// ---- events -----------------------------------------------------------------------------------------------------

struct Streamed {
  std::vector<json> events;
  std::string object;  // as GET would give it
  std::vector<std::string> types() const {
    std::vector<std::string> types;
    for (const json& event : events) types.push_back(event["type"]);
    return types;
  }
};

Streamed Stream(std::vector<Turn> turns, RunRequest request, bool streams = true) {
  ScriptedModel model(std::move(turns));
  std::string bytes;
  ResponseEventsArgs args{.id = "resp_1", .model = "m", .created = 5, .shows_code_outputs = true};
  args.look = [](std::string_view name) { return CallLook{.is_code = name == "python", .label = "millrace"}; };
  if (streams) args.stream = [&bytes](std::string_view piece) { bytes += piece; };
  ResponseEvents events(std::move(args));
  events.Begin();
  const Cancellation cancellation;
  RunAgent(model, std::move(request), [&](RunEvent&& event) { events.Handle(event); }, cancellation);
  events.Finish();
  events.End();
  Streamed streamed{.object = events.Object()};
  if (!streams) return streamed;
  std::vector<std::string> frames = absl::StrSplit(bytes, "\n\n");
  REQUIRE(frames.size() > 2);
  CHECK(frames.back().empty());
  CHECK(frames[frames.size() - 2] == "data: [DONE]");
  frames.resize(frames.size() - 2);
  for (const std::string& frame : frames) {
    const std::vector<std::string> lines = absl::StrSplit(frame, '\n');
    REQUIRE(lines.size() == 2);
    const json event = json::parse(lines[1].substr(6));
    CHECK(lines[0] == "event: " + event["type"].get<std::string>());
    CHECK(event["sequence_number"] == streamed.events.size());
    streamed.events.push_back(event);
  }
  return streamed;
}

// What a client that only listens has at the end: its items, put together from the events.
json Listen(const std::vector<json>& events) {
  json items = json::array();
  for (const json& event : events) {
    const std::string type = event["type"];
    if (type == "response.output_item.added") {
      CHECK(event["output_index"] == items.size());
      items.push_back(event["item"]);
    }
    if (event.contains("item_id")) CHECK(items[event["output_index"].get<size_t>()]["id"] == event["item_id"]);
    if (type == "response.output_item.done") {
      json& item = items[event["output_index"].get<size_t>()];
      CHECK(item["id"] == event["item"]["id"]);
      item = event["item"];
    }
  }
  return items;
}

std::shared_ptr<Tool> Says(std::string name, ToolResult result) {
  return std::make_shared<ScriptedTool>(std::move(name),
                                        [result](std::string_view, absl::Time, const Cancellation&) { return result; });
}

TEST_CASE("Responses: a plain answer streams in OpenAI's order, and ends as the object", "[responses]") {
  Turn turn = SaysText("hello");
  turn.reasoning = "hm";
  const Streamed streamed = Stream({turn}, {});
  CHECK(streamed.types() ==
        std::vector<std::string>{
            "response.created", "response.in_progress", "response.output_item.added", "response.content_part.added",
            "response.reasoning_text.delta", "response.reasoning_text.done", "response.content_part.done",
            "response.output_item.done", "response.output_item.added", "response.content_part.added",
            "response.output_text.delta", "response.output_text.done", "response.content_part.done",
            "response.output_item.done", "response.completed"});
  const json object = json::parse(streamed.object);
  CHECK(streamed.events.front()["response"]["status"] == "in_progress");
  CHECK(streamed.events.front()["response"]["usage"].is_null());
  CHECK(streamed.events.back()["response"] == object);
  CHECK(Listen(streamed.events) == object["output"]);
  CHECK(object["status"] == "completed");
  CHECK(object["output"][0]["content"][0]["text"] == "hm");
  CHECK(object["output"][1]["content"][0]["text"] == "hello");
  CHECK(object["usage"]["total_tokens"] == 13);
  CHECK(object["usage"]["input_tokens_details"]["cached_tokens"] == 5);
}

TEST_CASE("Responses: calls of ours show their result, the client's end the response", "[responses]") {
  RunRequest request{
      .tools = {Says("calculator", {.text = "4"}), Says("python", {.text = "out"}), Says("bad", ToolError("broken"))}};
  request.conversation.tools = TemplateValue::List();
  TemplateValue tool = TemplateValue::Dict(), function = TemplateValue::Dict();
  function.as_dict().Set("name", TemplateValue::Text("theirs"));
  tool.as_dict().Set("function", function);
  request.conversation.tools.as_list().items.push_back(tool);
  const Streamed streamed = Stream({MakesCalls({{"c1", "calculator", R"({"expression":"2+2"})"},
                                                {"c2", "python", R"x({"code":"print(1)"})x"},
                                                {"c3", "bad", "{}"}}),
                                    MakesCalls({{"c4", "theirs", R"({"a":1})"}})},
                                   request);
  const json output = json::parse(streamed.object)["output"];
  CHECK(Listen(streamed.events) == output);
  REQUIRE(output.size() == 4);
  CHECK(output[0]["type"] == "mcp_call");
  CHECK(output[0]["output"] == "4");
  CHECK(output[0]["arguments"] == R"({"expression":"2+2"})");
  CHECK(output[0]["server_label"] == "millrace");
  CHECK(output[1]["type"] == "code_interpreter_call");
  CHECK(output[1]["code"] == "print(1)");
  CHECK(output[1]["outputs"][0]["logs"] == "out");
  CHECK(output[2]["status"] == "failed");
  CHECK(output[2]["error"]["content"] == "broken");
  CHECK(output[2]["output"].is_null());
  CHECK(output[3]["type"] == "function_call");
  CHECK(output[3]["call_id"] == "c4");
  CHECK(output[3]["arguments"] == R"({"a":1})");
  CHECK(json::parse(streamed.object)["status"] == "completed");
  std::map<std::string, int> counts;
  for (const std::string& type : streamed.types()) ++counts[type];
  for (const char* once :
       {"response.code_interpreter_call.interpreting", "response.code_interpreter_call_code.done",
        "response.mcp_call.completed", "response.mcp_call.failed", "response.function_call_arguments.done"}) {
    INFO(once);
    CHECK(counts[once] == 1);
  }
  CHECK(counts["response.mcp_call.in_progress"] == 2);
}

TEST_CASE("Responses: streamed and whole answers are made alike", "[responses]") {
  Turn turn = MakesCalls({{"c1", "calculator", "{}"}});
  turn.text = "let me see";
  const RunRequest request{.tools = {Says("calculator", {.text = "4"})}};
  const auto without_ids = [](const std::string& object) {
    json out = json::parse(object);
    for (json& item : out["output"]) item.erase("id");
    out.erase("completed_at");
    return out;
  };
  const Streamed streamed = Stream({turn, SaysText("4!")}, request);
  const Streamed whole = Stream({turn, SaysText("4!")}, request, /*streams=*/false);
  CHECK(without_ids(streamed.object) == without_ids(whole.object));
  CHECK(json::parse(whole.object)["output"].size() == 3);
}

TEST_CASE("Responses: an answer that was cut off is incomplete, with what there is", "[responses]") {
  Turn turn = SaysText("too lo");
  turn.finish = TurnFinish::kLength;
  const Streamed streamed = Stream({turn}, {});
  CHECK(streamed.types().back() == "response.incomplete");
  const json object = json::parse(streamed.object);
  CHECK(object["status"] == "incomplete");
  CHECK(object["incomplete_details"]["reason"] == "max_output_tokens");
  CHECK(object["output"][0]["status"] == "incomplete");

  RunRequest circles{.tools = {Says("calculator", {.text = "4"})}};
  circles.limits.max_tool_calls = 1;
  const Streamed limited = Stream({MakesCalls({{"c", "calculator", "{}"}})}, circles);
  CHECK(json::parse(limited.object)["incomplete_details"]["reason"] == "max_tool_calls");
}

TEST_CASE("Responses: a failure is an error, then a failed response with a code that clients know", "[responses]") {
  const auto fail = [](const absl::Status& status) {
    const Streamed streamed = Stream({Turn{.status = status, .text = "half"}}, {});
    const std::vector<std::string> types = streamed.types();
    CHECK(types[types.size() - 2] == "error");
    CHECK(types.back() == "response.failed");
    const json object = json::parse(streamed.object);
    CHECK(object["status"] == "failed");
    CHECK(object["output"][0]["content"][0]["text"] == "half");
    CHECK(streamed.events[types.size() - 2]["code"] == object["error"]["code"]);
    return object["error"]["code"].get<std::string>();
  };
  CHECK(fail(ParamError("input", "too long", "context_length_exceeded")) == "context_length_exceeded");
  CHECK(fail(absl::ResourceExhaustedError("full")) == "rate_limit_exceeded");
  CHECK(fail(absl::InternalError("lost")) == "server_error");
  CHECK(fail(absl::InvalidArgumentError("template")) == "invalid_prompt");
}

TEST_CASE("Responses: an answer of nothing is a message of nothing", "[responses]") {
  const Streamed streamed = Stream({SaysText("")}, {});
  const json output = json::parse(streamed.object)["output"];
  REQUIRE(output.size() == 1);
  CHECK(output[0]["content"][0]["text"] == "");
  CHECK(Listen(streamed.events) == output);
}

}  // namespace
}  // namespace millrace
