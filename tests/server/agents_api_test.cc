// SPDX-License-Identifier: Apache-2.0
// Agents of the operator's behind OpenAI's and Anthropic's routes, over a scripted engine.
#include "absl/strings/match.h"
#include "tests/server/api_fixture.h"

namespace millrace {
namespace {

using nlohmann::json;

constexpr char kAgents[] = R"(
agents:
- name: sums
  description: Adds up.
  instructions: Add up.
  tools: [calculator]
  sampling: {temperature: 0}
  limits: {max_turns: 3, max_output_tokens: 400}
- name: theirs
  instructions: Of tenant a alone.
  tenants: [a]
)";
constexpr char kCall[] = R"(<tool_call>{"name": "calculator", "arguments": {"expression": "6*7"}}</tool_call>)";
constexpr char kLookUp[] = R"(<tool_call>{"name": "look_up", "arguments": {"key": "x"}}</tool_call>)";

// What the engine was asked, as text.
std::string Asked(const Request& request) {
  std::string text;
  for (const int32_t token : request.prompt_tokens) text += token < 256 ? static_cast<char>(token) : '|';
  return text;
}

FakeEngine::Options Says(const std::string& first, const std::string& after_result) {
  FakeEngine::Options options;
  options.max_model_tokens = 4000;
  options.script = [=](const Request& request, int32_t position) {
    const std::string answer = absl::StrContains(Asked(request), "42") ? after_result : first;
    return position < static_cast<int32_t>(answer.size()) ? answer[static_cast<size_t>(position)] : kFakeEos;
  };
  return options;
}

struct AgentsFixture : ApiFixture {
  explicit AgentsFixture(const FakeEngine::Options& options = Says(std::string("so: ") + kCall, "it is 42"))
      : ApiFixture(options) {
    const absl::Status status = DefineAgents(kAgents);
    REQUIRE(status.ToString() == "OK");
  }
};

const json kFunctions = {
    {{"type", "function"}, {"function", {{"name", "look_up"}, {"parameters", {{"type", "object"}}}}}}};

TEST_CASE("Agents API: a list, one of it, and among the models", "[agents_api]") {
  AgentsFixture f;
  const json list = f.Get("/v1/agents").json;
  CHECK(list["object"] == "list");
  REQUIRE(list["data"].size() == 1);
  const json& sums = list["data"][0];
  CHECK(sums["id"] == "sums");
  CHECK(sums["object"] == "agent");
  CHECK(sums["description"] == "Adds up.");
  CHECK(sums["model"] == "fake");
  CHECK(sums["tools"][0]["name"] == "calculator");
  CHECK(sums["limits"]["max_turns"] == 3);
  CHECK(sums["limits"]["max_output_tokens"] == 400);
  CHECK_FALSE(sums["limits"].contains("max_total_tokens"));
  CHECK(f.Get("/v1/agents/sums").json == sums);
  CHECK_FALSE(absl::StrContains(f.Get("/v1/agents").body, "Add up."));
  CHECK(f.Get("/v1/agents/nobody").status == 404);
  CHECK(f.Get("/v1/agents/" + std::string(5000, 'x')).status == 404);
  CHECK(f.Call("DELETE", "/v1/agents/sums").status == 405);
  const json models = f.Get("/v1/models").json["data"];
  REQUIRE(models.size() == 3);
  CHECK(models[0]["owned_by"] == "millrace");
  CHECK(models[2]["id"] == "sums");
  CHECK(models[2]["owned_by"] == "agent");
  CHECK(f.Get("/v1/models/sums").json == models[2]);
}

TEST_CASE("Agents API: an agent of others does not exist, in the very words", "[agents_api]") {
  AgentsFixture f;
  REQUIRE(f.keys.AddText("key-a a\nkey-b b\n", "keys").ok());
  const auto as = [&f](const char* key, const char* method, const std::string& path, const json& body = {}) {
    return f.Call(method, path, body.is_null() ? "" : body.dump(), absl::StrCat("Authorization: Bearer ", key, "\r\n"));
  };
  CHECK(as("key-a", "GET", "/v1/agents").json["data"].size() == 2);
  CHECK(as("key-b", "GET", "/v1/agents").json["data"].size() == 1);
  CHECK(as("key-a", "GET", "/v1/agents/theirs").status == 200);
  CHECK(as("key-b", "GET", "/v1/models").json["data"].size() == 3);
  const json messages = {{{"role", "user"}, {"content", "hi"}}};
  const std::pair<const char*, json> asks[] = {
      {"/v1/chat/completions", {{"messages", messages}}},
      {"/v1/responses", {{"input", "hi"}}},
      {"/v1/responses/input_tokens", {{"input", "hi"}}},
      {"/v1/messages", {{"messages", messages}, {"max_tokens", 9}}},
      {"/v1/messages/count_tokens", {{"messages", messages}}},
  };
  const auto check = [&](const char* method, const std::string& path, json body, json nobodys_body,
                         const std::string& nobodys_path) {
    INFO(path);
    const JsonReply theirs = as("key-b", method, path, body);
    JsonReply nobodys = as("key-b", method, nobodys_path, nobodys_body);
    CHECK(theirs.status == 404);
    CHECK(as("key-a", method, path, body).status == 200);
    std::string message = nobodys.json["error"]["message"];
    message.replace(message.find("nobody"), 6, "theirs");
    CHECK(theirs.json["error"]["message"] == message);
  };
  check("GET", "/v1/agents/theirs", {}, {}, "/v1/agents/nobody");
  check("GET", "/v1/models/theirs", {}, {}, "/v1/models/nobody");
  for (auto [path, body] : asks) {
    json other = body;
    body["model"] = "theirs";
    other["model"] = "nobody";
    check("POST", path, body, other, path);
  }
}

TEST_CASE("Agents API: a chat with an agent runs its tools, and streams and whole say the same", "[agents_api]") {
  AgentsFixture f;
  const JsonReply whole = f.Post("/v1/chat/completions", ChatBody({{"model", "sums"}}));
  INFO(whole.body);
  REQUIRE(whole.status == 200);
  CHECK(whole.json["object"] == "chat.completion");
  CHECK(whole.json["model"] == "sums");
  const json& choice = whole.json["choices"][0];
  const std::string said = choice["message"]["content"];
  CHECK(absl::StartsWith(said, "so:"));
  CHECK(absl::EndsWith(said, "\n\nit is 42"));
  CHECK_FALSE(choice["message"].contains("tool_calls"));
  CHECK(choice["finish_reason"] == "stop");
  const std::vector<Request> asked = f.engine->submitted();
  REQUIRE(asked.size() == 2);
  CHECK(absl::StrContains(Asked(asked[0]), "Add up."));
  CHECK(asked[0].sampling.temperature == 0.0f);
  const auto num_prompt_tokens = static_cast<int64_t>(asked[0].prompt_tokens.size() + asked[1].prompt_tokens.size());
  CHECK(whole.json["usage"]["prompt_tokens"] == num_prompt_tokens);

  const auto events =
      f.Stream("/v1/chat/completions",
               ChatBody({{"model", "sums"}, {"stream", true}, {"stream_options", {{"include_usage", true}}}}));
  REQUIRE(events.size() > 4);
  CHECK(events.back() == "[DONE]");
  std::string text;
  json finish, usage;
  for (const std::string& event : events) {
    if (event == "[DONE]") continue;
    const json chunk = json::parse(event);
    CHECK(chunk["object"] == "chat.completion.chunk");
    CHECK(chunk["model"] == "sums");
    if (chunk["choices"].empty()) {
      usage = chunk["usage"];
      continue;
    }
    CHECK(chunk["usage"].is_null());
    CHECK_FALSE(chunk["choices"][0]["delta"].contains("tool_calls"));
    text += chunk["choices"][0]["delta"].value("content", "");
    if (!chunk["choices"][0]["finish_reason"].is_null()) finish = chunk["choices"][0]["finish_reason"];
  }
  CHECK(text == said);
  CHECK(finish == "stop");
  CHECK(usage == whole.json["usage"]);
}

TEST_CASE("Agents API: a chat hands out the client's own calls, and limits say what they were", "[agents_api]") {
  AgentsFixture f(Says(kLookUp, ""));
  const json body = ChatBody({{"model", "sums"}, {"tools", kFunctions}});
  const json choice = f.Post("/v1/chat/completions", body).json["choices"][0];
  CHECK(choice["finish_reason"] == "tool_calls");
  CHECK(choice["message"]["content"].is_null());
  REQUIRE(choice["message"]["tool_calls"].size() == 1);
  CHECK(choice["message"]["tool_calls"][0]["function"]["name"] == "look_up");
  json streamed = body;
  streamed["stream"] = true;
  json call;
  for (const std::string& event : f.Stream("/v1/chat/completions", streamed)) {
    if (event == "[DONE]") continue;
    const json delta = json::parse(event)["choices"][0]["delta"];
    if (delta.contains("tool_calls")) call = delta["tool_calls"][0];
  }
  CHECK(call["index"] == 0);
  CHECK(call["function"] == choice["message"]["tool_calls"][0]["function"]);

  AgentsFixture g(Says(kCall, kCall));
  const json circles = g.Post("/v1/chat/completions", ChatBody({{"model", "sums"}})).json["choices"][0];
  CHECK(circles["finish_reason"] == "length");
  CHECK(circles["stop_reason"] == "max_turns");
  CHECK(g.engine->submitted().size() == 3);
  AgentsFixture h(Says("Hello, world!", ""));
  const json cut = h.Post("/v1/chat/completions", ChatBody({{"model", "sums"}, {"max_tokens", 5}})).json["choices"][0];
  CHECK(cut["message"]["content"] == "Hello");
  CHECK(cut["finish_reason"] == "length");
  CHECK(cut["stop_reason"].is_null());
}

TEST_CASE("Agents API: a request may tighten an agent's limits, and not widen them", "[agents_api]") {
  AgentsFixture f(Says(std::string(500, 'a'), ""));
  const auto written = [&f](const char* path, json body, const json::json_pointer& where) {
    body["model"] = "sums";
    return f.Post(path, body).json.at(where).get<int64_t>();
  };
  const json messages = {{{"role", "user"}, {"content", "hi"}}};
  for (const auto& [asked, allowed] : {std::pair{1000, 400}, std::pair{50, 50}}) {
    CHECK(written("/v1/chat/completions", {{"messages", messages}, {"max_tokens", asked}},
                  json::json_pointer("/usage/completion_tokens")) == allowed);
    CHECK(written("/v1/responses", {{"input", "hi"}, {"max_output_tokens", asked}},
                  json::json_pointer("/usage/output_tokens")) == allowed);
    CHECK(written("/v1/messages", {{"messages", messages}, {"max_tokens", asked}},
                  json::json_pointer("/usage/output_tokens")) == allowed);
  }
  CHECK(written("/v1/responses", {{"input", "hi"}}, json::json_pointer("/usage/output_tokens")) == 400);
}

TEST_CASE("Agents API: a response by an agent, and one that goes on from it", "[agents_api]") {
  AgentsFixture f;
  const json first = f.Post("/v1/responses", {{"model", "sums"}, {"input", "hi"}, {"instructions", "Kindly."}}).json;
  INFO(first.dump());
  CHECK(first["model"] == "sums");
  CHECK(first["instructions"] == "Kindly.");
  CHECK_FALSE(absl::StrContains(first.dump(), "Add up."));
  REQUIRE(first["output"].size() == 3);
  CHECK(first["output"][1]["type"] == "mcp_call");
  CHECK(first["output"][1]["server_label"] == "millrace");
  CHECK(first["output"][2]["content"][0]["text"] == "it is 42");
  const std::string asked = Asked(f.engine->submitted().front());
  CHECK(absl::StrContains(asked, "Add up.\n\nKindly."));
  f.Post("/v1/responses", {{"model", "sums"}, {"input", "more"}, {"previous_response_id", first["id"]}});
  const std::string again = Asked(f.engine->submitted().back());
  CHECK(again.find("Add up.") == again.rfind("Add up."));
  CHECK(again.find("Add up.") < again.find("hi"));
  CHECK(absl::StrContains(again, "it is 42"));
  // An agent's tools are its operator's choice.
  const JsonReply more =
      f.Post("/v1/responses",
             {{"model", "sums"}, {"input", "hi"}, {"tools", {{{"type", "mcp"}, {"server_label", "millrace"}}}}});
  CHECK(more.status == 400);
  CHECK(more.json["error"]["param"] == "tools");
}

TEST_CASE("Agents API: a message by an agent shows its calls as those of a server", "[agents_api]") {
  AgentsFixture f;
  const json body = {{"model", "sums"}, {"max_tokens", 500}, {"messages", {{{"role", "user"}, {"content", "hi"}}}}};
  const json message = f.Post("/v1/messages", body).json;
  INFO(message.dump());
  CHECK(message["model"] == "sums");
  REQUIRE(message["content"].size() == 4);
  CHECK(message["content"][1]["type"] == "mcp_tool_use");
  CHECK(message["content"][3]["text"] == "it is 42");
  CHECK(message["stop_reason"] == "end_turn");
}

TEST_CASE("Agents API: counting knows an agent's instructions and tools", "[agents_api]") {
  AgentsFixture f(Says("Hello", ""));
  const json messages = {{{"role", "user"}, {"content", "hi"}}};
  const auto prompt_of = [&f] { return static_cast<int64_t>(f.engine->submitted().back().prompt_tokens.size()); };
  f.Post("/v1/messages", {{"model", "sums"}, {"messages", messages}, {"max_tokens", 9}});
  CHECK(f.Post("/v1/messages/count_tokens", {{"model", "sums"}, {"messages", messages}}).json["input_tokens"] ==
        prompt_of());
  f.Post("/v1/responses", {{"model", "sums"}, {"input", "hi"}});
  CHECK(f.Post("/v1/responses/input_tokens", {{"model", "sums"}, {"input", "hi"}}).json["input_tokens"] == prompt_of());
}

TEST_CASE("Agents API: with tool_choice none an agent's tools are not offered either", "[agents_api]") {
  AgentsFixture f(Says("Hello", ""));
  const json messages = {{{"role", "user"}, {"content", "hi"}}};
  const auto grammar = [&f] { return f.engine->submitted().back().grammar; };
  f.Post("/v1/chat/completions", {{"model", "sums"}, {"messages", messages}});
  CHECK(grammar() != nullptr);
  f.Post("/v1/chat/completions", {{"model", "sums"}, {"messages", messages}, {"tool_choice", "none"}});
  CHECK(grammar() == nullptr);
  f.Post("/v1/responses", {{"model", "sums"}, {"input", "hi"}, {"tool_choice", "none"}});
  CHECK(grammar() == nullptr);
  f.Post("/v1/messages",
         {{"model", "sums"}, {"messages", messages}, {"max_tokens", 9}, {"tool_choice", {{"type", "none"}}}});
  CHECK(grammar() == nullptr);
}

TEST_CASE("Agents API: what a chat with an agent cannot be", "[agents_api]") {
  AgentsFixture f({.answer = "Hello", .max_model_tokens = 60});
  const json calculator = {{{"type", "function"}, {"function", {{"name", "calculator"}}}}};
  for (const json& more :
       {json{{"n", 2}}, json{{"logprobs", true}}, json{{"prompt_logprobs", 1}}, json{{"tools", calculator}}}) {
    json body = ChatBody({{"model", "sums"}});
    body.update(more);
    INFO(body.dump());
    CHECK(f.Post("/v1/chat/completions", body).status == 400);
  }
  for (const bool is_stream : {false, true}) {
    const json body = {{"model", "theirs"},
                       {"stream", is_stream},
                       {"messages", {{{"role", "user"}, {"content", std::string(100, 'x')}}}}};
    REQUIRE(f.DefineAgents("agents: [{name: theirs}]").ok());
    const JsonReply reply = f.Post("/v1/chat/completions", body);
    CHECK(reply.status == 400);
    CHECK(reply.json["error"]["code"] == "context_length_exceeded");
  }
  for (const char* path : {"/v1/completions", "/v1/embeddings", "/tokenize"}) {
    INFO(path);
    CHECK(f.Post(path, {{"model", "theirs"}, {"prompt", "x"}, {"input", "x"}}).status == 404);
  }
}

TEST_CASE("Agents API: a failure in the middle of a chat is told in the stream; who hangs up ends the run",
          "[agents_api]") {
  FakeEngine::Options options;
  options.script = [](const Request&, int32_t position) { return position < 3 ? 'a' : -1; };
  AgentsFixture f(options);
  const auto events = f.Stream("/v1/chat/completions", ChatBody({{"model", "sums"}, {"stream", true}}));
  REQUIRE(events.size() > 2);
  CHECK(events.back() == "[DONE]");
  CHECK(json::parse(events[events.size() - 2])["error"]["code"] == "internal_error");

  AgentsFixture g({.answer = std::string(5000, 'a'), .max_model_tokens = 10000, .step_time = absl::Milliseconds(1)});
  REQUIRE(g.DefineAgents("agents: [{name: sums, tools: [clock]}]").ok());
  for (const bool is_stream : {true, false}) {
    RawClient client(g.server->port());
    const std::string body = ChatBody({{"model", "sums"}, {"stream", is_stream}}).dump();
    client.Send(ApiFixture::Bytes("POST", "/v1/chat/completions", body));
    REQUIRE(g.engine->WaitRunning(1));
    if (is_stream) client.ReadUntilText(R"("content":"a)");
    client.Reset();
    CHECK(g.engine->WaitRunning(0));
  }
  CHECK(g.engine->num_cancelled() == 2);
}

TEST_CASE("Agents API: a file at fault changes nothing, a new one counts at once", "[agents_api]") {
  AgentsFixture f;
  CHECK_FALSE(f.DefineAgents("agents: [{name: other, tools: [shovel]}]").ok());
  CHECK(f.Get("/v1/agents/sums").status == 200);
  REQUIRE(f.DefineAgents("agents: [{name: other}]").ok());
  CHECK(f.Get("/v1/agents/sums").status == 404);
  CHECK(f.Get("/v1/agents/other").status == 200);
}

}  // namespace
}  // namespace millrace
