// SPDX-License-Identifier: Apache-2.0
// OpenAI's routes over a scripted engine.
#include "absl/synchronization/notification.h"
#include "tests/server/api_fixture.h"

namespace millrace {
namespace {

using nlohmann::json;

TEST_CASE("Chat: a whole answer has OpenAI's shape and counts", "[api]") {
  ApiFixture f({.num_cached_tokens = 2});
  const JsonReply reply = f.Post("/v1/chat/completions", ChatBody({{"unknown_field", {1, 2}}, {"user", "u"}}));
  REQUIRE(reply.status == 200);
  CHECK(reply.json["object"] == "chat.completion");
  CHECK(reply.json["model"] == "fake");
  CHECK(reply.json["id"].get<std::string>().substr(0, 9) == "chatcmpl-");
  const json choice = reply.json["choices"][0];
  CHECK(choice["message"]["role"] == "assistant");
  CHECK(choice["message"]["content"] == "Hello, world!");
  CHECK(choice["finish_reason"] == "stop");
  CHECK(choice["logprobs"].is_null());
  // <|user|> h i <|assistant|>, and 13 bytes with the end.
  CHECK(reply.json["usage"]["prompt_tokens"] == 4);
  CHECK(reply.json["usage"]["completion_tokens"] == 14);
  CHECK(reply.json["usage"]["total_tokens"] == 18);
  CHECK(reply.json["usage"]["prompt_tokens_details"]["cached_tokens"] == 2);
  CHECK(reply.head.find("x-request-id: ") != std::string::npos);
}

TEST_CASE("Chat: a stream gives role, deltas, finish, usage, [DONE]", "[api]") {
  ApiFixture f;
  const auto events =
      f.Stream("/v1/chat/completions", ChatBody({{"stream", true}, {"stream_options", {{"include_usage", true}}}}));
  REQUIRE(events.size() >= 5);
  CHECK(events.back() == "[DONE]");
  std::string text;
  int num_roles = 0, num_finishes = 0;
  for (size_t i = 0; i + 2 < events.size(); ++i) {
    const json chunk = json::parse(events[i]);
    CHECK(chunk["object"] == "chat.completion.chunk");
    CHECK(chunk["usage"].is_null());
    const json choice = chunk["choices"][0];
    if (choice["delta"].contains("role")) ++num_roles;
    text += choice["delta"].value("content", "");
    if (!choice["finish_reason"].is_null()) {
      ++num_finishes;
      CHECK(choice["finish_reason"] == "stop");
      CHECK(choice["delta"].empty());
    }
  }
  CHECK(json::parse(events[0])["choices"][0]["delta"]["role"] == "assistant");
  CHECK(num_roles == 1);
  CHECK(num_finishes == 1);
  CHECK(text == "Hello, world!");
  const json last = json::parse(events[events.size() - 2]);
  CHECK(last["choices"].empty());
  CHECK(last["usage"]["completion_tokens"] == 14);
}

TEST_CASE("Chat: a stream equals the whole answer for every option", "[api]") {
  ApiFixture f({.answer = "caf\xC3\xA9 \xE2\x82\xAC \xF0\x9F\x98\x80 END of it"});
  for (const json& more : {json::object(), json{{"stop", "END"}}, json{{"stop", {"zzz", " of"}}},
                           json{{"stop", "END"}, {"include_stop_str_in_output", true}}, json{{"max_tokens", 5}},
                           json{{"n", 3}}, json{{"max_completion_tokens", 6}, {"stop", "e"}}}) {
    json body = ChatBody(more);
    const json whole = f.Post("/v1/chat/completions", body).json;
    body["stream"] = true;
    std::vector<std::string> texts(3), reasons(3);
    for (const std::string& event : f.Stream("/v1/chat/completions", body)) {
      if (event == "[DONE]") continue;
      const json choice = json::parse(event)["choices"][0];
      const auto index = choice["index"].get<size_t>();
      texts[index] += choice["delta"].value("content", "");
      if (!choice["finish_reason"].is_null()) reasons[index] = choice["finish_reason"];
    }
    for (const json& choice : whole["choices"]) {
      const auto index = choice["index"].get<size_t>();
      CHECK(choice["message"]["content"] == texts[index]);
      CHECK(choice["finish_reason"] == reasons[index]);
    }
  }
}

TEST_CASE("Chat: a stop string ends the text before it and frees the engine", "[api]") {
  ApiFixture f({.answer = "one two three four five", .step_time = absl::Milliseconds(1)});
  const JsonReply reply = f.Post("/v1/chat/completions", ChatBody({{"stop", {"three", "nine"}}}));
  CHECK(reply.json["choices"][0]["message"]["content"] == "one two ");
  CHECK(reply.json["choices"][0]["finish_reason"] == "stop");
  CHECK(reply.json["choices"][0]["stop_reason"] == "three");
  CHECK(f.engine->WaitRunning(0));
  CHECK(f.engine->num_finished_early() == 1);
  const JsonReply token = f.Post("/v1/chat/completions", ChatBody({{"stop_token_ids", {'w'}}}));
  CHECK(token.json["choices"][0]["message"]["content"] == "one t");
  CHECK(token.json["choices"][0]["stop_reason"] == 'w');
  const JsonReply late = f.Post("/v1/chat/completions", ChatBody({{"stop", "o"}, {"min_tokens", 8}}));
  CHECK(late.json["choices"][0]["message"]["content"] == "one two three f");
}

TEST_CASE("Chat: log-probabilities, whole and streamed", "[api]") {
  ApiFixture f({.answer = "a\xC3\xA9"});
  const json body = ChatBody({{"logprobs", true}, {"top_logprobs", 2}});
  const json content = f.Post("/v1/chat/completions", body).json["choices"][0]["logprobs"]["content"];
  REQUIRE(content.size() == 4);
  CHECK(content[0]["token"] == "a");
  CHECK(content[0]["bytes"] == json{97});
  CHECK(content[0]["top_logprobs"].size() == 2);
  CHECK(content[0]["top_logprobs"][1]["token"] == "b");
  CHECK(content[1]["bytes"] == json{0xC3});
  CHECK(content[1]["token"] == "\xEF\xBF\xBD");
  json streamed = body;
  streamed["stream"] = true;
  size_t num_tokens = 0;
  for (const std::string& event : f.Stream("/v1/chat/completions", streamed)) {
    if (event == "[DONE]") continue;
    const json logprobs = json::parse(event)["choices"][0]["logprobs"];
    if (logprobs.is_object()) num_tokens += logprobs["content"].size();
  }
  CHECK(num_tokens == 4);
}

TEST_CASE("Chat: n answers draw with seeds that follow each other", "[api]") {
  ApiFixture f;
  const JsonReply reply = f.Post("/v1/chat/completions", ChatBody({{"n", 3}, {"seed", 40}, {"temperature", 0.5}}));
  CHECK(reply.json["choices"].size() == 3);
  CHECK(reply.json["usage"]["prompt_tokens"] == 4);
  CHECK(reply.json["usage"]["completion_tokens"] == 42);
  const auto submitted = f.engine->submitted();
  REQUIRE(submitted.size() == 3);
  for (uint64_t i = 0; i < 3; ++i) CHECK(submitted[i].sampling.seed == 40 + i);
  CHECK(submitted[0].sampling.temperature == 0.5f);
}

TEST_CASE("A prompt that several choices share counts once, and so do its cached tokens", "[api]") {
  ApiFixture f({.num_cached_tokens = 3});
  const auto usage_of = [&](const json& body) { return f.Post("/v1/completions", body).json["usage"]; };
  const json one = usage_of({{"prompt", "abcd"}, {"n", 4}});
  CHECK(one["prompt_tokens"] == 4);
  CHECK(one["prompt_tokens_details"]["cached_tokens"] == 3);
  const json two = usage_of({{"prompt", {"abcd", "efghi"}}, {"n", 2}});
  CHECK(two["prompt_tokens"] == 9);
  CHECK(two["prompt_tokens_details"]["cached_tokens"] == 6);
  const std::string page = f.Get("/metrics").body;
  const std::string labels = "{engine=\"0\",model_name=\"fake\"";
  CHECK(page.find("vllm:prompt_tokens_total" + labels + "} 13\n") != std::string::npos);
  CHECK(page.find("vllm:prompt_tokens_cached_total" + labels + "} 9\n") != std::string::npos);
  CHECK(page.find(labels + ",source=\"local_compute\"} 4\n") != std::string::npos);
  CHECK(page.find(labels + ",source=\"local_cache_hit\"} 9\n") != std::string::npos);
}

bool HasSample(const std::string& page, const std::string& name, int value) {
  return page.find(name + "{engine=\"0\",model_name=\"fake\"} " + std::to_string(value) + "\n") != std::string::npos;
}

TEST_CASE("Tokens are counted as they come, not when the request ends", "[api]") {
  absl::Notification may_go_on;
  FakeEngine::Options options;
  options.script = [&may_go_on](const Request&, int32_t position) {
    if (position == 3) may_go_on.WaitForNotification();
    return position < 5 ? 'a' : kFakeEos;
  };
  ApiFixture f(options);
  RawClient client(f.server->port());
  client.Send(ApiFixture::Bytes("POST", "/v1/completions", R"({"prompt":"abcd"})"));
  const absl::Time deadline = absl::Now() + absl::Seconds(20);
  std::string page;
  while (!HasSample(page, "vllm:generation_tokens_total", 3) && absl::Now() < deadline) {
    page = f.metrics->Scrape(nullptr, {});
  }
  CHECK(HasSample(page, "vllm:generation_tokens_total", 3));
  CHECK(HasSample(page, "vllm:prompt_tokens_total", 4));
  CHECK(HasSample(page, "vllm:e2e_request_latency_seconds_count", 0));
  may_go_on.Notify();
  CHECK(StatusOf(client.ReadResponse()) == 200);
  page = f.metrics->Scrape(nullptr, {});
  CHECK(HasSample(page, "vllm:generation_tokens_total", 6));
  CHECK(HasSample(page, "vllm:e2e_request_latency_seconds_count", 1));
}

TEST_CASE("A request's longest choice is told apart from all of them together", "[api]") {
  FakeEngine::Options options;
  options.script = [](const Request& request, int32_t position) {
    return position < (request.sampling.seed == 5 ? 6 : 2) ? 'a' : kFakeEos;
  };
  ApiFixture f(options);
  CHECK(f.Post("/v1/completions", {{"prompt", "x"}, {"n", 2}, {"seed", 5}}).status == 200);
  const std::string page = f.metrics->Scrape(nullptr, {});
  CHECK(HasSample(page, "vllm:request_generation_tokens_sum", 10));
  CHECK(HasSample(page, "vllm:request_max_num_generation_tokens_sum", 7));
}

TEST_CASE("Only a request whose own results are unusable counts as corrupted", "[api]") {
  FakeEngine::Options options;
  options.script = [](const Request& request, int32_t) { return request.prompt_tokens[0] == '!' ? -1 : 'a'; };
  ApiFixture f(options);
  CHECK(f.Post("/v1/completions", {{"prompt", "!"}}).status == 500);
  CHECK(HasSample(f.metrics->Scrape(nullptr, {}), "vllm:corrupted_requests_total", 1));
  // The watchdog, a lost device and shutting down end requests without looking at them.
  f.engine->SetPaused(true);
  RawClient client(f.server->port());
  client.Send(ApiFixture::Bytes("POST", "/v1/completions", R"({"prompt":"a"})"));
  REQUIRE(f.engine->WaitRunning(1));
  f.engine->FailAll(FinishReason::kError);
  CHECK(StatusOf(client.ReadResponse()) == 500);
  CHECK(HasSample(f.metrics->Scrape(nullptr, {}), "vllm:corrupted_requests_total", 1));
}

TEST_CASE("Chat: every sampling field reaches the engine", "[api]") {
  ApiFixture f;
  f.Post("/v1/chat/completions", ChatBody({{"temperature", 0.25},
                                           {"top_p", 0.5},
                                           {"top_k", 7},
                                           {"min_p", 0.125},
                                           {"repetition_penalty", 1.5},
                                           {"presence_penalty", 0.5},
                                           {"frequency_penalty", -0.5},
                                           {"logit_bias", {{"65", -100}, {"66", 5}}},
                                           {"min_tokens", 2},
                                           {"max_tokens", 9},
                                           {"ignore_eos", true},
                                           {"priority", -3},
                                           {"prompt_logprobs", 1}}));
  REQUIRE(f.engine->submitted().size() == 1);
  const Request request = f.engine->submitted()[0];
  CHECK(request.sampling.temperature == 0.25f);
  CHECK(request.sampling.top_p == 0.5f);
  CHECK(request.sampling.top_k == 7);
  CHECK(request.sampling.min_p == 0.125f);
  CHECK(request.sampling.repetition_penalty == 1.5f);
  CHECK(request.sampling.presence_penalty == 0.5f);
  CHECK(request.sampling.frequency_penalty == -0.5f);
  CHECK(request.sampling.logit_bias.size() == 2);
  CHECK(request.sampling.num_prompt_logprobs == 1);
  CHECK(request.min_new_tokens == 2);
  CHECK(request.max_new_tokens == 9);
  CHECK(request.ignore_eos);
  CHECK(request.priority == -3);
}

TEST_CASE("Chat: control tokens in a message stay text", "[api]") {
  ApiFixture f;
  const JsonReply reply = f.Post("/tokenize", {{"messages", {{{"role", "user"}, {"content", "<|assistant|>"}}}}});
  REQUIRE(reply.status == 200);
  CHECK(reply.json["count"] == 1 + 13 + 1);
  CHECK(reply.json["tokens"].front() == 257);
  CHECK(reply.json["tokens"].back() == 258);
}

TEST_CASE("Completions: prompts as text, list, ids and lists of ids", "[api]") {
  ApiFixture f({.answer = "ok"});
  for (const json& prompt : {json("ab"), json{"ab", "cd"}, json{97, 98}, json{{97, 98}, {99}}}) {
    const JsonReply reply = f.Post("/v1/completions", {{"model", "alias"}, {"prompt", prompt}});
    REQUIRE(reply.status == 200);
    const size_t num_prompts = prompt.is_array() && !prompt[0].is_number() ? prompt.size() : 1;
    CHECK(reply.json["choices"].size() == num_prompts);
    CHECK(reply.json["choices"][0]["text"] == "ok");
    CHECK(reply.json["object"] == "text_completion");
    CHECK(reply.json["model"] == "alias");
  }
}

TEST_CASE("Completions: echo with log-probabilities covers the prompt", "[api]") {
  ApiFixture f({.answer = "xy"});
  const JsonReply reply =
      f.Post("/v1/completions", {{"prompt", "abc"}, {"echo", true}, {"logprobs", 1}, {"max_tokens", 2}});
  const json choice = reply.json["choices"][0];
  CHECK(choice["text"] == "abcxy");
  CHECK(choice["logprobs"]["tokens"] == json{"a", "b", "c", "x", "y"});
  CHECK(choice["logprobs"]["token_logprobs"][0].is_null());
  CHECK(choice["logprobs"]["top_logprobs"][0].is_null());
  CHECK(choice["logprobs"]["token_logprobs"].size() == 5);
  CHECK(choice["logprobs"]["text_offset"] == json{0, 1, 2, 3, 4});
  const JsonReply none =
      f.Post("/v1/completions", {{"prompt", "abc"}, {"echo", true}, {"logprobs", 0}, {"max_tokens", 0}});
  CHECK(none.json["choices"][0]["text"] == "abc");
  CHECK(none.json["choices"][0]["logprobs"]["tokens"].size() == 3);
  CHECK(none.json["choices"][0]["finish_reason"] == "length");
}

TEST_CASE("Completions: best_of returns the likeliest", "[api]") {
  FakeEngine::Options options;
  // The fake's log-probability falls with token % 7: seed 5 writes 'b' (0), the others 'c' (1).
  options.script = [](const Request& request, int32_t position) {
    return position > 3 ? kFakeEos : request.sampling.seed == 5 ? 'b' : 'c';
  };
  ApiFixture f(options);
  const JsonReply reply = f.Post("/v1/completions", {{"prompt", "x"}, {"best_of", 4}, {"n", 1}, {"seed", 3}});
  REQUIRE(reply.json["choices"].size() == 1);
  CHECK(reply.json["choices"][0]["text"] == "bbbb");
  CHECK(reply.json["choices"][0]["index"] == 0);
  CHECK(reply.json["choices"][0]["logprobs"].is_null());
  CHECK(f.engine->submitted().size() == 4);
}

TEST_CASE("Completions: prompt_logprobs have vLLM's shape", "[api]") {
  ApiFixture f;
  const JsonReply reply = f.Post("/v1/completions", {{"prompt", "ab"}, {"prompt_logprobs", 1}, {"max_tokens", 1}});
  const json list = reply.json["choices"][0]["prompt_logprobs"];
  REQUIRE(list.size() == 2);
  CHECK(list[0].is_null());
  CHECK(list[1]["98"]["decoded_token"] == "b");
}

TEST_CASE("Embeddings: as numbers and as base64", "[api]") {
  ApiFixture f;
  const JsonReply reply = f.Post("/v1/embeddings", {{"input", {"abc", "de"}}});
  REQUIRE(reply.status == 200);
  REQUIRE(reply.json["data"].size() == 2);
  CHECK(reply.json["data"][0]["embedding"][0] == 3.0);
  CHECK(reply.json["data"][1]["embedding"][0] == 2.0);
  CHECK(reply.json["usage"]["prompt_tokens"] == 5);
  const JsonReply coded = f.Post("/v1/embeddings", {{"input", "abc"}, {"encoding_format", "base64"}});
  CHECK(coded.json["data"][0]["embedding"] == "AABAQAAAgD4AAMC/d8wrMg==");
}

TEST_CASE("Tokenize and detokenize are each other's inverse", "[api]") {
  ApiFixture f;
  const JsonReply tokens = f.Post("/tokenize", {{"prompt", "h\xC3\xA9"}, {"return_token_strs", true}});
  CHECK(tokens.json["tokens"] == json{104, 0xC3, 0xA9});
  CHECK(tokens.json["count"] == 3);
  CHECK(tokens.json["max_model_len"] == 1000);
  CHECK(tokens.json["token_strs"].size() == 3);
  CHECK(f.Post("/detokenize", {{"tokens", tokens.json["tokens"]}}).json["prompt"] == "h\xC3\xA9");
}

TEST_CASE("Information routes", "[api]") {
  ApiFixture f;
  CHECK(f.Get("/version").json["version"] == "1.2.3");
  const json models = f.Get("/v1/models").json;
  CHECK(models["data"].size() == 2);
  CHECK(models["models"].is_array());
  CHECK(models["data"][0]["id"] == "fake");
  CHECK(models["data"][0]["max_model_len"] == 1000);
  CHECK(f.Get("/v1/models/alias").json["id"] == "alias");
  CHECK(f.Get("/v1/models/nope").status == 404);
  const json api = f.Get("/openapi.json").json;
  REQUIRE(api.is_object());
  for (const auto& [path, methods] : api["paths"].items()) {
    for (const auto& [method, what] : methods.items()) {
      std::string upper;
      for (const char c : method) upper += static_cast<char>(std::toupper(c));
      std::string concrete = path;
      if (const size_t brace = concrete.find('{'); brace != std::string::npos) {
        concrete.replace(brace, concrete.find('}') - brace + 1, "x");
      }
      const JsonReply reply = f.Call(upper, concrete, upper == "POST" ? "{}" : "");
      CHECK(reply.body.find("unknown_url") == std::string::npos);
      CHECK(reply.status != 405);
    }
  }
}

}  // namespace
}  // namespace millrace
