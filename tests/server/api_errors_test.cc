// SPDX-License-Identifier: Apache-2.0
// What the API refuses and how, and what happens when clients, the engine or the server go away.
#include <thread>

#include "absl/synchronization/notification.h"
#include "tests/server/api_fixture.h"

namespace millrace {
namespace {

using nlohmann::json;

// Status, and the error's param and code.
void CheckRefused(const JsonReply& reply, int status, const std::string& param,
                  const std::string& code = "invalid_value") {
  INFO(reply.body);
  CHECK(reply.status == status);
  REQUIRE(reply.json.is_object());
  REQUIRE(reply.json.contains("error"));
  const json error = reply.json["error"];
  CHECK(error["message"].is_string());
  CHECK(error["type"].is_string());
  CHECK((error["param"].is_null() ? "" : error["param"].get<std::string>()) == param);
  CHECK(error["code"] == code);
}

TEST_CASE("Errors: wrong types and values name their field", "[api]") {
  ApiFixture f;
  const auto refused = [&](json more, const std::string& param, const std::string& code = "invalid_value") {
    INFO(more.dump());
    CheckRefused(f.Post("/v1/chat/completions", ChatBody(std::move(more))), 400, param, code);
  };
  refused({{"temperature", "hot"}}, "temperature", "invalid_type");
  refused({{"temperature", -1}}, "temperature");
  refused({{"top_p", 0}}, "top_p");
  refused({{"top_k", 1.5}}, "top_k", "invalid_type");
  refused({{"n", 0}}, "n");
  refused({{"n", 1e30}}, "n", "invalid_type");
  refused({{"max_tokens", 18446744073709551615ULL}}, "max_tokens");
  refused({{"max_tokens", 0}}, "max_tokens");
  refused({{"stop", {1}}}, "stop", "invalid_type");
  refused({{"stop", json::array({"a", ""})}}, "stop");
  refused({{"stop", std::vector<std::string>(17, "a")}}, "stop");
  refused({{"logit_bias", {{"x", 1}}}}, "logit_bias");
  refused({{"logit_bias", {{"99999", 1}}}}, "logit_bias");
  refused({{"stream", "yes"}}, "stream", "invalid_type");
  refused({{"stream_options", {{"include_usage", true}}}}, "stream_options");
  refused({{"stream", true}, {"stream_options", {{"include_usage", 1}}}}, "stream_options.include_usage",
          "invalid_type");
  refused({{"top_logprobs", 2}}, "top_logprobs");
  refused({{"logprobs", true}, {"top_logprobs", 21}}, "top_logprobs");
  refused({{"messages", json::array()}}, "messages");
  refused({{"messages", "hi"}}, "messages", "invalid_type");
  refused({{"messages", {{{"content", "no role"}}}}}, "messages[0].role", "missing_required_parameter");
  refused({{"messages", {{{"role", "user"}, {"content", 3}}}}}, "messages[0].content", "invalid_type");
  refused({{"messages", {{{"role", "user"}, {"content", {{{"type", "image_url"}}}}}}}}, "messages[0].content.type",
          "unsupported_value");
  refused({{"tools", {{{"type", "function"}}}}}, "tools");
  refused({{"chat_template", "{{ x }}"}}, "chat_template", "unsupported_parameter");
  refused({{"seed", 1.5}}, "seed", "invalid_type");
  refused({{"min_tokens", 20}, {"max_tokens", 10}}, "min_tokens");
  CheckRefused(f.Post("/v1/completions", {{"model", "fake"}}), 400, "prompt", "missing_required_parameter");
  CheckRefused(f.Post("/v1/completions", {{"prompt", {1, "a"}}}), 400, "prompt", "invalid_type");
  CheckRefused(f.Post("/v1/completions", {{"prompt", {-1}}}), 400, "prompt", "invalid_type");
  CheckRefused(f.Post("/v1/completions", {{"prompt", {100000}}}), 400, "prompt");
  CheckRefused(f.Post("/v1/completions", {{"prompt", ""}}), 400, "prompt");
  CheckRefused(f.Post("/v1/completions", {{"prompt", "a"}, {"best_of", 2}, {"stream", true}}), 400, "best_of",
               "unsupported_value");
  CheckRefused(f.Post("/v1/completions", {{"prompt", "a"}, {"suffix", "b"}}), 400, "suffix", "unsupported_parameter");
  CheckRefused(f.Post("/v1/embeddings", {{"input", "a"}, {"encoding_format", "hex"}}), 400, "encoding_format",
               "unsupported_value");
  CheckRefused(f.Post("/v1/chat/completions", ChatBody({{"model", "gpt-9"}})), 404, "model", "model_not_found");
  CheckRefused(f.Post("/v1/chat/completions", {{"model", "fake"}}), 400, "messages", "missing_required_parameter");
  const char* no_text = R"({"messages":[{"role":"user","content":[{"type":"text"}]}]})";
  CheckRefused(f.Call("POST", "/v1/chat/completions", no_text), 400, "messages[0].content.text",
               "missing_required_parameter");
  CHECK(f.engine->submitted().empty());
}

TEST_CASE("Errors: structures and calls that cannot be had name their field", "[api]") {
  ApiFixture f;
  const auto refused = [&](json more, const std::string& param, const std::string& code = "invalid_value") {
    INFO(more.dump());
    CheckRefused(f.Post("/v1/chat/completions", ChatBody(std::move(more))), 400, param, code);
  };
  refused({{"response_format", {{"type", "xml"}}}}, "response_format", "unsupported_value");
  refused({{"response_format", "json_object"}}, "response_format", "invalid_type");
  refused({{"response_format", {{"type", "json_schema"}}}}, "response_format", "missing_required_parameter");
  const json schema = {{"properties", {{"a", {{"oneOf", json::array()}}}}}};
  refused({{"response_format", {{"type", "json_schema"}, {"json_schema", {{"name", "s"}, {"schema", schema}}}}}},
          "response_format", "unsupported_value");
  refused({{"tool_choice", "required"}}, "tool_choice");
  const json tools = {{{"type", "function"}, {"function", {{"name", "f"}}}}};
  refused({{"tools", tools}, {"tool_choice", {{"type", "function"}, {"function", {{"name", "g"}}}}}}, "tool_choice");
  refused({{"tools", tools}, {"tool_choice", {{"type", "function"}}}}, "tool_choice");
  CHECK(f.engine->submitted().empty());
}

TEST_CASE("Errors: prompt log-probabilities have no place in a stream", "[api]") {
  ApiFixture f;
  for (const int count : {0, 2}) {
    json body = ChatBody({{"stream", true}, {"prompt_logprobs", count}, {"prompt", "a"}});
    CheckRefused(f.Post("/v1/chat/completions", body), 400, "prompt_logprobs", "unsupported_value");
    CheckRefused(f.Post("/v1/completions", body), 400, "prompt_logprobs", "unsupported_value");
    body["stream"] = false;
    CHECK(f.Post("/v1/completions", body).status == 200);
  }
}

TEST_CASE("Errors: bodies that are not what they should be", "[api]") {
  ApiFixture f;
  const auto body = [&](const std::string& text) { return f.Call("POST", "/v1/chat/completions", text); };
  CheckRefused(body(""), 400, "", "invalid_json");
  CheckRefused(body("{"), 400, "", "invalid_json");
  CheckRefused(body("[]"), 400, "", "invalid_json");
  CheckRefused(body("{\"messages\":\"\xFF\"}"), 400, "", "invalid_json");
  CheckRefused(body("{\"temperature\":1e999}"), 400, "", "invalid_json");
  CheckRefused(body(std::string(400000, '[')), 400, "", "invalid_json");
  CheckRefused(body("{\"a\":" + std::string(100, '[') + std::string(100, ']') + "}"), 400, "", "invalid_json");
  CheckRefused(body("{\"a\":[" + std::string(3000000, ',') + "]}"), 400, "", "invalid_json");
  CHECK(f.Post("/v1/chat/completions", ChatBody()).status == 200);
}

TEST_CASE("Errors: a context that is too long is told with its numbers", "[api]") {
  ApiFixture f({.max_model_tokens = 20});
  const JsonReply reply = f.Post("/v1/completions", {{"prompt", "0123456789"}, {"max_tokens", 11}});
  CheckRefused(reply, 400, "prompt", "context_length_exceeded");
  const std::string message = reply.json["error"]["message"];
  CHECK(message.find("20 tokens") != std::string::npos);
  CHECK(message.find("21 tokens (10 in the prompt, 11 in the completion)") != std::string::npos);
  CheckRefused(
      f.Post("/v1/chat/completions", ChatBody({{"messages", {{{"role", "user"}, {"content", std::string(30, 'x')}}}}})),
      400, "messages", "context_length_exceeded");
  CHECK(f.Post("/v1/completions", {{"prompt", "0123456789"}, {"max_tokens", 10}}).status == 200);
}

TEST_CASE("Errors: what needs no tokens is refused before any text is tokenised", "[api]") {
  ApiFixture f({.max_model_tokens = 20});
  // The bad token id would be found first if prompts were read first.
  std::vector<std::vector<int32_t>> prompts(129, {97});
  prompts.front() = {100000};
  CheckRefused(f.Post("/v1/completions", {{"prompt", prompts}}), 400, "prompt");
  CHECK(f.Post("/v1/completions", {{"prompt", prompts}}).body.find("at most 128") != std::string::npos);
  CheckRefused(f.Post("/v1/completions", {{"prompt", {{97}, {100000}}}, {"n", 65}}), 400, "n");
  CheckRefused(f.Post("/v1/embeddings", {{"input", prompts}}), 400, "input");
  // A prompt that is too long ends the reading.
  CheckRefused(f.Post("/v1/completions", {{"prompt", {std::vector<int32_t>(30, 97), {100000}}}}), 400, "prompt",
               "context_length_exceeded");
}

TEST_CASE("Errors: a text too long for any tokens is refused by its bytes", "[api]") {
  ApiFixture f({.max_model_tokens = 20});
  // The longest token is <|assistant|>, 13 bytes: 260 bytes could be 20 tokens.
  const auto refused = [&](const std::string& path, const json& body, const std::string& param, const char* unit) {
    const JsonReply reply = f.Post(path, body);
    CheckRefused(reply, 400, param, "context_length_exceeded");
    CHECK(reply.body.find(unit) != std::string::npos);
  };
  const auto chat = [](size_t num_bytes) {
    return json{{"messages", {{{"role", "user"}, {"content", std::string(num_bytes, 'x')}}}}};
  };
  refused("/v1/completions", {{"prompt", std::string(260, 'x')}}, "prompt", "276 tokens");
  refused("/v1/completions", {{"prompt", std::string(261, 'x')}}, "prompt", "261 bytes");
  refused("/v1/embeddings", {{"input", std::string(261, 'x')}}, "input", "261 bytes");
  refused("/v1/chat/completions", chat(200), "messages", "202 tokens");
  refused("/v1/chat/completions", chat(261), "messages", "bytes");
  refused("/tokenize", {{"prompt", std::string(261, 'x')}}, "prompt", "261 bytes");
  refused("/tokenize", chat(261), "messages", "bytes");
  CHECK(f.Post("/tokenize", {{"prompt", std::string(260, 'x')}}).json["count"] == 260);
}

TEST_CASE("Errors: a text on which the tokenizer gives up is the client's fault, not a full queue", "[api]") {
  const std::string plain = R"("pre_tokenizer":{"type":"ByteLevel",)";
  std::string json = ByteTokenizerJson();
  const size_t begin = json.find(plain), end = json.find('}', begin) + 1;
  REQUIRE(begin != std::string::npos);
  json.replace(begin, end - begin,
               R"("pre_tokenizer":{"type":"Sequence","pretokenizers":[)"
               R"({"type":"Split","pattern":{"Regex":"(a+)+$"},"behavior":"Isolated","invert":false},)"
               R"({"type":"ByteLevel","add_prefix_space":false,"trim_offsets":true,"use_regex":false}]})");
  ApiFixture f({.tokenizer_json = json});
  const std::string explosive = std::string(50, 'a') + "b";
  CheckRefused(f.Post("/v1/completions", {{"prompt", explosive}}), 400, "prompt");
  CheckRefused(f.Post("/v1/chat/completions", ChatBody({{"messages", {{{"role", "user"}, {"content", explosive}}}}})),
               400, "messages");
  CHECK(f.Post("/v1/completions", {{"prompt", "ab"}}).status == 200);
}

TEST_CASE("Metrics and probes answer while every worker is busy", "[api]") {
  absl::Notification is_busy, may_go_on;
  FakeEngine::Options options;
  options.on_submit = [&] {
    is_busy.Notify();
    may_go_on.WaitForNotification();
  };
  ApiFixture f(options, {.num_workers = 1});
  RawClient client(f.server->port());
  client.Send(ApiFixture::Bytes("POST", "/v1/completions", R"({"prompt":"a"})"));
  is_busy.WaitForNotification();
  for (const char* path : {"/metrics", "/livez", "/readyz"}) CHECK(f.Get(path).status == 200);
  may_go_on.Notify();
  CHECK(StatusOf(client.ReadResponse()) == 200);
}

TEST_CASE("Errors: unknown URLs and wrong methods", "[api]") {
  ApiFixture f;
  CheckRefused(f.Get("/nope"), 404, "", "unknown_url");
  const JsonReply reply = f.Get("/v1/completions");
  CheckRefused(reply, 405, "", "method_not_allowed");
  CHECK(reply.head.find("allow: POST") != std::string::npos);
}

TEST_CASE("A full queue gives 429 with Retry-After and leaves nothing behind", "[api]") {
  ApiFixture f({.max_running = 2});
  f.engine->SetPaused(true);
  RawClient busy(f.server->port());
  busy.Send(ApiFixture::Bytes("POST", "/v1/completions", R"({"prompt":"a"})"));
  REQUIRE(f.engine->WaitRunning(1));
  // Of two choices one would fit: neither may stay.
  const JsonReply reply = f.Post("/v1/completions", {{"prompt", "a"}, {"n", 2}});
  CheckRefused(reply, 429, "", "rate_limit_exceeded");
  CHECK(reply.head.find("retry-after: ") != std::string::npos);
  CHECK(f.engine->WaitRunning(1));
  f.engine->SetPaused(false);
  CHECK(StatusOf(busy.ReadResponse()) == 200);
}

TEST_CASE("A client that leaves cancels its request before the first token", "[api]") {
  ApiFixture f;
  f.engine->SetPaused(true);
  for (const char* stream : {"true", "false"}) {
    RawClient client(f.server->port());
    client.Send(
        ApiFixture::Bytes("POST", "/v1/completions", absl::StrCat(R"({"prompt":"a","n":2,"stream":)", stream, "}")));
    REQUIRE(f.engine->WaitRunning(2));
    client.Close();
    CHECK(f.engine->WaitRunning(0));
  }
  CHECK(f.engine->num_cancelled() == 4);
  f.engine->SetPaused(false);
  CHECK(f.Post("/v1/completions", {{"prompt", "a"}}).status == 200);
  // The abort is counted by the delivery thread, soon after the engine was told.
  const std::string counted = "finished_reason=\"abort\",model_name=\"fake\"} 2";
  const absl::Time deadline = absl::Now() + absl::Seconds(10);
  bool is_counted = false;
  while (!is_counted && absl::Now() < deadline) {
    is_counted = f.metrics->Scrape(f.engine.get(), {}).find(counted) != std::string::npos;
  }
  CHECK(is_counted);
}

TEST_CASE("A silent stream gets keep-alive comments", "[api]") {
  ApiFixture f({}, {.keep_alive_interval = absl::Milliseconds(30)});
  f.engine->SetPaused(true);
  RawClient client(f.server->port());
  client.Send(ApiFixture::Bytes("POST", "/v1/completions", R"({"prompt":"a","stream":true})"));
  const std::string all = client.ReadUntilText(": keep-alive\n\n");
  CHECK(all.find(": keep-alive\n\n") != std::string::npos);
  f.engine->SetPaused(false);
  CHECK(client.ReadUntilText("[DONE]").find("[DONE]") != std::string::npos);
}

TEST_CASE("An engine failure is an error, whole or streamed", "[api]") {
  ApiFixture f;
  f.engine->SetPaused(true);
  RawClient whole(f.server->port()), stream(f.server->port());
  whole.Send(ApiFixture::Bytes("POST", "/v1/completions", R"({"prompt":"a"})"));
  stream.Send(ApiFixture::Bytes("POST", "/v1/completions", R"({"prompt":"a","stream":true})"));
  REQUIRE(f.engine->WaitRunning(2));
  f.engine->FailAll(FinishReason::kError);
  CHECK(StatusOf(whole.ReadResponse()) == 500);
  CHECK(stream.ReadUntilText("[DONE]").find(R"(data: {"error":)") != std::string::npos);
}

TEST_CASE("Health says what holds programs of tools, the other probes do not", "[api]") {
  ApiFixture f({}, {.health_note = "sandbox: none\n"});
  CHECK(f.Get("/health").body == "ok\nsandbox: none\n");
  CHECK(f.Get("/readyz").body == "ok\n");
}

TEST_CASE("Probes tell loading, ready, stuck and draining apart", "[api]") {
  ApiFixture f;
  CHECK(f.Get("/livez").status == 200);
  CHECK(f.Get("/readyz").status == 200);
  CHECK(f.Get("/health").status == 200);
  CHECK(f.Get("/ping").status == 200);
  f.state.SetHealth(EngineHealth::kStarting);
  CHECK(f.Get("/livez").status == 200);
  CHECK(f.Get("/readyz").status == 503);
  f.state.SetHealth(EngineHealth::kStuck);
  CHECK(f.Get("/livez").status == 503);
  CHECK(f.Post("/v1/completions", {{"prompt", "a"}}).status == 503);
  f.state.SetHealth(EngineHealth::kReady);
  f.engine->SetPaused(true);
  RawClient running(f.server->port());
  running.Send(ApiFixture::Bytes("POST", "/v1/completions", R"({"prompt":"a","stream":true})"));
  REQUIRE(f.engine->WaitRunning(1));
  f.state.BeginDrain();
  f.server->BeginDrain();
  CHECK(f.Get("/readyz").status == 503);
  CHECK(f.Get("/livez").status == 200);
  const JsonReply refused = f.Post("/v1/completions", {{"prompt", "a"}});
  CheckRefused(refused, 503, "", "unavailable");
  CHECK(refused.head.find("retry-after: ") != std::string::npos);
  f.engine->SetPaused(false);
  CHECK(running.ReadToEnd().find("[DONE]") != std::string::npos);
  CHECK(f.server->WaitIdle(absl::Now() + absl::Seconds(5)));
}

TEST_CASE("While the model loads, work is refused and probes answer", "[api]") {
  ApiFixture f;
  f.state.SetGenerator(nullptr);
  f.state.SetHealth(EngineHealth::kStarting);
  CHECK(f.Get("/livez").status == 200);
  CHECK(f.Get("/metrics").status == 200);
  CHECK(f.Get("/v1/models").status == 200);
  CHECK(f.Post("/v1/completions", {{"prompt", "a"}}).status == 503);
}

TEST_CASE("With keys, every route but the probes needs one; the tenant reaches the engine", "[api]") {
  ApiFixture f;
  REQUIRE(f.keys.AddText("secret-a acme 2.5\nsecret-b\n", "keys").ok());
  REQUIRE(f.keys.AddText("- {key: secret-m, roles: metrics}\n", "keys").ok());
  for (const char* path : {"/livez", "/readyz", "/health", "/ping"}) CHECK(f.Get(path).status == 200);
  for (const char* path : {"/", "/console.css", "/console.js"}) CHECK(f.Call("GET", path, "").status == 200);
  for (const char* path : {"/metrics", "/version", "/openapi.json", "/v1/models", "/v1/models/fake", "/nope"}) {
    CheckRefused(f.Get(path), 401, "", "invalid_api_key");
  }
  for (const char* path : {"/v1/chat/completions", "/v1/completions", "/v1/embeddings", "/tokenize", "/detokenize"}) {
    CHECK(f.Call("POST", path, "{}").status == 401);
    CHECK(f.Call("POST", path, "{}", "Authorization: Bearer wrong\r\n").status == 401);
    CHECK(f.Call("POST", path, "{}", "Authorization: Bearer secret-b\r\n").status == 400);
  }
  CHECK(f.Call("POST", "/v1/completions", R"({"prompt":"a"})", "x-api-key: secret-a\r\n").status == 200);
  const Request request = f.engine->submitted().back();
  CHECK(request.tenant.name == "acme");
  CHECK(request.tenant.weight == 2.5);
  CHECK(request.tenant.salt != 0);
  const std::string page = f.Call("GET", "/metrics", "", "Authorization: Bearer secret-m\r\n").body;
  CHECK(page.find("millrace_tenant_tokens_total") != std::string::npos);
  CHECK(page.find("tenant=\"acme\"") != std::string::npos);
  CHECK(page.find("secret") == std::string::npos);
}

TEST_CASE("Many streams and sudden leavers leave nothing running", "[api]") {
  ApiFixture f({.answer = std::string(300, 'x'), .step_time = absl::Microseconds(200)});
  std::vector<std::thread> clients;
  std::atomic<int> num_whole{0};
  for (int i = 0; i < 16; ++i) {
    clients.emplace_back([&, i] {
      for (int round = 0; round < 4; ++round) {
        RawClient client(f.server->port());
        client.Send(
            ApiFixture::Bytes("POST", "/v1/completions", R"({"prompt":"a","stream":true,"max_tokens":300,"n":2})"));
        if ((i + round) % 3 == 0) {
          client.ReadUntil([&](const std::string& all) { return all.size() > static_cast<size_t>(200 * i); });
          client.Reset();
        } else if (client.ReadUntilText("[DONE]").find("[DONE]") != std::string::npos) {
          ++num_whole;
        }
      }
    });
  }
  for (std::thread& client : clients) client.join();
  CHECK(num_whole > 0);
  CHECK(f.engine->WaitRunning(0));
}

}  // namespace
}  // namespace millrace
