// SPDX-License-Identifier: Apache-2.0
// Who makes way for whom when every slot or page is taken.
#include <catch2/catch.hpp>

#include "tests/scheduler/fake_model.h"
#include "tests/scheduler/scheduler_fixture.h"

namespace millrace {
namespace {

using testing::Bench;
using testing::Config;
using testing::MakeRequest;

constexpr int32_t kTurn = 10;

SchedulerConfig Slots(int32_t num_slots) {
  SchedulerConfig config = Config(2000);
  config.max_sequences = num_slots;
  config.min_turn_tokens = kTurn;
  return config;
}

Request Of(const std::string& tenant, uint64_t id, int32_t max_new, double weight = 1) {
  Request request = MakeRequest(id, 5, max_new, static_cast<int32_t>(id * 11));
  request.tenant = {.name = tenant, .salt = std::hash<std::string>()(tenant), .weight = weight};
  return request;
}

// Steps until the request is in a plan, that one included.
int StepsUntilPlanned(Bench& bench, uint64_t id) {
  for (int num_steps = 1; num_steps <= 1000; ++num_steps) {
    if (bench.RowsOf(id, bench.Step()) > 0) return num_steps;
  }
  return 1000;
}

void CheckSolo(Bench& bench, const std::vector<Request>& requests) {
  bench.Drain(100000);
  for (const Request& request : requests) {
    CHECK(bench.output[request.id.value] == FakeModel::Solo(request, bench.config.max_model_tokens));
  }
}

TEST_CASE("Scheduler: a tenant that took every slot makes way after a turn, newest first, down to an equal share") {
  Bench bench(Slots(4));
  std::vector<Request> requests;
  for (uint64_t id = 1; id <= 4; ++id) requests.push_back(Of("hoarder", id, 500));
  for (const Request& request : requests) bench.Add(request);
  bench.Step();
  for (uint64_t id = 5; id <= 8; ++id) {
    requests.push_back(Of("guest", id, 500));
    bench.Add(requests.back());
  }
  CHECK(StepsUntilPlanned(bench, 5) <= kTurn + 1);
  CHECK(bench.output[4].size() >= kTurn);
  for (int i = 0; i < 40; ++i) bench.Step();
  const StepPlan& plan = bench.Step();
  for (const uint64_t id : {1, 2, 5, 6}) CHECK(bench.RowsOf(id, plan) == 1);
  CHECK(bench.scheduler->stats().num_preemptions == 2);
  CheckSolo(bench, requests);
}

TEST_CASE("Scheduler: slots are shared by weight") {
  Bench bench(Slots(8));
  for (uint64_t id = 1; id <= 8; ++id) bench.Add(Of("light", id, 500));
  bench.Step();
  for (uint64_t id = 11; id <= 18; ++id) bench.Add(Of("heavy", id, 500, 3));
  for (int i = 0; i < 60; ++i) bench.Step();
  int num_heavy = 0;
  for (const PlannedSequence& sequence : bench.Step().sequences) num_heavy += sequence.id.value > 10;
  CHECK(num_heavy == 6);
}

TEST_CASE("Scheduler: a tenant that took every page makes way") {
  SchedulerConfig config = Config(60);
  config.min_turn_tokens = kTurn;
  Bench bench(config);
  std::vector<Request> requests;
  for (uint64_t id = 1; id <= 4; ++id) requests.push_back(Of("hoarder", id, 140));
  for (const Request& request : requests) bench.Add(request);
  while (bench.scheduler->stats().num_pages_used < 54) bench.Step();
  Request large = MakeRequest(5, 40, 30, 50);
  large.tenant.name = "guest";
  requests.push_back(large);
  bench.Add(large);
  CHECK(StepsUntilPlanned(bench, 5) <= kTurn);
  const uint64_t num_before = bench.scheduler->stats().num_preemptions;
  int num_idle_steps = 0;
  while (bench.finish.count(5) == 0) num_idle_steps += bench.RowsOf(5, bench.Step()) == 0;
  CHECK(num_idle_steps <= config.page_tokens);  // until the hoarder's next one needs a page itself
  CHECK(bench.scheduler->stats().num_preemptions <= num_before + 2);
  CheckSolo(bench, requests);
}

TEST_CASE("Scheduler: nobody makes way in vain, for a request that would not fit even so") {
  SchedulerConfig config = Config(60);
  config.min_turn_tokens = kTurn;
  Bench bench(config);
  for (uint64_t id = 1; id <= 2; ++id) bench.Add(Of("hoarder", id, 100));
  for (int i = 0; i < 2 * kTurn; ++i) bench.Step();
  Request large = MakeRequest(5, 230, 5, 50);
  large.tenant.name = "guest";
  bench.Add(large);
  for (int i = 0; i < 2 * kTurn; ++i) bench.Step();
  CHECK(bench.scheduler->stats().num_preemptions == 0);
  bench.Drain();
}

TEST_CASE("Scheduler: equal tenants with a request each never displace one another") {
  Bench bench(Slots(2));
  for (uint64_t id = 1; id <= 5; ++id) bench.Add(Of("t" + std::to_string(id), id, 300));
  bench.Drain();
  CHECK(bench.scheduler->stats().num_preemptions == 0);
}

TEST_CASE("Scheduler: a stream of short requests costs a hoarder no more than a turn's work for each turn") {
  Bench bench(Slots(2));
  std::vector<Request> requests = {Of("hoarder", 1, 600), Of("hoarder", 2, 600)};
  for (const Request& request : requests) bench.Add(request);
  uint64_t next_id = 10;
  while (bench.finish.size() < next_id - 10 + 2) {
    if (bench.scheduler->stats().num_waiting < 2 && next_id < 110) {
      requests.push_back(Of("guest", next_id++, 3));
      bench.Add(requests.back());
    }
    bench.Step();
  }
  CHECK(bench.scheduler->stats().num_preemptions > 3);
  CHECK(bench.scheduler->stats().num_preemptions <= 600 / kTurn);
  CheckSolo(bench, requests);
}

TEST_CASE("Scheduler: a strictly better priority displaces the newest of the worst, an equal one of the tenant none") {
  Bench bench(Slots(3));
  for (uint64_t id = 1; id <= 3; ++id) {
    Request request = Of("one", id, 300);
    request.priority = id == 2 ? 2 : 1;
    bench.Add(request);
  }
  for (int i = 0; i < 2 * kTurn; ++i) bench.Step();
  Request equal = Of("one", 4, 300), better = Of("one", 5, 300);
  equal.priority = 2;
  bench.Add(equal);
  for (int i = 0; i < 2 * kTurn; ++i) CHECK(bench.RowsOf(4, bench.Step()) == 0);
  bench.Add(better);
  const StepPlan& plan = bench.Step();
  CHECK(bench.RowsOf(5, plan) == 5);
  CHECK(bench.RowsOf(2, plan) == 0);
  CHECK(bench.RowsOf(3, plan) == 1);
  Request worse = Of("two", 6, 5);
  worse.priority = 3;
  bench.Add(worse);
  for (int i = 0; i < 2 * kTurn; ++i) CHECK(bench.RowsOf(6, bench.Step()) == 0);
  bench.Drain();
}

}  // namespace
}  // namespace millrace
