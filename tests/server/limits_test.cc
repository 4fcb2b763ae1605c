// SPDX-License-Identifier: Apache-2.0
// Limits of keys at the HTTP door: who is refused, what the client is told, and that nothing stays reserved.
#include <catch2/catch.hpp>
#include <random>
#include <thread>

#include "tests/server/api_fixture.h"

namespace millrace {
namespace {

constexpr char kKey[] = "x-api-key: k\r\n";

// The value of a header of the reply, or "-".
std::string HeaderOf(const JsonReply& reply, const std::string& name) {
  const size_t at = reply.head.find("\r\n" + name + ": ");
  if (at == std::string::npos) return "-";
  const size_t begin = at + name.size() + 4;
  return reply.head.substr(begin, reply.head.find("\r\n", begin) - begin);
}

JsonReply Complete(ApiFixture& f, int max_tokens, const std::string& prompt = "abcd") {
  return f.Call("POST", "/v1/completions", nlohmann::json{{"prompt", prompt}, {"max_tokens", max_tokens}}.dump(), kKey);
}

TEST_CASE("Limits: a limited key is told what it has left, on every answer", "[limits]") {
  ApiFixture f;
  REQUIRE(
      f.keys.AddText("- {key: k, name: ci, requests_per_minute: 4, tokens_per_minute: 600}\n- key: free\n", "f").ok());
  const JsonReply first = Complete(f, 5);
  CHECK(first.status == 200);
  CHECK(HeaderOf(first, "x-ratelimit-limit-requests") == "4");
  CHECK(HeaderOf(first, "x-ratelimit-remaining-requests") == "3");
  CHECK(HeaderOf(first, "x-ratelimit-reset-requests") == "15s");
  CHECK(HeaderOf(first, "x-ratelimit-limit-tokens") == "600");
  CHECK(HeaderOf(first, "x-ratelimit-remaining-tokens") == "591");  // four and five
  CHECK(HeaderOf(first, "x-ratelimit-reset-tokens") == "900ms");
  // Questions, refusals and wrong methods cost nothing, and tell the same.
  for (const JsonReply& reply :
       {f.Call("GET", "/v1/models", "", kKey), f.Call("GET", "/nope", "", kKey),
        f.Call("GET", "/v1/completions", "", kKey), f.Call("POST", "/v1/completions", "{", kKey),
        f.Call("POST", "/tokenize", R"({"prompt":"a"})", kKey), f.Call("GET", "/metrics", "", kKey)}) {
    INFO(reply.head);
    const std::string wanted = reply.status == 403 ? "-" : "591";
    CHECK(HeaderOf(reply, "x-ratelimit-remaining-tokens") == wanted);
  }
  CHECK(HeaderOf(f.Call("POST", "/v1/completions", R"({"prompt":"a"})", "x-api-key: free\r\n"),
                 "x-ratelimit-limit-tokens") == "-");
}

TEST_CASE("Limits: a refusal names the limit and says when to come back", "[limits]") {
  ApiFixture f;
  REQUIRE(
      f.keys.AddText("- {key: k, name: ci, tenant: acme, requests_per_minute: 2, tokens_per_minute: 600}\n", "f").ok());
  CHECK(Complete(f, 5).status == 200);
  CHECK(Complete(f, 5).status == 200);
  const JsonReply refused = Complete(f, 5);
  CHECK(refused.status == 429);
  CHECK(HeaderOf(refused, "retry-after") == "30");
  CHECK(HeaderOf(refused, "x-ratelimit-remaining-requests") == "0");
  CHECK(HeaderOf(refused, "x-ratelimit-reset-requests") == "1m0s");
  CHECK(refused.json["error"]["code"] == "rate_limit_exceeded");
  CHECK(refused.json["error"]["message"] ==
        "Rate limit reached for key 'ci' on requests per minute: limit 2. Please try again in 30s.");
  f.seconds += 29;
  CHECK(Complete(f, 5).status == 429);
  f.seconds += 1;
  CHECK(Complete(f, 5).status == 200);
  f.seconds += 60;
  const JsonReply too_large = Complete(f, 700);
  CHECK(too_large.status == 400);
  CHECK(too_large.json["error"]["code"] == "tokens_limit_exceeded");
  CHECK(f.metrics->Scrape(nullptr, {}).find("reason=\"requests_per_minute\",tenant=\"acme\"} 2") != std::string::npos);
}

TEST_CASE("Limits: a chat without max_tokens is bounded by what a minute allows", "[limits]") {
  ApiFixture f({.answer = std::string(500, 'x')});
  REQUIRE(f.keys.AddText("- {key: k, tokens_per_minute: 50}\n", "f").ok());
  const JsonReply reply = f.Call("POST", "/v1/chat/completions", ChatBody().dump(), kKey);
  REQUIRE(reply.status == 200);
  CHECK(reply.json["usage"]["total_tokens"] == 50);
  CHECK(reply.json["choices"][0]["finish_reason"] == "length");
  CHECK(HeaderOf(reply, "x-ratelimit-remaining-tokens") == "0");
}

TEST_CASE("Limits: a request holds its place until it is over, however it ends", "[limits]") {
  ApiFixture f;
  REQUIRE(f.keys.AddText("- {key: k, concurrent_requests: 1, tokens_per_minute: 1000}\n", "f").ok());
  const auto remaining = [&f] {
    return HeaderOf(f.Call("GET", "/v1/models", "", kKey), "x-ratelimit-remaining-tokens");
  };
  f.engine->SetPaused(true);
  const std::string body = nlohmann::json{{"prompt", "abcd"}, {"max_tokens", 96}, {"stream", true}}.dump();
  for (int i = 0; i < 3; ++i) {
    RawClient client(f.server->port());
    client.Send(ApiFixture::Bytes("POST", "/v1/completions", body, kKey));
    REQUIRE(f.engine->WaitRunning(1));
    CHECK(remaining() == "900");
    const JsonReply refused = Complete(f, 5);
    CHECK(refused.status == 429);
    CHECK(HeaderOf(refused, "retry-after") == "1");
    CHECK(refused.json["error"]["message"] == "1 requests of key 'key-8254c329' run already, and its limit is 1");
    client.Reset();
    REQUIRE(f.engine->WaitRunning(0));
    REQUIRE(f.server->WaitIdle(absl::Now() + absl::Seconds(10)));
    // The delivery thread hears of the hang-up behind the engine.
    const absl::Time limit = absl::Now() + absl::Seconds(10);
    while (remaining() != "1000" && absl::Now() < limit) std::this_thread::yield();
    REQUIRE(remaining() == "1000");
  }
  f.engine->SetPaused(false);
  CHECK(Complete(f, 5).status == 200);
  CHECK(remaining() == "991");
  // Refused by the full engine: as if it had never been.
  ApiFixture full({.max_running = 0});
  REQUIRE(
      full.keys.AddText("- {key: k, requests_per_minute: 5, tokens_per_minute: 1000, concurrent_requests: 1}\n", "f")
          .ok());
  for (int i = 0; i < 3; ++i) {
    const JsonReply refused = Complete(full, 5);
    CHECK(refused.status == 429);
    CHECK(HeaderOf(refused, "x-ratelimit-remaining-requests") == "5");
    CHECK(HeaderOf(refused, "x-ratelimit-remaining-tokens") == "1000");
  }
}

TEST_CASE("Limits: a request that could only begin in part gives back all of it", "[limits]") {
  ApiFixture f({.max_running = 1});
  REQUIRE(f.keys.AddText("- {key: k, requests_per_minute: 5, tokens_per_minute: 1000}\n", "f").ok());
  f.engine->SetPaused(true);
  const JsonReply refused = f.Call("POST", "/v1/completions", R"({"prompt":"abcd","max_tokens":5,"n":2})", kKey);
  CHECK(refused.status == 429);
  f.engine->SetPaused(false);
  REQUIRE(f.engine->WaitRunning(0));
  CHECK(Complete(f, 5).status == 200);
  const JsonReply reply = f.Call("GET", "/v1/models", "", kKey);
  CHECK(HeaderOf(reply, "x-ratelimit-remaining-requests") == "4");
  CHECK(HeaderOf(reply, "x-ratelimit-remaining-tokens") == "991");
}

TEST_CASE("Limits: of many clients at once, exactly as many are served as a minute allows", "[limits]") {
  ApiFixture f;
  REQUIRE(f.keys.AddText("- {key: k, requests_per_minute: 10}\n", "f").ok());
  std::atomic<int> num_served{0}, num_refused{0};
  std::vector<std::thread> clients;
  for (int i = 0; i < 50; ++i) {
    clients.emplace_back([&] {
      const int status = Complete(f, 5).status;
      if (status == 200) ++num_served;
      if (status == 429) ++num_refused;
    });
  }
  for (std::thread& client : clients) client.join();
  CHECK(num_served == 10);
  CHECK(num_refused == 40);
}

TEST_CASE("Limits: a turn of an agent run that is refused counts as a rejection, the first and a later one",
          "[limits]") {
  const std::string call = R"(<tool_call>{"name": "calculator", "arguments": {"expression": "6*7"}}</tool_call>)";
  const auto num_rejected = [](ApiFixture& f, const std::string& reason) {
    const std::string page = f.metrics->Scrape(nullptr, {});
    const std::string sample = "reason=\"" + reason + "\",tenant=\"acme\"} ";
    const size_t at = page.find(sample);
    const int of_metrics = at == std::string::npos ? 0 : std::stoi(page.substr(at + sample.size()));
    int64_t of_usage = 0;
    for (const TenantUsage& usage : f.usage.Report()) of_usage += usage.total.num_rejected;
    CHECK(of_usage == of_metrics);
    return of_metrics;
  };
  ApiFixture f({.answer = call});
  REQUIRE(f.keys.AddText("- {key: k, tenant: acme, requests_per_minute: 1}\n", "f").ok());
  const nlohmann::json tools = {{{"type", "mcp"}, {"server_label", "millrace"}}};
  const std::string body = nlohmann::json{{"input", "hi"}, {"tools", tools}}.dump();
  CHECK(f.Call("POST", "/v1/responses", body, kKey).json["error"]["code"] == "rate_limit_exceeded");
  CHECK(f.engine->submitted().size() == 1);
  CHECK(num_rejected(f, "requests_per_minute") == 1);
  CHECK(f.Call("POST", "/v1/responses", body, kKey).status == 429);
  CHECK(num_rejected(f, "requests_per_minute") == 2);

  ApiFixture full({.max_running = 0});
  REQUIRE(full.keys.AddText("- {key: k, tenant: acme}\n", "f").ok());
  const std::string message = ChatBody({{"max_tokens", 5}}).dump();
  CHECK(full.Call("POST", "/v1/messages", message, kKey).status == 429);
  CHECK(num_rejected(full, "queue_full") == 1);
}

}  // namespace
}  // namespace millrace
