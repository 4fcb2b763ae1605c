// SPDX-License-Identifier: Apache-2.0
// What the scheduler promises, one promise per case; the random walks are in scheduler_walk_test.cc.
#include "scheduler/scheduler.h"

#include <catch2/catch.hpp>
#include <map>

#include "tests/scheduler/fake_model.h"
#include "tests/scheduler/scheduler_fixture.h"

namespace millrace {
namespace {

using testing::Bench;
using testing::Config;
using testing::kStart;
using testing::MakeRequest;

TEST_CASE("Scheduler: chunked prefill gives the tokens of whole prefill") {
  for (const int32_t step_tokens : {1, 3, 7, 16, 64, 4096}) {
    SchedulerConfig config = Config(100, step_tokens);
    Bench bench(config);
    const Request request = MakeRequest(1, 101, 9);
    bench.Add(request);
    bench.Drain();
    CHECK(bench.output[1] == FakeModel::Solo(request, config.max_model_tokens));
    CHECK(bench.finish[1].finish == FinishReason::kLength);
    CHECK(bench.scheduler->stats().num_pages_used == 0);
  }
}

TEST_CASE("Scheduler: a long prompt stalls neither decodes nor short prompts") {
  Bench bench(Config(400, 32));
  bench.Add(MakeRequest(1, 4, 50));
  bench.Step();
  bench.Add(MakeRequest(2, 900, 4, 7));
  bench.Step();
  bench.Add(MakeRequest(3, 8, 4, 30));
  const StepPlan& plan = bench.Step();
  CHECK(bench.RowsOf(1, plan) == 1);
  CHECK(bench.RowsOf(2, plan) >= 8);
  CHECK(bench.RowsOf(3, plan) == 8);
  CHECK(plan.sequences.front().id.value == 1);  // decodes first
  CHECK(bench.output[3].size() == 1);
}

TEST_CASE("Scheduler: many long prompts leave room for a short one, and use every row when alone") {
  Bench bench(Config(4000, 64));
  for (uint64_t id = 1; id <= 6; ++id) bench.Add(MakeRequest(id, 900, 1, static_cast<int32_t>(id) * 13));
  CHECK(bench.Step().num_rows == 64);
  bench.Add(MakeRequest(7, 10, 1, 50));
  bench.Step();
  CHECK(bench.output[7].size() == 1);
  bench.Drain(6 * 900 / 50);
}

TEST_CASE("Scheduler: an equal prefix is found in pages, within a step and later, but not across tenants") {
  Bench bench(Config(100));
  bench.Add(MakeRequest(1, 18));
  Request same = MakeRequest(2, 18);
  bench.Add(same);
  Request other = MakeRequest(3, 18);
  other.tenant = {.name = "other", .salt = 77};
  bench.Add(other);
  const StepPlan& plan = bench.Step();
  CHECK(bench.RowsOf(1, plan) == 18);
  CHECK(bench.RowsOf(2, plan) == 2);
  CHECK(bench.RowsOf(3, plan) == 18);
  bench.Drain();
  Request later = MakeRequest(4, 18);
  bench.Add(later);
  bench.Drain();
  CHECK(bench.finish[4].num_cached_tokens == 16);
  CHECK(bench.output[4] == bench.output[1]);
  CHECK(bench.scheduler->ResetPrefixCache(std::nullopt) > 0);
  CHECK(bench.scheduler->stats().num_pages_cached == 0);
  bench.Add(MakeRequest(5, 18));
  bench.Drain();
  CHECK(bench.finish[5].num_cached_tokens == 0);
}

TEST_CASE("Scheduler: a prompt found whole still computes its last token") {
  Bench bench(Config(100));
  bench.Add(MakeRequest(1, 16, 1));
  bench.Drain();
  bench.Add(MakeRequest(2, 16, 1));
  const StepPlan& plan = bench.Step();
  CHECK(bench.RowsOf(2, plan) == 4);  // its last page
  CHECK(bench.output[2] == bench.output[1]);
}

TEST_CASE("Scheduler: equal long prompts side by side are computed once") {
  Bench bench(Config(1000, 32));
  bench.Add(MakeRequest(1, 400, 1));
  bench.Add(MakeRequest(2, 400, 1));
  bench.Drain();
  CHECK(bench.model.num_rows() < 400 + 40);
  CHECK(bench.output[1] == bench.output[2]);
}

TEST_CASE("Scheduler: output tokens are reused by the next turn of a conversation") {
  Bench bench(Config(100));
  Request turn = MakeRequest(1, 10, 20);
  bench.Add(turn);
  bench.Drain();
  turn.id = {2};
  turn.prompt_tokens.insert(turn.prompt_tokens.end(), bench.output[1].begin(), bench.output[1].end());
  turn.prompt_tokens.push_back(3);
  bench.Add(turn);
  bench.Drain();
  CHECK(bench.finish[2].num_cached_tokens == 28);  // 29 were computed
}

TEST_CASE("Scheduler: prompt log-probabilities bypass the look-up and are given once, even after preemption") {
  Bench bench(Config(100));
  bench.Add(MakeRequest(1, 18));
  bench.Drain();
  Request request = MakeRequest(2, 18);
  request.sampling.num_prompt_logprobs = 0;
  bench.Add(request);
  bench.Drain();
  CHECK(bench.finish[2].num_cached_tokens == 0);
  CHECK(bench.prompt_logprobs[2] == 17);

  Bench tiny(Config(8));
  for (uint64_t id = 1; id <= 3; ++id) {
    Request wants = MakeRequest(id, 6, 25, static_cast<int32_t>(id));
    wants.sampling.num_prompt_logprobs = 0;
    tiny.Add(wants);
  }
  tiny.Drain();
  CHECK(tiny.scheduler->stats().num_preemptions > 0);
  for (uint64_t id = 1; id <= 3; ++id) CHECK(tiny.prompt_logprobs[id] == 5);
}

TEST_CASE("Scheduler: an embedding needs its prompt's last row only, and no room for output") {
  SchedulerConfig config = Config(5, 8);
  config.max_model_tokens = 20;
  Bench bench(config);
  Request request = MakeRequest(1, 20);
  request.kind = Request::Kind::kEmbed;
  bench.Add(request);
  bench.Drain();
  CHECK(bench.finish[1].finish == FinishReason::kStop);
  CHECK(bench.finish[1].embedding.size() == 1);
  CHECK(bench.output[1].empty());
}

TEST_CASE("Scheduler: stop tokens end a request, but not before min_new_tokens and not with ignore_eos") {
  const std::vector<int32_t> solo = FakeModel::Solo(MakeRequest(0, 5, 12), 1000);
  Request request = MakeRequest(1, 5, 12);
  request.stop_token_ids = {solo[3]};
  Bench bench(Config(100));
  bench.Add(request);
  bench.Drain();
  CHECK(bench.finish[1].finish == FinishReason::kStop);
  CHECK(bench.finish[1].matched_stop_token == solo[3]);
  CHECK(bench.output[1] == std::vector<int32_t>(solo.begin(), solo.begin() + 4));
  request.id = {2};
  request.ignore_eos = true;
  bench.Add(request);
  request.id = {3};
  request.ignore_eos = false;
  request.min_new_tokens = 4;
  bench.Add(request);
  bench.Drain();
  CHECK(bench.output[2] == solo);
  CHECK(bench.output[3].size() > 4);
}

TEST_CASE("Scheduler: output is capped by the model's length and by the pages, and what cannot run is refused") {
  SchedulerConfig config = Config(4);
  config.max_model_tokens = 12;
  Bench bench(config);
  bench.Add(MakeRequest(1, 10, 50));
  bench.Drain();
  CHECK(bench.output[1].size() == 2);
  CHECK(bench.finish[1].finish == FinishReason::kLength);
  CHECK(absl::IsInvalidArgument(bench.scheduler->Add(MakeRequest(2, 12), kStart)));
  CHECK(absl::IsInvalidArgument(bench.scheduler->Add(MakeRequest(2, 0), kStart)));
  config.max_model_tokens = 1000;
  Bench pages(config);
  pages.Add(MakeRequest(1, 10, 50));
  pages.Drain();
  CHECK(pages.output[1].size() == 7);  // 16 slots, and the last token needs none
  CHECK(absl::IsInvalidArgument(pages.scheduler->Add(MakeRequest(2, 17), kStart)));
  Request free_rider = MakeRequest(3, 4);
  free_rider.tenant.weight = 0;
  CHECK(absl::IsInvalidArgument(pages.scheduler->Add(free_rider, kStart)));
}

TEST_CASE("Scheduler: an id that lives is refused a second time") {
  Bench bench(Config(100));
  bench.Add(MakeRequest(3, 5));
  CHECK(bench.scheduler->Add(MakeRequest(3, 5), kStart).code() == absl::StatusCode::kAlreadyExists);
  bench.Drain();
}

TEST_CASE("Scheduler: a cancelled request's pages are free at once, also while its plan is open") {
  Bench bench(Config(100));
  bench.Add(MakeRequest(1, 30, 10));
  bench.Add(MakeRequest(2, 30, 10, 50));
  bench.Step();
  const StepPlan& plan = bench.scheduler->Plan(kStart);
  bench.scheduler->Cancel({1});
  CHECK(bench.scheduler->stats().num_pages_used == 8);
  CHECK(bench.scheduler->CheckIntegrity() == absl::OkStatus());
  CHECK(plan.sequences[0].tokens.size() == 31);  // still readable
  bench.Take(bench.scheduler->Commit(bench.model.Run(plan), kStart));
  CHECK(bench.finish[1].finish == FinishReason::kCancelled);
  bench.scheduler->Cancel({1});
  bench.scheduler->Finish({2});
  CHECK(bench.scheduler->Idle());
  CHECK(bench.scheduler->TakeEvents().empty());
}

TEST_CASE("Scheduler: a deadline ends a request where it is") {
  SchedulerConfig config = Config(100);
  config.max_sequences = 1;
  Bench bench(config);
  Request running = MakeRequest(1, 5, 100), waiting = MakeRequest(2, 5, 100);
  running.deadline = kStart + absl::Seconds(9);
  waiting.deadline = kStart + absl::Seconds(5);
  bench.Add(running);
  bench.Add(waiting);
  bench.Step();
  CHECK(bench.scheduler->NextDeadline() == kStart + absl::Seconds(5));
  bench.now = kStart + absl::Seconds(6);
  bench.Step();
  CHECK(bench.finish[2].finish == FinishReason::kDeadline);
  CHECK(bench.finish.count(1) == 0);
  bench.now = kStart + absl::Seconds(9);
  CHECK(bench.scheduler->Plan(bench.now).empty());
  bench.Take(bench.scheduler->TakeEvents());
  CHECK(bench.finish[1].finish == FinishReason::kDeadline);
  CHECK(bench.scheduler->NextDeadline() == absl::InfiniteFuture());
}

TEST_CASE("Scheduler: the oldest request of the best priority is in every plan, however few the pages") {
  Bench bench(Config(8, 16));
  bench.Add(MakeRequest(1, 5, 28));
  for (uint64_t id = 2; id <= 6; ++id) {
    Request request = MakeRequest(id, 5, 26, static_cast<int32_t>(id));
    request.priority = id == 4 ? -1 : 1;
    bench.Add(request);
  }
  std::vector<uint64_t> order = {4, 1, 2, 3, 5, 6};
  bench.Step();
  for (uint64_t best : order) {
    while (bench.finish.count(best) == 0) {
      const StepPlan& plan = bench.Step();
      CHECK(bench.RowsOf(best, plan) > 0);
    }
  }
  CHECK(bench.scheduler->stats().num_preemptions > 0);
}

TEST_CASE("Scheduler: after a failed step nothing of it is ever found again") {
  Bench bench(Config(100, 16));
  bench.Add(MakeRequest(1, 40));
  bench.Add(MakeRequest(2, 40));
  bench.Step();
  const StepPlan& plan = bench.scheduler->Plan(kStart);
  bench.model.RunAndBreak(plan);
  bench.Take(bench.scheduler->Abort());
  CHECK(bench.finish[1].finish == FinishReason::kError);
  bench.Add(MakeRequest(3, 40));
  bench.Drain();
  CHECK(bench.finish[3].finish == FinishReason::kLength);
  CHECK(bench.output[3] == FakeModel::Solo(MakeRequest(3, 40), 1000));
}

TEST_CASE("Scheduler: a prompt that found pages of a failed step without a row in it computes them itself") {
  SchedulerConfig config = Config(100, 10);
  config.max_chunk_tokens = 8;
  Bench bench(config);
  bench.Add(MakeRequest(1, 40));
  bench.Add(MakeRequest(2, 40));
  bench.Add(MakeRequest(3, 1, 1, 70));
  bench.Add(MakeRequest(4, 1, 1, 71));
  bench.Step();
  Request urgent = MakeRequest(5, 8, 1, 60);
  urgent.priority = -1;
  bench.Add(urgent);
  bench.Step();
  const StepPlan& plan = bench.scheduler->Plan(kStart);  // 6 rows of the urgent one, a page of the first, no row left
  REQUIRE(bench.RowsOf(5, plan) == 6);
  REQUIRE(bench.RowsOf(1, plan) == 4);
  REQUIRE(bench.RowsOf(2, plan) == 0);
  bench.model.RunAndBreak(plan);
  bench.Take(bench.scheduler->Abort());
  bench.Drain();
  CHECK(bench.output[2] == FakeModel::Solo(MakeRequest(2, 40), 1000));
}

TEST_CASE("Scheduler: a sequence with unusable logits ends alone, and its pages are not found again") {
  Bench bench(Config(100));
  bench.Add(MakeRequest(1, 20));
  bench.Add(MakeRequest(2, 20, 4, 50));
  const StepPlan& plan = bench.scheduler->Plan(kStart);
  StepResult result = bench.model.Run(plan);
  result.sequences[0].is_failed = true;
  bench.model.Poison(plan.sequences[0]);
  bench.Take(bench.scheduler->Commit(result, kStart));
  CHECK(bench.finish[1].finish == FinishReason::kError);
  bench.Add(MakeRequest(3, 20));
  bench.Drain();
  CHECK(bench.finish[2].finish == FinishReason::kLength);
  CHECK(bench.output[3] == FakeModel::Solo(MakeRequest(3, 20), 1000));
}

// Tokens computed per tenant, each with a backlog, over `num_steps`.
std::map<std::string, double> Served(const std::map<std::string, double>& weights, int num_steps) {
  SchedulerConfig config = Config(2000, 64);
  Bench bench(config);
  uint64_t next_id = 0;
  std::map<std::string, double> served;
  std::map<uint64_t, std::string> owner;
  for (int step = 0; step < num_steps; ++step) {
    for (const auto& [name, weight] : weights) {
      int32_t num_waiting = 0;
      for (const auto& [tenant, count] : bench.scheduler->WaitingByTenant()) num_waiting += tenant == name ? count : 0;
      for (; num_waiting < 4; ++num_waiting) {
        ++next_id;
        Request request = MakeRequest(next_id, 20 + next_id % 17, 10, static_cast<int32_t>(next_id * 7));
        request.tenant = {.name = name, .salt = next_id, .weight = weight};
        owner[next_id] = name;
        bench.Add(request);
      }
    }
    const StepPlan& plan = bench.Step();
    for (const PlannedSequence& sequence : plan.sequences) served[owner[sequence.id.value]] += sequence.num_tokens;
  }
  return served;
}

TEST_CASE("Scheduler: backlogged tenants are served by weight") {
  const std::map<std::string, double> weights = {{"a", 1}, {"b", 1}, {"c", 3}};
  std::map<std::string, double> served = Served(weights, 2000);
  CHECK(served["b"] / served["a"] == Approx(1).epsilon(0.03));
  CHECK(served["c"] / served["a"] == Approx(3).epsilon(0.03));
}

TEST_CASE("Scheduler: equal calls give equal plans") {
  auto run = [] {
    std::vector<int32_t> trace;
    Bench bench(Config(20, 24));
    for (uint64_t id = 1; id <= 20; ++id) {
      Request request = MakeRequest(id, 3 + id % 30, 12, static_cast<int32_t>(id % 3));
      request.tenant.name = std::string(1, static_cast<char>('a' + id % 4));
      bench.Add(request);
    }
    while (!bench.scheduler->Idle()) {
      for (const PlannedSequence& sequence : bench.Step().sequences) {
        trace.push_back(static_cast<int32_t>(sequence.id.value));
        trace.push_back(sequence.num_tokens);
      }
    }
    return trace;
  };
  CHECK(run() == run());
}

TEST_CASE("Scheduler: a config that makes no sense is refused by name") {
  SchedulerConfig config;
  CHECK(Scheduler::Create(config).status().message() == "num_pages must be positive, not 0");
  config.num_pages = 4;
  config.max_step_tokens = -1;
  CHECK(absl::IsInvalidArgument(Scheduler::Create(config).status()));
}

}  // namespace
}  // namespace millrace
