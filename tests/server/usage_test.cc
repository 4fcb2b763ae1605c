// SPDX-License-Identifier: Apache-2.0
// Who has used how much: the ledger, what administrators read of it, and that it agrees with every other count.
#include <catch2/catch.hpp>
#include <random>
#include <thread>

#include "absl/strings/numbers.h"
#include "absl/strings/str_split.h"
#include "tests/server/api_fixture.h"

namespace millrace {
namespace {

// The sum of a metric's samples whose labels contain `label`.
int64_t SumOf(const std::string& page, const std::string& metric, const std::string& label = "") {
  int64_t sum = 0;
  for (const absl::string_view line : absl::StrSplit(page, '\n')) {
    int64_t value = 0;
    const bool is_meant = line.substr(0, metric.size()) == metric && line.find(label) != absl::string_view::npos;
    if (is_meant && absl::SimpleAtoi(line.substr(line.rfind(' ') + 1), &value)) sum += value;
  }
  return sum;
}

TEST_CASE("UsageLedger: counts by day, and the oldest days go first", "[usage]") {
  absl::Time now = absl::FromCivil(absl::CivilSecond(2026, 2, 28, 23, 59, 59), absl::UTCTimeZone());
  UsageLedger ledger([&now] { return now; }, {.max_tenants = 2, .max_rows = 3});
  ledger.OnPrefilled("b", 10, 4);
  ledger.OnGenerated("b", 3);
  ledger.OnFinished("b", FinishReason::kStop);
  now += absl::Seconds(1);
  ledger.OnFinished("b", FinishReason::kCancelled);
  ledger.OnFinished("", FinishReason::kError);
  ledger.OnRejected("third");
  std::vector<TenantUsage> report = ledger.Report();
  REQUIRE(report.size() == 3);
  CHECK(report[0].tenant == "anonymous");
  CHECK(report[0].total == UsageCounts{.num_failed = 1});
  CHECK(report[1].tenant == "b");
  CHECK(report[1].total == UsageCounts{.num_completed = 1,
                                       .num_cancelled = 1,
                                       .num_prompt_tokens = 10,
                                       .num_cached_tokens = 4,
                                       .num_generated_tokens = 3});
  REQUIRE(report[1].days.size() == 1);  // four rows: the first day is gone, its counts stay in the total
  CHECK(report[1].days[0].day == absl::CivilDay(2026, 3, 1));
  CHECK(report[1].days[0].counts == UsageCounts{.num_cancelled = 1});
  CHECK(report[2].tenant == "other");
  CHECK(report[2].total == UsageCounts{.num_rejected = 1});
}

TEST_CASE("Usage: administrators read it as JSON and as CSV", "[usage]") {
  ApiFixture f;
  REQUIRE(
      f.keys.AddText("- {key: a, tenant: acme}\n- {key: boss, name: root, roles: admin, expires: 2030-01-31}\n", "k")
          .ok());
  const std::string body = R"({"prompt":"abcd","max_tokens":5})";
  CHECK(f.Call("POST", "/v1/completions", body, "x-api-key: a\r\n").status == 200);
  f.seconds += 86'400;
  CHECK(f.Call("POST", "/v1/completions", body, "x-api-key: a\r\n").status == 200);
  const auto get = [&f](const std::string& path) { return f.Call("GET", path, "", "x-api-key: boss\r\n"); };
  const nlohmann::json usage = get("/admin/usage").json;
  CHECK(usage["since"] == "1970-01-12T13:46:40Z");
  REQUIRE(usage["data"].size() == 1);
  const nlohmann::json& acme = usage["data"][0];
  CHECK(acme["tenant"] == "acme");
  CHECK(acme["model"] == "fake");
  CHECK(acme["completed"] == 2);
  CHECK(acme["prompt_tokens"] == 8);
  CHECK(acme["generated_tokens"] == 10);
  REQUIRE(acme["days"].size() == 2);
  CHECK(acme["days"][1]["day"] == "1970-01-13");
  CHECK(acme["days"][1]["generated_tokens"] == 5);
  CHECK(get("/admin/usage?format=json").json == usage);
  const JsonReply csv = get("/admin/usage?format=csv");
  CHECK(csv.head.find("text/csv") != std::string::npos);
  CHECK(csv.body ==
        "tenant,model,day,completed,cancelled,failed,rejected,prompt_tokens,cached_tokens,generated_tokens\r\n"
        "acme,\"fake\",1970-01-12,1,0,0,0,4,0,5\r\nacme,\"fake\",1970-01-13,1,0,0,0,4,0,5\r\n");
  CHECK(get("/admin/usage?format=xml").status == 400);
  const nlohmann::json keys = get("/admin/keys").json;
  REQUIRE(keys["data"].size() == 2);
  CHECK(keys["data"][0]["roles"] == nlohmann::json{"infer"});
  CHECK(keys["data"][0]["expires"].is_null());
  CHECK(keys["data"][1]["name"] == "root");
  CHECK(keys["data"][1]["tenant"] == "anonymous");
  CHECK(keys["data"][1]["expires"] == "2030-01-31T00:00:00Z");
  for (const char* path : {"/admin/usage", "/admin/keys"}) {
    CHECK(f.Call("GET", path, "", "x-api-key: a\r\n").status == 403);
    CHECK(f.Get(path).status == 401);
    CHECK(ApiFixture().Get(path).status == 403);  // without keys there are no administrators
  }
}

TEST_CASE("Admin: the prefix cache of one tenant or of all is reset, by administrators alone", "[admin]") {
  std::vector<std::optional<uint64_t>> asked;
  absl::Status fault;
  ApiFixture f({.on_reset = [&](std::optional<uint64_t> salt) -> absl::StatusOr<int32_t> {
    asked.push_back(salt);
    if (!fault.ok()) return fault;
    return 7;
  }});
  REQUIRE(f.keys.AddText("- {key: a, tenant: acme}\n- {key: boss, roles: admin}\n", "k").ok());
  const std::string path = "/admin/prefix-cache/reset";
  const auto reset = [&](const std::string& body) { return f.Call("POST", path, body, "x-api-key: boss\r\n"); };
  CHECK(reset("").json == nlohmann::json{{"freed_pages", 7}});
  CHECK(reset("{}").status == 200);
  CHECK(reset(R"({"tenant":"acme"})").status == 200);
  CHECK(reset(R"({"tenant":"","model":"fake"})").status == 200);
  CHECK(asked == std::vector<std::optional<uint64_t>>{std::nullopt, std::nullopt, TenantSalt("acme"), 0});
  CHECK(f.keys.Authorize("", "a", Access::kInfer)->tenant.salt == TenantSalt("acme"));
  for (const char* body : {"[]", "{", R"({"tenant":7})", R"({"tenant":null,"model":7})"}) {
    INFO(body);
    CHECK(reset(body).status == 400);
  }
  CHECK(reset(R"({"model":"other"})").status == 404);
  CHECK(f.Call("POST", path, "", "x-api-key: a\r\n").status == 403);
  CHECK(f.Call("POST", path).status == 401);
  CHECK(ApiFixture().Call("POST", path).status == 403);  // without keys there are no administrators
  CHECK(asked.size() == 4);
  fault = absl::DeadlineExceededError("long");
  CHECK(reset("").status == 504);
  f.state.BeginDrain();
  CHECK(reset("").status == 503);
}

struct Chaos {
  explicit Chaos(ApiFixture& fixture) : f(fixture) {}
  // One request of tenant `t`: whole, streamed, left half-way, failing or refused.
  void Send(int t, std::mt19937& random) {
    const std::string headers = absl::StrCat("x-api-key: k", t, "\r\n");
    nlohmann::json body = {{"prompt", std::string(1 + random() % 40, 'p')}, {"max_tokens", 1 + random() % 30}};
    switch (t == 2 ? 0 : random() % 4) {
      case 0: {
        const JsonReply reply = f.Call("POST", "/v1/completions", body.dump(), headers);
        if (t == 2 && reply.status == 200) num_seen += reply.json["usage"]["total_tokens"].get<int64_t>();
        break;
      }
      case 1:
        body["prompt"] = "E";  // the engine gives up on it
        f.Call("POST", "/v1/completions", body.dump(), headers);
        break;
      case 2: {
        body["stream"] = true;
        RawClient client(f.server->port());
        client.Send(ApiFixture::Bytes("POST", "/v1/completions", body.dump(), headers));
        client.ReadUntilText("data: ");
        client.Reset();
        break;
      }
      default: {
        RawClient client(f.server->port());
        client.Send(ApiFixture::Bytes("POST", "/v1/completions", body.dump(), headers));
        client.Close();
      }
    }
  }
  int64_t NumEnded() const {
    int64_t num_ended = 0;
    for (const TenantUsage& usage : f.usage.Report()) {
      num_ended += usage.total.num_completed + usage.total.num_cancelled + usage.total.num_failed;
    }
    return num_ended;
  }
  // Every request that reached the engine is over, for the ledger too.
  bool Settle() const {
    const absl::Time limit = absl::Now() + absl::Seconds(20);
    if (!f.server->WaitIdle(limit)) return false;
    while (NumEnded() != static_cast<int64_t>(f.engine->submitted().size()) && absl::Now() < limit) {
      std::this_thread::yield();
    }
    return NumEnded() == static_cast<int64_t>(f.engine->submitted().size());
  }

  ApiFixture& f;
  std::atomic<int64_t> num_seen{0};  // by the tenant that lets every request end
};

TEST_CASE("Usage: after cancels and errors every sum equals the counters, and every lease is settled", "[usage]") {
  constexpr int64_t kLimit = 1'000'000'000;
  ApiFixture f({.script =
                    [](const Request& request, int32_t position) {
                      return request.prompt_tokens[0] == 'E' && position >= 2 ? -1 : 'a' + position % 26;
                    },
                .max_running = 6,
                .num_cached_tokens = 1});
  std::string file;
  for (int t = 0; t < 3; ++t) {
    absl::StrAppend(&file, "- {key: k", t, ", name: k", t, ", tenant: t", t, ", requests_per_minute: ", kLimit,
                    ", tokens_per_minute: ", kLimit, ", concurrent_requests: 3}\n");
  }
  REQUIRE(f.keys.AddText(file, "k").ok());
  Chaos chaos(f);
  std::vector<std::thread> clients;
  for (int i = 0; i < 9; ++i) {
    clients.emplace_back([&chaos, i] {
      std::mt19937 random(i);
      for (int round = 0; round < 60; ++round) chaos.Send(i % 3, random);
    });
  }
  for (std::thread& client : clients) client.join();
  REQUIRE(chaos.Settle());

  const std::string page = f.metrics->Scrape(nullptr, {});
  UsageCounts sum;
  for (const TenantUsage& usage : f.usage.Report()) {
    sum.Add(usage.total);
    const std::string tenant = absl::StrCat("tenant=\"", usage.tenant, "\"");
    CHECK(SumOf(page, "millrace_tenant_requests_total{", tenant) ==
          usage.total.num_completed + usage.total.num_cancelled + usage.total.num_failed);
    CHECK(SumOf(page, "millrace_tenant_rejections_total{", tenant) == usage.total.num_rejected);
    CHECK(SumOf(page, "millrace_tenant_tokens_total{", tenant) ==
          usage.total.num_prompt_tokens + usage.total.num_cached_tokens + usage.total.num_generated_tokens);
    if (usage.tenant == "t2") CHECK(usage.total.num_prompt_tokens + usage.total.num_generated_tokens == chaos.num_seen);
    for (const KeyInfo& key : f.keys.List()) {
      if (key.tenant != usage.tenant) continue;
      CHECK(key.state.tokens.remaining == kLimit - usage.total.num_prompt_tokens - usage.total.num_generated_tokens);
      CHECK(key.state.requests.remaining ==
            kLimit - usage.total.num_completed - usage.total.num_cancelled - usage.total.num_failed);
    }
  }
  CHECK(sum.num_prompt_tokens == SumOf(page, "vllm:prompt_tokens_total{"));
  CHECK(sum.num_cached_tokens == SumOf(page, "vllm:prompt_tokens_cached_total{"));
  CHECK(sum.num_generated_tokens == SumOf(page, "vllm:generation_tokens_total{"));
  CHECK(sum.num_rejected == SumOf(page, "vllm:admission_rejections_total{"));
  CHECK(sum.num_failed == SumOf(page, "vllm:request_success_total{", "finished_reason=\"error\""));
  CHECK(sum.num_cancelled == SumOf(page, "vllm:request_success_total{", "finished_reason=\"abort\""));
  CHECK((sum.num_completed > 0 && sum.num_failed > 0));
}

}  // namespace
}  // namespace millrace
