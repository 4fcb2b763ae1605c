// SPDX-License-Identifier: Apache-2.0
// What a session's pages are kept from, and what they are not.
#include <catch2/catch.hpp>

#include "tests/scheduler/scheduler_fixture.h"

namespace millrace {
namespace {

using testing::Bench;
using testing::Config;
using testing::MakeRequest;

SchedulerConfig PinConfig(int32_t num_pages, double share = 0.5) {
  SchedulerConfig config = Config(num_pages);
  config.max_pinned_share = share;
  return config;
}

Request Turn(uint64_t id, uint64_t session, int32_t num_prompt, int32_t first_token = 0) {
  Request request = MakeRequest(id, num_prompt, 1, first_token);
  request.session = session;
  return request;
}

// What a request with this prompt finds. It pins nothing itself.
int32_t Found(Bench& bench, Request request) {
  static uint64_t next_id = 1000;
  request.id = {next_id++};
  request.session = 0;
  request.max_new_tokens = 1;
  bench.Add(request);
  bench.Drain();
  return bench.finish[request.id.value].num_cached_tokens;
}

// Fills every page that is to be had, one prompt after the other.
void Flood(Bench& bench, uint64_t first_id) {
  for (uint64_t i = 0; i < 10; ++i) {
    bench.Add(MakeRequest(first_id + i, 24, 1, static_cast<int32_t>(31 + 5 * i)));
    bench.Drain();
  }
}

TEST_CASE("Session pins: a session's pages outlive pressure that takes cached ones") {
  Bench bench(PinConfig(20));
  const Request kept = Turn(1, 7, 20);
  const Request cached = Turn(2, 0, 20, 60);
  bench.Add(kept);
  bench.Add(cached);
  bench.Drain();
  CHECK(bench.scheduler->stats().num_pages_pinned == 5);
  CHECK(bench.scheduler->stats().num_pages_used == 0);
  Flood(bench, 10);
  CHECK(Found(bench, cached) == 0);
  CHECK(Found(bench, kept) == 16);  // the last page holds the last token, which is always computed
}

TEST_CASE("Session pins: released, or past their time, they are cached pages like others") {
  for (const bool is_released : {true, false}) {
    Bench bench(PinConfig(20));
    bench.Add(Turn(1, 7, 20));
    bench.Drain();
    CHECK(bench.scheduler->NextDeadline() == bench.now + bench.config.max_pin_time);
    if (is_released) {
      bench.scheduler->ReleaseSession(7);
    } else {
      bench.now += bench.config.max_pin_time;
      bench.Step();  // nothing waits: it is for the time alone
    }
    CHECK(bench.scheduler->stats().num_pages_pinned == 0);
    CHECK(bench.scheduler->NextDeadline() == absl::InfiniteFuture());
    Flood(bench, 10);
    CHECK(Found(bench, Turn(1, 7, 20)) == 0);
  }
}

TEST_CASE("Session pins: beyond the budget the oldest session gives up pages, at last the newest its end") {
  Bench bench(PinConfig(40, 0.25));  // ten pages
  bench.Add(Turn(1, 1, 20));
  bench.Drain();
  bench.Add(Turn(2, 2, 20, 30));
  bench.Drain();
  CHECK(bench.scheduler->stats().num_pages_pinned == 10);
  bench.Add(Turn(3, 3, 4, 60));
  bench.Drain();
  CHECK(bench.scheduler->stats().num_pages_pinned == 10);
  bench.Add(Turn(4, 4, 60, 70));
  bench.Drain();
  CHECK(bench.scheduler->stats().num_pages_pinned == 10);
  Bench none(PinConfig(40, 0));
  none.Add(Turn(1, 1, 20));
  none.Drain();
  CHECK(none.scheduler->stats().num_pages_pinned == 0);
}

TEST_CASE("Session pins: a session's next request replaces what was pinned") {
  Bench bench(PinConfig(40));
  bench.Add(Turn(1, 7, 20));
  bench.Drain();
  Request next = Turn(2, 7, 28);
  bench.Add(next);
  bench.Drain();
  CHECK(bench.finish[2].num_cached_tokens == 20);
  CHECK(bench.scheduler->stats().num_pages_pinned == 7);
}

TEST_CASE("Session pins: requests that were cancelled or failed pin nothing, one that stopped early does") {
  Bench bench(PinConfig(40));
  Request request = Turn(1, 7, 20);
  request.max_new_tokens = 50;
  bench.Add(request);
  bench.Step();
  bench.Step();
  bench.scheduler->Cancel({1});
  bench.Drain();
  CHECK(bench.scheduler->stats().num_pages_pinned == 0);
  request.id = {2};
  bench.Add(request);
  const StepPlan& plan = bench.scheduler->Plan(bench.now);
  StepResult result = bench.model.Run(plan);
  result.sequences[0].is_failed = true;
  bench.Take(bench.scheduler->Commit(result, bench.now));
  CHECK(bench.scheduler->stats().num_pages_pinned == 0);
  request.id = {3};
  bench.Add(request);
  bench.Step();
  bench.Step();
  bench.scheduler->Finish({3});
  CHECK(bench.scheduler->stats().num_pages_pinned == 5);
  REQUIRE(bench.scheduler->CheckIntegrity() == absl::OkStatus());
}

TEST_CASE("Session pins: logits that fail in pinned pages give up the pins, and nobody finds the pages") {
  Bench bench(PinConfig(40));
  bench.Add(Turn(1, 7, 20));
  bench.Drain();
  bench.Add(Turn(2, 8, 28));
  const StepPlan& plan = bench.scheduler->Plan(bench.now);
  StepResult result = bench.model.Run(plan);
  result.sequences[0].is_failed = true;
  bench.Take(bench.scheduler->Commit(result, bench.now));
  CHECK(bench.scheduler->stats().num_pages_pinned == 0);
  CHECK(Found(bench, Turn(1, 7, 20)) == 0);
}

TEST_CASE("Session pins: another tenant finds nothing in them") {
  Bench bench(PinConfig(40));
  Request request = Turn(1, 7, 20);
  request.tenant = {.name = "a", .salt = 5};
  bench.Add(request);
  bench.Drain();
  request.tenant = {.name = "b", .salt = 6};
  CHECK(Found(bench, request) == 0);
}

// Of a tenant: a session of `num_pages`, with a text of its own.
void RunSession(Bench& bench, uint64_t session, Tenant tenant, int32_t num_pages) {
  Request request = Turn(session, session, 4 * num_pages, static_cast<int32_t>(17 * session));
  request.tenant = std::move(tenant);
  bench.Add(request);
  bench.Drain();
}

TEST_CASE("Session pins: one tenant may have all of the budget, and its weighted share once others ask") {
  const Tenant a{.name = "a", .salt = 5}, b{.name = "b", .salt = 6}, heavy{.name = "c", .salt = 7, .weight = 2};
  const auto pinned_by = [](Bench& bench, const Tenant& tenant) {
    const int32_t before = bench.scheduler->stats().num_pages_pinned;
    bench.scheduler->ResetPrefixCache(tenant.salt);
    return before - bench.scheduler->stats().num_pages_pinned;
  };
  SECTION("alone") {
    Bench bench(PinConfig(48, 0.25));  // twelve pages
    for (uint64_t session = 1; session <= 4; ++session) RunSession(bench, session, a, 4);
    CHECK(pinned_by(bench, a) == 12);
  }
  SECTION("another comes: half each, and it takes no more than that") {
    Bench bench(PinConfig(48, 0.25));
    for (uint64_t session = 1; session <= 3; ++session) RunSession(bench, session, a, 4);
    for (uint64_t session = 4; session <= 8; ++session) RunSession(bench, session, b, 4);
    CHECK(pinned_by(bench, a) == 6);
    CHECK(pinned_by(bench, b) == 6);
  }
  SECTION("by weight") {
    Bench bench(PinConfig(48, 0.25));
    for (uint64_t session = 1; session <= 3; ++session) RunSession(bench, session, a, 4);
    for (uint64_t session = 4; session <= 8; ++session) RunSession(bench, session, heavy, 4);
    CHECK(pinned_by(bench, a) == 4);
    CHECK(pinned_by(bench, heavy) == 8);
  }
  SECTION("what one does not need is the others'") {
    Bench bench(PinConfig(48, 0.25));
    RunSession(bench, 1, b, 2);
    for (uint64_t session = 2; session <= 5; ++session) RunSession(bench, session, a, 4);
    CHECK(pinned_by(bench, b) == 2);
    CHECK(pinned_by(bench, a) == 10);
  }
}

TEST_CASE("Session pins: a reset of one tenant's pages leaves the others' alone") {
  const Tenant a{.name = "a", .salt = 5}, b{.name = "b", .salt = 6};
  Bench bench(PinConfig(80));
  RunSession(bench, 1, a, 5);
  RunSession(bench, 2, b, 5);
  Request running = MakeRequest(3, 20, 50, 90);
  running.tenant = a;
  bench.Add(running);
  bench.Step();
  CHECK(bench.scheduler->ResetPrefixCache(a.salt) == 5);
  CHECK(bench.scheduler->ResetPrefixCache(a.salt) == 0);
  REQUIRE(bench.scheduler->CheckIntegrity() == absl::OkStatus());
  CHECK(bench.scheduler->stats().num_pages_pinned == 5);
  CHECK(bench.scheduler->stats().num_pages_used >= 5);  // of the running one
  bench.Drain();
  CHECK(bench.finish[3].finish == FinishReason::kLength);
  for (const auto& [session, tenant, num_found] : {std::tuple{1, a, 0}, std::tuple{2, b, 16}}) {
    Request request = Turn(1, 0, 20, 17 * session);
    request.tenant = tenant;
    CHECK(Found(bench, request) == num_found);
  }
}

TEST_CASE("Session pins: newcomers wait rather than take them, but nobody waits for good") {
  Bench bench(PinConfig(20));
  bench.Add(Turn(1, 7, 36));
  bench.Drain();
  CHECK(bench.scheduler->stats().num_pages_pinned == 9);
  bench.Add(MakeRequest(2, 24, 4, 40));
  bench.Step();
  bench.Add(MakeRequest(3, 24, 4, 60));
  CHECK(bench.RowsOf(3, bench.Step()) == 0);
  CHECK(bench.scheduler->stats().num_waiting == 1);
  bench.Drain();
  CHECK(bench.finish[3].finish == FinishReason::kLength);
  // Alone, a request may have every page.
  bench.Add(MakeRequest(4, 76, 4, 50));
  bench.Drain();
  CHECK(bench.finish[4].finish == FinishReason::kLength);
  CHECK(bench.scheduler->stats().num_pages_pinned == 0);
}

TEST_CASE("Session pins: a running sequence takes them before anybody is preempted") {
  Bench bench(PinConfig(20));
  bench.Add(Turn(1, 7, 36));
  bench.Drain();
  bench.Add(MakeRequest(2, 8, 60, 40));
  bench.Add(MakeRequest(3, 8, 10, 60));
  bench.Drain();
  CHECK(bench.scheduler->stats().num_preemptions == 0);
  CHECK(bench.finish[2].finish == FinishReason::kLength);
}

}  // namespace
}  // namespace millrace
