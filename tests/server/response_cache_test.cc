// SPDX-License-Identifier: Apache-2.0
#include "server/caching/response_cache.h"

#include <algorithm>
#include <catch2/catch.hpp>
#include <regex>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_split.h"
#include "absl/synchronization/notification.h"
#include "cache/redis_connection.h"
#include "cache/redis_store.h"
#include "tests/cache/redis_process.h"
#include "tests/server/cache_fixture.h"

namespace millrace {
namespace {

using nlohmann::json;

constexpr char kChat[] = "/v1/chat/completions";
constexpr char kCompletions[] = "/v1/completions";

json Chat(json more = {}) {
  json body = ChatBody({{"temperature", 0}});
  if (more.is_object()) body.update(more);
  return body;
}

json Completion(json more = {}) {
  json body = {{"model", "fake"}, {"prompt", "hi"}, {"temperature", 0}, {"max_tokens", 20}};
  if (more.is_object()) body.update(more);
  return body;
}

// Without what is new in every answer, and what tells of the cache.
std::string Plain(std::string text) {
  text = std::regex_replace(text, std::regex(R"("id":"[^"]*")"), "");
  text = std::regex_replace(text, std::regex(R"("created":\d+)"), "");
  text = std::regex_replace(text, std::regex(R"("cached_tokens":\d+)"), "");
  return std::regex_replace(text, std::regex(R"(,"millrace_cache":"[a-z]+")"), "");
}

bool HasMetric(const CacheFixture& f, const std::string& begin, const std::string& end) {
  f.metrics->FollowCache(f.cache->stats());
  for (const absl::string_view line : absl::StrSplit(f.metrics->Scrape(nullptr, {}), '\n')) {
    if (absl::StartsWith(line, begin) && absl::EndsWith(line, end)) return true;
  }
  return false;
}

TEST_CASE("ResponseCache: the second of two equal requests is answered without the engine", "[response_cache]") {
  const auto [path, body] = GENERATE(table<std::string, json>({
      {kChat, Chat()},
      {kChat, Chat({{"n", 3}, {"logprobs", true}, {"top_logprobs", 2}, {"seed", 5}, {"temperature", 1}})},
      {kChat, Chat({{"stop", {"wor"}}, {"max_tokens", 30}})},
      {kCompletions, Completion()},
      {kCompletions, Completion({{"n", 2}, {"logprobs", 3}, {"echo", true}})},
      {kCompletions, Completion({{"prompt", {"a", "bc"}}, {"n", 2}})},
      {kCompletions, Completion({{"best_of", 3}, {"max_tokens", 3}})},
  }));
  CAPTURE(path, body.dump());
  CacheFixture f({.answer = "Hello, w\xC3\xB6rld! Hello, world!"});
  const JsonReply miss = f.Call(path, body);
  REQUIRE(miss.status == 200);
  CHECK(HeaderOf(miss.head, "x-millrace-cache") == "miss");
  CHECK(HeaderOf(miss.head, "age").empty());
  const size_t num_generated = f.num_generated();
  f.now += absl::Seconds(7);
  const JsonReply hit = f.Call(path, body);
  REQUIRE(hit.status == 200);
  CHECK(f.num_generated() == num_generated);
  CHECK(HeaderOf(hit.head, "x-millrace-cache") == "hit");
  CHECK(HeaderOf(hit.head, "age") == "7");
  CHECK(Plain(hit.body) == Plain(miss.body));
  CHECK(hit.json["id"] != miss.json["id"]);
  CHECK_FALSE(miss.json["usage"].contains("millrace_cache"));
  CHECK(hit.json["usage"]["millrace_cache"] == "hit");
  CHECK(hit.json["usage"]["prompt_tokens_details"]["cached_tokens"] == hit.json["usage"]["prompt_tokens"]);
  CHECK(HasMetric(f, "millrace_response_cache_requests_total{engine=\"0\",model_name=\"fake\",outcome=\"hit\"}", " 1"));
  CHECK(
      HasMetric(f, "millrace_response_cache_requests_total{engine=\"0\",model_name=\"fake\",outcome=\"miss\"}", " 1"));
  CHECK(HasMetric(f, "millrace_response_cache_entries{", " 1"));
  CHECK(HasMetric(f, "vllm:request_success_total{", " 2"));
}

TEST_CASE("ResponseCache: a hit is the same stream, event by event", "[response_cache]") {
  const auto [path, body] = GENERATE(table<std::string, json>({
      {kChat, Chat({{"stream_options", {{"include_usage", true}}}})},
      {kChat, Chat({{"logprobs", true}, {"top_logprobs", 1}})},
      {kCompletions, Completion({{"prompt", {"a", "b"}}, {"stream_options", {{"continuous_usage_stats", true}}}})},
  }));
  CacheFixture f;
  const auto [miss_head, miss] = f.Stream(path, body);
  const size_t num_generated = f.num_generated();
  const auto [hit_head, hit] = f.Stream(path, body);
  CHECK(f.num_generated() == num_generated);
  CHECK(HeaderOf(miss_head, "x-millrace-cache") == "miss");
  CHECK(HeaderOf(hit_head, "x-millrace-cache") == "hit");
  CHECK(HeaderOf(hit_head, "age") == "0");
  CHECK(absl::EndsWith(hit, "data: [DONE]\n\n"));
  CHECK(Plain(hit) == Plain(miss));
  // And whole and streamed answers are one.
  const JsonReply whole = f.Call(path, [&body = body] {
    json plain = body;
    plain.erase("stream_options");
    return plain;
  }());
  CHECK(HeaderOf(whole.head, "x-millrace-cache") == "hit");
  CHECK(f.num_generated() == num_generated);
}

TEST_CASE("ResponseCache: a long answer is replayed to its end", "[response_cache]") {
  CacheFixture f({.answer = std::string(3000, 'x'), .max_model_tokens = 4000});
  CHECK(f.Call(kChat, Chat()).status == 200);
  const auto [head, events] = f.Stream(kChat, Chat());
  CHECK(HeaderOf(head, "x-millrace-cache") == "hit");
  CHECK(absl::EndsWith(events, "data: [DONE]\n\n"));
  CHECK(std::count(events.begin(), events.end(), '\n') == 2 * (3000 + 3));  // opening, pieces, finish, [DONE]
}

TEST_CASE("ResponseCache: what cannot be repeated, or is not wanted, goes through", "[response_cache]") {
  const auto [body, headers] = GENERATE(table<json, std::string>({
      {Chat({{"temperature", 0.5}}), ""},
      {ChatBody(), ""},
      {Chat(), "Cache-Control: no-store\r\n"},
      {Chat(), "cache-control: max-age=5, No-Store\r\n"},
      {Chat(), "Cache-Control: max-age=5\r\nCache-Control: no-store\r\n"},
  }));
  CacheFixture f;
  for (int i = 0; i < 2; ++i) {
    const JsonReply reply = f.Call(kChat, body, headers);
    CHECK(reply.status == 200);
    CHECK(HeaderOf(reply.head, "x-millrace-cache") == "bypass");
  }
  CHECK(f.num_generated() == 2);
  CHECK(f.cache->stats().store.num_entries == 0);
  CHECK(f.cache->stats().num_bypassed == 2);
}

TEST_CASE("ResponseCache: clients say how fresh, and whether at all", "[response_cache]") {
  CacheFixture f;
  const auto outcome = [&f](const std::string& directive) {
    const std::string header = directive.empty() ? "" : "Cache-Control: " + directive + "\r\n";
    return HeaderOf(f.Call(kChat, Chat(), header).head, "x-millrace-cache");
  };
  const JsonReply absent = f.Call(kChat, Chat(), "Cache-Control: only-if-cached\r\n");
  CHECK(absent.status == 504);
  CHECK(absent.json["error"]["code"] == "not_cached");
  CHECK(f.num_generated() == 0);
  CHECK(f.Call(kChat, ChatBody(), "Cache-Control: only-if-cached\r\n").status == 504);
  CHECK(f.Call(kChat, Chat(), "Cache-Control: only-if-cached, no-cache\r\n").status == 504);
  CHECK(outcome("") == "miss");
  CHECK(outcome("only-if-cached") == "hit");
  f.now += absl::Seconds(10);
  CHECK(outcome("max-age=10") == "hit");
  CHECK(outcome("max-age=9, only-if-cached").empty());
  CHECK(outcome("max-age=99999999999999999999") == "hit");
  CHECK(outcome("no-cache") == "miss");  // and leaves a fresh one
  CHECK(HeaderOf(f.Call(kChat, Chat()).head, "age") == "0");
  f.now += absl::Seconds(5);
  CHECK(outcome("max-age=4") == "miss");
  f.now += absl::Seconds(5);
  CHECK(outcome("max-age=x") == "miss");  // a fault never makes an answer older than was wanted
  CHECK(outcome("stale-if-error=3, ,=,max-stale") == "hit");
  f.now += absl::Seconds(60);
  CHECK(outcome("") == "miss");  // its time was over
}

TEST_CASE("ResponseCache: what ended badly is not kept", "[response_cache]") {
  CacheFixture f({.script = [](const Request&, int32_t position) { return position < 3 ? 'a' : -1; }});
  CHECK(f.Call(kChat, Chat()).status == 500);
  CHECK(f.Call(kChat, Chat()).status == 500);
  CHECK(f.num_generated() == 2);
  CHECK(f.cache->stats().store.num_entries == 0);
}

TEST_CASE("ResponseCache: the tenants' answers are apart, and so are their purges", "[response_cache]") {
  CacheFixture f;
  REQUIRE(f.keys.AddText("- {key: boss, roles: [admin, infer]}\n- {key: user, roles: [infer]}\n", "keys").ok());
  const std::string admin = "Authorization: Bearer boss\r\n";
  CHECK(f.Call(kChat, Chat(), admin).status == 200);
  Caller caller{.tenant = {.name = "acme", .salt = 1}, .received = absl::Now()};
  CompletionRequest request{.prompts = {std::string("hi")}, .params = {.temperature = 0.0f}};
  const auto ask = [&](const std::string& tenant) {
    caller.tenant.name = tenant;
    absl::Notification is_over;
    auto generation = f.generator->Complete(caller, request, [&](TextDelta&& delta) {
      if (delta.finish != FinishReason::kNone) is_over.Notify();
      return true;
    });
    is_over.WaitForNotification();
    return (*generation)->cache().outcome;
  };
  CHECK(ask("acme") == CacheOutcome::kMiss);
  CHECK(ask("other") == CacheOutcome::kMiss);
  CHECK(ask("acme") == CacheOutcome::kHit);
  const auto purge = [&](const json& scope) { return f.Call("/admin/cache/purge", scope, admin); };
  CHECK(f.Call("/admin/cache/purge", json::object()).status == 401);
  CHECK(f.Call("/admin/cache/purge", json::object(), "Authorization: Bearer user\r\n").status == 403);
  CHECK(purge({{"tenant", 7}}).status == 400);
  CHECK(purge({{"tenant", "nobody"}}).json["purged"] == 0);
  CHECK(purge({{"tenant", "acme"}, {"model", "fake"}}).json["purged"] == 1);
  CHECK(ask("acme") == CacheOutcome::kMiss);
  CHECK(ask("other") == CacheOutcome::kHit);
  CHECK(purge({{"tenant", ""}}).json["purged"] == 1);
  CHECK(purge(json::object()).json["purged"] == 2);
}

TEST_CASE("ResponseCache: a hit counts against a key's limit of requests, and takes no tokens", "[response_cache]") {
  CacheFixture f;
  REQUIRE(f.keys.AddText("- {key: k, roles: [infer], requests_per_minute: 3, tokens_per_minute: 60}\n", "keys").ok());
  const std::string key = "Authorization: Bearer k\r\n";
  CHECK(f.Call(kCompletions, Completion(), key).status == 200);
  CHECK(f.Call(kCompletions, Completion(), key).status == 200);
  const JsonReply hit = f.Call(kCompletions, Completion(), key);
  CHECK(HeaderOf(hit.head, "x-millrace-cache") == "hit");
  CHECK(f.num_generated() == 1);
  CHECK(f.Call(kCompletions, Completion(), key).status == 429);
}

TEST_CASE("ResponseCache: an answer that was under way at a purge is not kept", "[response_cache]") {
  CacheFixture f;
  f.engine->SetPaused(true);
  RawClient client(f.server->port());
  client.Send(ApiFixture::Bytes("POST", kChat, Chat().dump()));
  REQUIRE(f.engine->WaitRunning(1));
  CHECK(f.cache->Purge({}).value() == 0);
  f.engine->SetPaused(false);
  CHECK(CacheFixture::Read(client).status == 200);
  CHECK(HeaderOf(f.Call(kChat, Chat()).head, "x-millrace-cache") == "miss");
}

// A purge that comes while something is put comes before it, if it can.
class LatePuts : public AnswerStore {
 public:
  std::shared_ptr<const std::string> Get(const CacheKey& key) override { return inner_->Get(key); }
  void Put(const CacheKey& key, std::string bytes) override {
    is_putting.Notify();
    is_purged_.WaitForNotificationWithTimeout(absl::Milliseconds(200));
    inner_->Put(key, std::move(bytes));
  }
  absl::StatusOr<int64_t> Purge(const PurgeScope& scope) override {
    absl::StatusOr<int64_t> num_purged = inner_->Purge(scope);
    is_purged_.Notify();
    return num_purged;
  }
  StoreStats stats() const override { return inner_->stats(); }

  absl::Notification is_putting;

 private:
  absl::Notification is_purged_;
  const std::unique_ptr<AnswerStore> inner_ = MakeMemoryStore({});
};

TEST_CASE("ResponseCache: a purge waits for what is being put, and takes it", "[response_cache]") {
  auto store = std::make_unique<LatePuts>();
  absl::Notification& is_putting = store->is_putting;
  CacheFixture f({}, {}, std::move(store));
  RawClient client(f.server->port());
  client.Send(ApiFixture::Bytes("POST", kChat, Chat().dump()));
  is_putting.WaitForNotification();
  CHECK(f.cache->Purge({}).value() == 1);
  CHECK(CacheFixture::Read(client).status == 200);
  CHECK(f.cache->stats().store.num_entries == 0);
}

TEST_CASE("ResponseCache: a hundred equal requests at once are one generation", "[response_cache]") {
  CacheFixture f;
  f.engine->SetPaused(true);
  std::vector<std::unique_ptr<RawClient>> clients;
  for (int i = 0; i < 100; ++i) {
    clients.push_back(std::make_unique<RawClient>(f.server->port()));
    json body = Chat();
    if (i % 2 == 1) body["stream"] = true;
    clients.back()->Send(ApiFixture::Bytes("POST", kChat, body.dump()));
    if (i == 40) REQUIRE(f.engine->WaitRunning(1));
  }
  f.engine->SetPaused(false);
  std::string stream;
  for (int i = 0; i < 100; ++i) {
    if (i % 2 == 0) {
      const JsonReply reply = CacheFixture::Read(*clients[i]);
      REQUIRE(reply.status == 200);
      CHECK(reply.json["choices"][0]["message"]["content"] == "Hello, world!");
    } else {
      const std::string events = Plain(CacheFixture::ReadStream(*clients[i]).second);
      if (stream.empty()) stream = events;
      CHECK(events == stream);
    }
  }
  CHECK(f.num_generated() == 1);
  const ResponseCacheStats stats = f.cache->stats();
  CHECK(stats.num_misses == 1);
  CHECK(stats.num_hits + stats.num_coalesced == 99);
}

struct Reader {
  std::string text;
  FinishReason finish = FinishReason::kNone;
  absl::Notification is_over;
  std::unique_ptr<Generation> generation;

  DeltaSink Sink() {
    return [this](TextDelta&& delta) {
      text += delta.text;
      finish = delta.finish;
      if (delta.finish != FinishReason::kNone) is_over.Notify();
      return true;
    };
  }
  CacheOutcome Ask(Generator& generator, int32_t priority = 0) {
    CompletionRequest request{.prompts = {std::string("hi")}, .params = {.temperature = 0.0f, .priority = priority}};
    auto started = generator.Complete({.received = absl::Now()}, request, Sink());
    if (!started.ok()) return CacheOutcome::kNone;
    generation = *std::move(started);
    return generation->cache().outcome;
  }
};

TEST_CASE("ResponseCache: the generation lives while any of its readers does", "[response_cache]") {
  CacheFixture f;
  f.engine->SetPaused(true);
  Reader leader, follower, third;
  CHECK(leader.Ask(*f.generator) == CacheOutcome::kMiss);
  CHECK(follower.Ask(*f.generator) == CacheOutcome::kCoalesced);
  CHECK(third.Ask(*f.generator) == CacheOutcome::kCoalesced);
  leader.generation.reset();
  third.generation.reset();
  CHECK(f.engine->num_cancelled() == 0);
  f.engine->SetPaused(false);
  follower.is_over.WaitForNotification();
  CHECK(follower.text == "Hello, world!");
  CHECK(leader.finish == FinishReason::kNone);
  CHECK(f.num_generated() == 1);
}

TEST_CASE("ResponseCache: without a reader the generation is cancelled, and the next one is computed",
          "[response_cache]") {
  CacheFixture f;
  f.engine->SetPaused(true);
  Reader leader, follower, later;
  CHECK(leader.Ask(*f.generator) == CacheOutcome::kMiss);
  CHECK(follower.Ask(*f.generator) == CacheOutcome::kCoalesced);
  leader.generation.reset();
  follower.generation.reset();
  CHECK(f.engine->num_cancelled() == 1);
  CHECK(later.Ask(*f.generator) == CacheOutcome::kMiss);
  f.engine->SetPaused(false);
  later.is_over.WaitForNotification();
  CHECK(later.text == "Hello, world!");
}

TEST_CASE("ResponseCache: the failure of a shared generation is that of each reader", "[response_cache]") {
  CacheFixture f;
  f.engine->SetPaused(true);
  Reader leader, follower;
  leader.Ask(*f.generator);
  CHECK(follower.Ask(*f.generator) == CacheOutcome::kCoalesced);
  f.engine->FailAll(FinishReason::kError);
  leader.is_over.WaitForNotification();
  follower.is_over.WaitForNotification();
  CHECK(leader.finish == FinishReason::kError);
  CHECK(follower.finish == FinishReason::kError);
  CHECK(f.cache->stats().store.num_entries == 0);
}

TEST_CASE("ResponseCache: who waits for a leader that is refused tries alone", "[response_cache]") {
  absl::Notification is_submitting, may_submit;
  std::atomic<int> num_submits{0};
  CacheFixture f({.max_running = 0, .on_submit = [&] {
                    if (num_submits++ > 0) return;
                    is_submitting.Notify();
                    may_submit.WaitForNotification();
                  }});
  Reader leader, follower;
  std::thread first([&] { CHECK(leader.Ask(*f.generator) == CacheOutcome::kNone); });
  is_submitting.WaitForNotification();
  std::thread second([&] { CHECK(follower.Ask(*f.generator) == CacheOutcome::kNone); });
  may_submit.Notify();
  first.join();
  second.join();
  CHECK(num_submits == 2);
}

TEST_CASE("ResponseCache: who is in a hurry does not wait behind who is not", "[response_cache]") {
  CacheFixture f;
  f.engine->SetPaused(true);
  Reader slow, fast;
  CHECK(slow.Ask(*f.generator, /*priority=*/5) == CacheOutcome::kMiss);
  CHECK(fast.Ask(*f.generator, /*priority=*/0) == CacheOutcome::kMiss);
  CHECK(f.num_generated() == 2);
}

TEST_CASE("ResponseCache: servers share one Redis, and go on without it", "[response_cache][redis]") {
  if (!RedisProcess::IsInstalled()) {
    WARN("[SKIPPED] redis-server is not installed");
    return;
  }
  RedisProcess redis;
  REQUIRE(redis.Start());
  const RedisStoreOptions options{.address = {.host = "127.0.0.1", .port = redis.port()}};
  auto first = RedisStore::Start(options), second = RedisStore::Start(options);
  RedisStore *one = first.get(), *two = second.get();
  REQUIRE(one->AwaitReady(absl::Seconds(20)));
  REQUIRE(two->AwaitReady(absl::Seconds(20)));
  CacheFixture a({}, {}, std::move(first)), b({}, {}, std::move(second));
  const auto outcome = [](const JsonReply& reply) { return HeaderOf(reply.head, "x-millrace-cache"); };
  const JsonReply miss = a.Call(kChat, Chat());
  REQUIRE(one->AwaitReady(absl::Seconds(20)));
  const JsonReply hit = b.Call(kChat, Chat());
  CHECK(outcome(hit) == "hit");
  CHECK(Plain(hit.body) == Plain(miss.body));
  CHECK(b.num_generated() == 0);
  // Whatever else is under the key is a miss, and is written over.
  auto connection = RedisConnection::Open(options.address, absl::Seconds(20)).value();
  const std::string name = connection->Run({"KEYS", "*"}).value().items.at(0).text;
  for (const std::string& garbage : {std::string(), std::string("garbage"), std::string(10'000, '\xFF')}) {
    REQUIRE(connection->Run({"SET", name, garbage}).ok());
    CHECK(outcome(b.Call(kChat, Chat())) == "miss");
    REQUIRE(two->AwaitReady(absl::Seconds(20)));
    CHECK(outcome(a.Call(kChat, Chat())) == "hit");
  }
  redis.Kill();
  for (int i = 0; i < 20; ++i) {
    const JsonReply reply = a.Call(kChat, Chat());
    CHECK(reply.status == 200);
    CHECK(Plain(reply.body) == Plain(miss.body));
    CHECK(outcome(reply) == "miss");
  }
  REQUIRE(a.keys.AddText("- {key: boss, roles: [admin]}\n", "keys").ok());
  CHECK(a.Call("/admin/cache/purge", json::object(), "Authorization: Bearer boss\r\n").status == 503);
}

TEST_CASE("ResponseCache: many readers that come and go, at any time", "[response_cache]") {
  CacheFixture f({.answer = std::string(200, 'y')});
  std::vector<std::thread> threads;
  std::atomic<int> num_wrong{0};
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&f, &num_wrong, t] {
      for (int i = 0; i < 100; ++i) {
        Reader reader;
        const bool stays = (i + t) % 3 != 0;
        if (i % 10 == 9) f.cache->Purge({}).value();
        if (reader.Ask(*f.generator) == CacheOutcome::kNone) ++num_wrong;
        if (stays) reader.is_over.WaitForNotification();
        if (stays && reader.text.size() != 16) ++num_wrong;  // a completion's default limit
        reader.generation.reset();
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  CHECK(num_wrong == 0);
}

}  // namespace
}  // namespace millrace
