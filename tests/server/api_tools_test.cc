// SPDX-License-Identifier: Apache-2.0
// Tools, reasoning and structure in chats over a scripted engine.
#include "tests/server/api_fixture.h"

namespace millrace {
namespace {

using nlohmann::json;

TEST_CASE("Chat: parts, tools and template switches reach the template", "[api]") {
  ApiFixture f;
  const json parts = {{{"type", "text"}, {"text", "a"}}, {{"type", "text"}, {"text", "b"}}};
  const json tool = {{"type", "function"}, {"function", {{"name", "f"}, {"parameters", json::object()}}}};
  json body = {{"messages", {{{"role", "user"}, {"content", parts}}}}, {"tools", {tool}}};
  const auto text_of = [&](const json& request) {
    const JsonReply tokens = f.Post("/tokenize", request);
    REQUIRE(tokens.status == 200);
    return f.Post("/detokenize", {{"tokens", tokens.json["tokens"]}}).json["prompt"].get<std::string>();
  };
  CHECK(text_of(body).find("[1 tools]") != std::string::npos);
  CHECK(text_of(body).find("<|assistant|>") != std::string::npos);
  body["tool_choice"] = "none";
  body["add_generation_prompt"] = false;
  CHECK(text_of(body).find("tools]") == std::string::npos);
  CHECK(text_of(body).find("<|assistant|>") == std::string::npos);
}

TEST_CASE("Chat: tools and template switches keep the order of their keys", "[api]") {
  ApiFixture f;
  const std::string tool =
      R"({"type": "function", "function": {"name": "f", "description": "d", "parameters": {"z": 1, "a": 2}}})";
  const std::string body = R"({"messages": [{"role": "user", "content": "x"}], "tools": [)" + tool +
                           R"(], "chat_template_kwargs": {"shows_tools": {"y": 1, "b": 2}}})";
  const JsonReply tokens = f.Call("POST", "/tokenize", body);
  REQUIRE(tokens.status == 200);
  const std::string text = f.Post("/detokenize", {{"tokens", tokens.json["tokens"]}}).json["prompt"];
  CHECK(text.find("[" + tool + "]" + R"({"y": 1, "b": 2})") != std::string::npos);
}

TEST_CASE("Chat: arguments of earlier calls that came as an object keep the order of their keys", "[api]") {
  ApiFixture f;
  const std::string body = R"({"messages": [{"role": "user", "content": "x"}, {"role": "assistant", "tool_calls": [
      {"type": "function", "function": {"name": "f", "arguments": "{\"t\": 1, \"c\": 2}"}},
      {"type": "function", "function": {"name": "f", "arguments": {"z": 1, "a": {"y": 2, "b": [3]}}}}]}],
      "chat_template_kwargs": {"shows_calls": true}})";
  const JsonReply tokens = f.Call("POST", "/tokenize", body);
  REQUIRE(tokens.status == 200);
  const std::string text = f.Post("/detokenize", {{"tokens", tokens.json["tokens"]}}).json["prompt"];
  CHECK(text.find(R"({"t": 1, "c": 2}{"z": 1, "a": {"y": 2, "b": [3]}})") != std::string::npos);
}

TEST_CASE("Chat: calls of offered tools become tool_calls, whole and streamed", "[api]") {
  const std::string answer =
      "Let me see. <tool_call>\n{\"name\": \"f\", \"arguments\": {\"z\": 1, \"a\": [2]}}\n</tool_call>\n"
      "<tool_call>{\"name\": \"g\", \"arguments\": {}}</tool_call>";
  ApiFixture f({.answer = answer});
  const json tool = {{"type", "function"}, {"function", {{"name", "f"}, {"parameters", json::object()}}}};
  const JsonReply whole = f.Post("/v1/chat/completions", ChatBody({{"tools", {tool}}, {"max_tokens", 400}}));
  REQUIRE(whole.status == 200);
  const json& choice = whole.json["choices"][0];
  CHECK(choice["finish_reason"] == "tool_calls");
  CHECK(choice["message"]["content"] == "Let me see.");
  const json& calls = choice["message"]["tool_calls"];
  REQUIRE(calls.size() == 2);
  CHECK(calls[0]["type"] == "function");
  CHECK(calls[0]["function"]["name"] == "f");
  CHECK(calls[0]["function"]["arguments"] == R"({"z": 1, "a": [2]})");
  CHECK(calls[1]["function"]["arguments"] == "{}");
  CHECK(calls[0]["id"].get<std::string>().size() == 9);
  CHECK(calls[0]["id"] != calls[1]["id"]);

  std::string content, finish;
  json streamed = json::array();
  for (const std::string& event :
       f.Stream("/v1/chat/completions", ChatBody({{"tools", {tool}}, {"max_tokens", 400}, {"stream", true}}))) {
    if (event == "[DONE]") continue;
    const json chunk = json::parse(event)["choices"][0];
    if (chunk["delta"].contains("content")) content += chunk["delta"]["content"];
    if (chunk["delta"].contains("tool_calls")) {
      for (const json& call : chunk["delta"]["tool_calls"]) streamed.push_back(call);
    }
    if (!chunk["finish_reason"].is_null()) finish = chunk["finish_reason"];
  }
  CHECK(content == "Let me see.");
  CHECK(finish == "tool_calls");
  REQUIRE(streamed.size() == 2);
  for (size_t i = 0; i < 2; ++i) {
    CHECK(streamed[i]["index"] == i);
    CHECK(streamed[i]["function"] == calls[i]["function"]);
  }
}

TEST_CASE("Chat: without tools, or cut off, a call is text", "[api]") {
  const std::string call = "<tool_call>{\"name\": \"f\", \"arguments\": {}}</tool_call>";
  ApiFixture f({.answer = call});
  const json tool = {{"type", "function"}, {"function", {{"name", "f"}}}};
  const auto choice = [&](const json& more) {
    return f.Post("/v1/chat/completions", ChatBody(more)).json["choices"][0];
  };
  CHECK(choice({{"max_tokens", 400}})["message"]["content"] == call);
  CHECK(choice({{"max_tokens", 400}, {"tools", {tool}}, {"tool_choice", "none"}})["message"]["content"] == call);
  const json cut = choice({{"tools", {tool}}, {"max_tokens", 30}});
  CHECK(cut["finish_reason"] == "length");
  CHECK_FALSE(cut["message"].contains("tool_calls"));
  CHECK(cut["message"]["content"].get<std::string>().find("tool_call") == std::string::npos);
}

TEST_CASE("Chat: reasoning has a field of its own", "[api]") {
  ApiFixture f({.answer = "<think>\nHm. \n</think>\n\nFour."});
  const json message = f.Post("/v1/chat/completions", ChatBody({{"max_tokens", 400}})).json["choices"][0]["message"];
  CHECK(message["content"] == "Four.");
  CHECK(message["reasoning_content"] == "Hm.");
  std::string content, reasoning;
  for (const std::string& event : f.Stream("/v1/chat/completions", ChatBody({{"max_tokens", 400}, {"stream", true}}))) {
    if (event == "[DONE]") continue;
    const json delta = json::parse(event)["choices"][0]["delta"];
    if (delta.contains("content")) content += delta["content"];
    if (delta.contains("reasoning_content")) reasoning += delta["reasoning_content"];
  }
  CHECK(content == "Four.");
  CHECK(reasoning == "Hm.");
}

TEST_CASE("Chat: an answer in JSON is content from its first byte", "[api]") {
  ApiFixture f({.answer = R"({"t": "</think>"})"});
  const json asked = ChatBody({{"max_tokens", 400},
                               {"response_format", {{"type", "json_object"}}},
                               {"messages", {{{"role", "user"}, {"content", "Answer in JSON. <think>"}}}},
                               {"add_generation_prompt", false}});
  const json message = f.Post("/v1/chat/completions", asked).json["choices"][0]["message"];
  CHECK(message["content"] == R"({"t": "</think>"})");
  CHECK_FALSE(message.contains("reasoning_content"));
}

TEST_CASE("Chat: calls are constrained where tools are offered, with one grammar for the same tools", "[api]") {
  ApiFixture f;
  const auto post = [&](json more, const json& parameters) {
    more["tools"] = {{{"type", "function"}, {"function", {{"name", "f"}, {"parameters", parameters}}}}};
    return f.Post("/v1/chat/completions", ChatBody(std::move(more))).status;
  };
  const json object = {{"type", "object"}}, hopeless = {{"oneOf", json::array()}};
  CHECK(post({}, object) == 200);
  CHECK(post({{"temperature", 0.5}}, object) == 200);
  CHECK(post({{"parallel_tool_calls", false}}, object) == 200);
  CHECK(post({{"tool_choice", "required"}}, object) == 200);
  CHECK(post({{"tool_choice", "none"}}, object) == 200);
  CHECK(post({}, hopeless) == 200);
  CHECK(post({{"tool_choice", "required"}}, hopeless) == 400);
  const std::vector<Request> requests = f.engine->submitted();
  REQUIRE(requests.size() == 6);
  CHECK(requests[0].grammar != nullptr);
  CHECK(requests[1].grammar == requests[0].grammar);
  CHECK(requests[2].grammar != requests[0].grammar);
  CHECK(requests[3].grammar != requests[0].grammar);
  CHECK(requests[4].grammar == nullptr);
  CHECK(requests[5].grammar != nullptr);
}

TEST_CASE("Structured output: each choice gets the schema's grammar, and plain text gets none", "[api]") {
  ApiFixture f({.answer = "{}"});
  const json object = {{"type", "json_object"}};
  const json schema = {{"type", "json_schema"}, {"json_schema", {{"name", "s"}, {"schema", {{"type", "object"}}}}}};
  CHECK(
      f.Post("/v1/chat/completions", ChatBody({{"response_format", schema}, {"n", 2}, {"ignore_eos", true}})).status ==
      200);
  CHECK(f.Post("/v1/completions", {{"prompt", "a"}, {"response_format", object}}).status == 200);
  CHECK(f.Post("/v1/chat/completions", ChatBody({{"response_format", {{"type", "text"}}}})).status == 200);
  const std::vector<Request> requests = f.engine->submitted();
  REQUIRE(requests.size() == 4);
  CHECK(requests[0].grammar != nullptr);
  CHECK(requests[0].grammar == requests[1].grammar);
  CHECK_FALSE(requests[0].ignore_eos);  // the grammar says where the answer ends
  CHECK_FALSE(requests[0].stop_token_ids.empty());
  CHECK(requests[2].grammar != nullptr);
  CHECK(requests[3].grammar == nullptr);
}

}  // namespace
}  // namespace millrace
