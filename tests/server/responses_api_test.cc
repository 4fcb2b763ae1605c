// SPDX-License-Identifier: Apache-2.0
// The Responses API over a scripted engine: from a client's bytes to the stored object.
#include "tests/server/api_fixture.h"

namespace millrace {
namespace {

using nlohmann::json;

constexpr char kCall[] = R"(<tool_call>{"name": "calculator", "arguments": {"expression": "6*7"}}</tool_call>)";
const json kServerTools = {{{"type", "mcp"}, {"server_label", "millrace"}}};

json Body(const json& more = json::object()) {
  json body = {{"model", "fake"}, {"input", "hi"}};
  body.update(more);
  return body;
}

// What the engine was asked, as text.
std::string Asked(const Request& request) {
  std::string text;
  for (const int32_t token : request.prompt_tokens) text += token < 256 ? static_cast<char>(token) : '|';
  return text;
}

// Calls the calculator, and once it sees the result says so.
FakeEngine::Options CallsCalculator() {
  FakeEngine::Options options;
  options.script = [](const Request& request, int32_t position) {
    const std::string answer = Asked(request).find("42") == std::string::npos ? kCall : "it is 42";
    return position < static_cast<int32_t>(answer.size()) ? answer[static_cast<size_t>(position)] : kFakeEos;
  };
  return options;
}

TEST_CASE("Responses API: a whole answer is the object that GET gives back", "[responses_api]") {
  ApiFixture f({.num_cached_tokens = 2});
  const JsonReply reply = f.Post("/v1/responses", Body({{"metadata", {{"k", "v"}}}, {"unknown", 1}}));
  INFO(reply.body);
  REQUIRE(reply.status == 200);
  CHECK(reply.json["object"] == "response");
  CHECK(reply.json["status"] == "completed");
  CHECK(reply.json["model"] == "fake");
  CHECK(reply.json["output"][0]["content"][0]["text"] == "Hello, world!");
  CHECK(reply.json["usage"]["input_tokens"] == 4);
  CHECK(reply.json["usage"]["input_tokens_details"]["cached_tokens"] == 2);
  CHECK(reply.json["metadata"]["k"] == "v");
  for (const char* name :
       {"parallel_tool_calls", "temperature", "top_p", "tool_choice", "truncation", "background", "service_tier",
        "tools", "presence_penalty", "frequency_penalty", "top_logprobs", "text", "reasoning", "store"}) {
    INFO(name);
    CHECK((reply.json.contains(name) && !reply.json[name].is_null()));
  }
  for (const char* name : {"error", "incomplete_details", "instructions", "max_output_tokens", "max_tool_calls",
                           "previous_response_id", "safety_identifier", "prompt_cache_key"}) {
    INFO(name);
    CHECK((reply.json.contains(name) && reply.json[name].is_null()));
  }
  CHECK(f.Get("/v1/responses/" + reply.json["id"].get<std::string>()).json == reply.json);
}

TEST_CASE("Responses API: a stream's ids are those of the stored object", "[responses_api]") {
  ApiFixture f(CallsCalculator());
  const std::vector<std::string> events = f.Stream("/v1/responses", Body({{"stream", true}, {"tools", kServerTools}}));
  REQUIRE(events.size() > 5);
  CHECK(events.back() == "[DONE]");
  const json last = json::parse(events[events.size() - 2]);
  CHECK(last["type"] == "response.completed");
  const json stored = f.Get("/v1/responses/" + last["response"]["id"].get<std::string>()).json;
  CHECK(stored == last["response"]);
  json items = json::array();
  for (const std::string& event : events) {
    if (event != "[DONE]" && json::parse(event)["type"] == "response.output_item.done") {
      items.push_back(json::parse(event)["item"]);
    }
  }
  CHECK(items == stored["output"]);
  REQUIRE(stored["output"].size() == 2);
  CHECK(stored["output"][0]["type"] == "mcp_call");
  CHECK(stored["output"][0]["output"] == "42");
  CHECK(stored["output"][1]["content"][0]["text"] == "it is 42");
  CHECK(f.engine->submitted().size() == 2);
}

TEST_CASE("Responses API: a follow-up reads what was said before, calls and results too", "[responses_api]") {
  ApiFixture f(CallsCalculator());
  const json first = f.Post("/v1/responses", Body({{"tools", kServerTools}, {"input", "first"}})).json;
  const json second = f.Post("/v1/responses", Body({{"previous_response_id", first["id"]}, {"input", "second"}})).json;
  CHECK(second["previous_response_id"] == first["id"]);
  const std::string asked = Asked(f.engine->submitted().back());
  INFO(asked);
  const size_t question = asked.find("first"), result = asked.find("42"), again = asked.find("second");
  CHECK(question < result);
  CHECK(result < again);
  CHECK(again != std::string::npos);
  // And a third, of both.
  f.Post("/v1/responses", Body({{"previous_response_id", second["id"]}, {"input", "third"}}));
  CHECK(Asked(f.engine->submitted().back()).find("second") != std::string::npos);
  // By reference as well.
  f.Post("/v1/responses", Body({{"input",
                                 {{{"type", "item_reference"}, {"id", first["output"][1]["id"]}},
                                  {{"role", "user"}, {"content", "fourth"}}}}}));
  CHECK(Asked(f.engine->submitted().back()).find("it is 42") != std::string::npos);
}

TEST_CASE("Responses API: with store false nothing is kept", "[responses_api]") {
  ApiFixture f;
  const json reply = f.Post("/v1/responses", Body({{"store", false}})).json;
  CHECK(reply["store"] == false);
  const std::string id = reply["id"];
  CHECK(f.Get("/v1/responses/" + id).status == 404);
  const JsonReply next = f.Post("/v1/responses", Body({{"previous_response_id", id}}));
  CHECK(next.status == 404);
  CHECK(next.json["error"]["param"] == "previous_response_id");
  CHECK(next.json["error"]["code"] == "previous_response_not_found");
}

TEST_CASE("Responses API: another tenant's responses do not exist", "[responses_api]") {
  ApiFixture f;
  REQUIRE(f.keys.AddText("key-a alpha\nkey-b beta\n", "keys").ok());
  const auto as = [&f](const char* key, const char* method, const std::string& path, const json& body = {}) {
    return f.Call(method, path, body.is_null() ? "" : body.dump(), absl::StrCat("Authorization: Bearer ", key, "\r\n"));
  };
  const json mine = as("key-a", "POST", "/v1/responses", Body()).json;
  const std::string path = "/v1/responses/" + mine["id"].get<std::string>();
  CHECK(as("key-b", "GET", path).status == 404);
  CHECK(as("key-b", "GET", path + "/input_items").status == 404);
  CHECK(as("key-b", "POST", path + "/cancel").status == 404);
  CHECK(as("key-b", "DELETE", path).status == 404);
  CHECK(as("key-b", "POST", "/v1/responses", Body({{"previous_response_id", mine["id"]}})).status == 404);
  CHECK(as("key-b", "POST", "/v1/responses",
           Body({{"input", {{{"type", "item_reference"}, {"id", mine["output"][0]["id"]}}}}}))
            .status == 404);
  // The words are those for what never was.
  const std::string never = "/v1/responses/resp_" + std::string(32, '0');
  std::string theirs = as("key-b", "GET", path).json["error"]["message"];
  std::string nobodys = as("key-b", "GET", never).json["error"]["message"];
  theirs.replace(theirs.find(mine["id"]), mine["id"].get<std::string>().size(), "ID");
  nobodys.replace(nobodys.find("resp_"), 37, "ID");
  CHECK(theirs == nobodys);
  CHECK(as("key-a", "GET", path).status == 200);
}

TEST_CASE("Responses API: deleting, listing the input, cancelling", "[responses_api]") {
  ApiFixture f;
  const json input = {{{"role", "user"}, {"content", "one"}},
                      {{"role", "assistant"}, {"content", "two"}},
                      {{"role", "user"}, {"content", "three"}}};
  const json reply = f.Post("/v1/responses", Body({{"input", input}})).json;
  const std::string path = "/v1/responses/" + reply["id"].get<std::string>();
  const json newest_first = f.Get(path + "/input_items").json;
  CHECK(newest_first["object"] == "list");
  REQUIRE(newest_first["data"].size() == 3);
  CHECK(newest_first["data"][0]["content"][0]["text"] == "three");
  CHECK(newest_first["has_more"] == false);
  const json page = f.Get(path + "/input_items?order=asc&limit=2").json;
  CHECK(page["data"][0]["content"][0]["text"] == "one");
  CHECK(page["has_more"] == true);
  const json rest = f.Get(path + "/input_items?order=asc&after=" + page["last_id"].get<std::string>()).json;
  REQUIRE(rest["data"].size() == 1);
  CHECK(rest["data"][0]["content"][0]["text"] == "three");
  CHECK(f.Get(path + "/input_items?after=none").json["data"].empty());
  CHECK(f.Get(path + "/input_items?limit=0").status == 400);
  CHECK(f.Get(path + "/input_items?limit=1000000000000").status == 400);
  CHECK(f.Get(path + "/input_items?order=up").status == 400);
  CHECK(f.Get(path + "?stream=true").status == 400);
  CHECK(f.Call("POST", path + "/cancel").status == 400);
  CHECK(f.Call("POST", path).status == 404);
  CHECK(f.Call("GET", path + "/more").status == 404);
  CHECK(f.Call("PUT", path).status == 405);
  const JsonReply deleted = f.Call("DELETE", path);
  CHECK(deleted.json["deleted"] == true);
  CHECK(f.Get(path).status == 404);
  CHECK(f.Call("DELETE", path).status == 404);
  CHECK(f.Get("/v1/responses/" + std::string(5000, 'x')).status == 404);
}

TEST_CASE("Responses API: what cannot run is an error of HTTP, even of a stream", "[responses_api]") {
  ApiFixture f({.max_model_tokens = 20, .max_running = 0});
  const JsonReply full = f.Post("/v1/responses", Body({{"stream", true}}));
  CHECK(full.status == 429);
  CHECK(full.json["error"]["code"] == "rate_limit_exceeded");
  const json long_input = std::string(30, 'x');
  const JsonReply whole = f.Post("/v1/responses", Body({{"input", long_input}}));
  CHECK(whole.status == 400);
  CHECK(whole.json["error"]["code"] == "context_length_exceeded");
  CHECK(whole.json["error"]["param"] == "input");
  CHECK(f.Post("/v1/responses", Body({{"model", "nobody"}})).status == 404);
  const JsonReply tool = f.Post("/v1/responses", Body({{"tools", {{{"type", "code_interpreter"}}}}}));
  CHECK(tool.status == 400);
  CHECK(tool.json["error"]["param"] == "tools");
  const JsonReply label = f.Post("/v1/responses", Body({{"tools", {{{"type", "mcp"}, {"server_label", "x"}}}}}));
  CHECK(label.status == 400);
}

TEST_CASE("Responses API: a prompt that is too long is told in the stream, where agents look for it",
          "[responses_api]") {
  ApiFixture f({.max_model_tokens = 20});
  const auto events = f.Stream("/v1/responses", Body({{"stream", true}, {"input", std::string(30, 'x')}}));
  REQUIRE(events.size() == 5);
  CHECK(json::parse(events[0])["type"] == "response.created");
  CHECK(json::parse(events[2])["type"] == "error");
  const json failed = json::parse(events[3]);
  CHECK(failed["type"] == "response.failed");
  CHECK(failed["response"]["error"]["code"] == "context_length_exceeded");
}

TEST_CASE("Responses API: a client that hangs up ends its run", "[responses_api]") {
  ApiFixture f({.answer = std::string(5000, 'a'), .max_model_tokens = 10000, .step_time = absl::Milliseconds(1)});
  for (const bool is_stream : {true, false}) {
    RawClient client(f.server->port());
    client.Send(ApiFixture::Bytes("POST", "/v1/responses", Body({{"stream", is_stream}}).dump()));
    REQUIRE(f.engine->WaitRunning(1));
    if (is_stream) client.ReadUntilText("response.output_text.delta");
    client.Reset();
    CHECK(f.engine->WaitRunning(0));
  }
  CHECK(f.engine->num_cancelled() == 2);
}

TEST_CASE("Responses API: an engine that fails in the middle fails the response", "[responses_api]") {
  ApiFixture f({.script = [](const Request&, int32_t position) { return position < 3 ? 'a' : -1; }});
  const auto events = f.Stream("/v1/responses", Body({{"stream", true}}));
  const json failed = json::parse(events[events.size() - 2]);
  CHECK(failed["type"] == "response.failed");
  CHECK(failed["response"]["error"]["code"] == "server_error");
  CHECK(failed["response"]["output"][0]["content"][0]["text"] == "aaa");
}

TEST_CASE("Responses API: limits of the request hold, and the answer says so", "[responses_api]") {
  ApiFixture f;
  const json cut = f.Post("/v1/responses", Body({{"max_output_tokens", 5}})).json;
  CHECK(cut["status"] == "incomplete");
  CHECK(cut["incomplete_details"]["reason"] == "max_output_tokens");
  CHECK(cut["output"][0]["content"][0]["text"] == "Hello");
  CHECK(cut["max_output_tokens"] == 5);
  ApiFixture g(CallsCalculator());
  const json none = g.Post("/v1/responses", Body({{"tools", kServerTools}, {"max_tool_calls", 0}})).json;
  CHECK(none["incomplete_details"]["reason"] == "max_tool_calls");
}

TEST_CASE("Responses API: the tokens of a prompt can be counted before it is sent", "[responses_api]") {
  ApiFixture f;
  const JsonReply counted = f.Post("/v1/responses/input_tokens", Body());
  CHECK(counted.json["object"] == "response.input_tokens");
  CHECK(counted.json["input_tokens"] == f.Post("/v1/responses", Body()).json["usage"]["input_tokens"]);
}

// ---- Anthropic's ------------------------------------------------------------------------------------------------

json MessagesBody(const json& more = json::object()) {
  json body = {{"model", "fake"}, {"max_tokens", 50}, {"messages", {{{"role", "user"}, {"content", "hi"}}}}};
  body.update(more);
  return body;
}

TEST_CASE("Messages API: whole and streamed answers say the same", "[messages_api]") {
  ApiFixture f({.num_cached_tokens = 2});
  const JsonReply whole = f.Post("/v1/messages", MessagesBody());
  INFO(whole.body);
  REQUIRE(whole.status == 200);
  CHECK(whole.json["type"] == "message");
  CHECK(whole.json["content"][0]["text"] == "Hello, world!");
  CHECK(whole.json["stop_reason"] == "end_turn");
  CHECK(whole.json["usage"]["input_tokens"] == 2);
  CHECK(whole.json["usage"]["cache_read_input_tokens"] == 2);
  const auto events = f.Stream("/v1/messages", MessagesBody({{"stream", true}}));
  std::string text;
  for (const std::string& event : events) {
    const json parsed = json::parse(event);
    if (parsed["type"] == "content_block_delta") text += parsed["delta"]["text"];
  }
  CHECK(text == "Hello, world!");
  const json start = json::parse(events.front());
  CHECK(start["type"] == "message_start");
  CHECK(start["message"]["usage"]["input_tokens"] == 4);
  CHECK(json::parse(events.back())["type"] == "message_stop");
  CHECK(json::parse(events[events.size() - 2])["usage"] == whole.json["usage"]);
}

TEST_CASE("Messages API: a call, its result, a stop sequence", "[messages_api]") {
  ApiFixture f(CallsCalculator());
  json body = MessagesBody(
      {{"max_tokens", 200}, {"tools", {{{"name", "calculator"}, {"input_schema", {{"type", "object"}}}}}}});
  const json first = f.Post("/v1/messages", body).json;
  CHECK(first["stop_reason"] == "tool_use");
  REQUIRE(first["content"].size() == 1);
  CHECK(first["content"][0]["input"]["expression"] == "6*7");
  body["messages"].push_back({{"role", "assistant"}, {"content", first["content"]}});
  body["messages"].push_back(
      {{"role", "user"},
       {"content", {{{"type", "tool_result"}, {"tool_use_id", first["content"][0]["id"]}, {"content", "42"}}}}});
  body["stop_sequences"] = {" 42"};
  const json second = f.Post("/v1/messages", body).json;
  CHECK(second["content"][0]["text"] == "it is");
  CHECK(second["stop_reason"] == "stop_sequence");
  CHECK(second["stop_sequence"] == " 42");
}

TEST_CASE("Messages API: errors have Anthropic's shape, on every way out", "[messages_api]") {
  ApiFixture f({.max_model_tokens = 20});
  const auto check = [](const JsonReply& reply, int status, const char* type) {
    INFO(reply.body);
    CHECK(reply.status == status);
    CHECK(reply.json["type"] == "error");
    CHECK(reply.json["error"]["type"] == type);
    CHECK(!reply.json["error"]["message"].get<std::string>().empty());
    CHECK(reply.json["request_id"].is_string());
  };
  check(f.Post("/v1/messages", {{"model", "fake"}}), 400, "invalid_request_error");
  check(f.Call("POST", "/v1/messages", "{"), 400, "invalid_request_error");
  check(f.Post("/v1/messages", MessagesBody({{"model", "nobody"}})), 404, "not_found_error");
  check(f.Get("/v1/messages"), 405, "invalid_request_error");
  check(f.Post("/v1/messages/batches", {}), 404, "not_found_error");
  const JsonReply too_long =
      f.Post("/v1/messages",
             MessagesBody({{"stream", true}, {"messages", {{{"role", "user"}, {"content", std::string(40, 'x')}}}}}));
  check(too_long, 400, "invalid_request_error");
  CHECK(too_long.json["error"]["message"].get<std::string>().find("prompt is too long") == 0);
  CHECK(too_long.json["error"]["details"]["error_code"] == "context_length_exceeded");
  REQUIRE(f.keys.AddKey("right").ok());
  check(f.Post("/v1/messages", MessagesBody()), 401, "authentication_error");
  CHECK(f.Call("POST", "/v1/messages", MessagesBody({{"max_tokens", 3}}).dump(),
               "x-api-key: right\r\nanthropic-version: 2023-06-01\r\n")
            .status == 200);
}

TEST_CASE("Messages API: a failure in the middle of a stream is an error event", "[messages_api]") {
  ApiFixture f({.script = [](const Request&, int32_t position) { return position < 3 ? 'a' : -1; }});
  const auto events = f.Stream("/v1/messages", MessagesBody({{"stream", true}}));
  const json last = json::parse(events.back());
  CHECK(last["type"] == "error");
  CHECK(last["error"]["type"] == "api_error");
}

TEST_CASE("Messages API: a count is that of the prompt", "[messages_api]") {
  ApiFixture f;
  const json counted =
      f.Post("/v1/messages/count_tokens", {{"model", "fake"}, {"messages", {{{"role", "user"}, {"content", "hi"}}}}})
          .json;
  CHECK(counted["input_tokens"] == 4);
  CHECK(f.Post("/v1/messages/count_tokens", {{"model", "fake"}}).json["type"] == "error");
}

}  // namespace
}  // namespace millrace
