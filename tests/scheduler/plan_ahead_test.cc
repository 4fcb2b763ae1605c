// SPDX-License-Identifier: Apache-2.0
// A step planned while the one before it is computed: what the plan may know, and what comes of rows that were planned
// for nothing.
#include <catch2/catch.hpp>

#include "tests/scheduler/scheduler_fixture.h"

namespace millrace::testing {
namespace {

// Steps are computed when they are planned and learnt from later.
struct AheadBench : Bench {
  using Bench::Bench;
  const StepPlan& Launch() {
    const StepPlan& plan = scheduler->Plan(now);
    REQUIRE(scheduler->CheckIntegrity() == absl::OkStatus());
    if (!plan.empty()) results.push_back(model.Run(plan));
    return plan;
  }
  void Settle() {
    const StepResult result = results.front();
    results.erase(results.begin());
    Take(scheduler->Commit(result, now));
  }
  std::vector<int32_t> Solo(const Request& request) const { return FakeModel::Solo(request, config.max_model_tokens); }
  std::vector<StepResult> results;
};

TEST_CASE("PlanAhead: a sequence decodes on from a token that is not known yet") {
  AheadBench bench(Config(50));
  const Request request = MakeRequest(1, 6, 3);
  bench.Add(request);
  CHECK_FALSE(bench.scheduler->CanPlanAhead());  // of nothing
  bench.Launch();
  REQUIRE(bench.scheduler->CanPlanAhead());
  const StepPlan& ahead = bench.Launch();
  REQUIRE(ahead.sequences.size() == 1);
  CHECK(ahead.sequences[0].first_position == 6);
  CHECK(ahead.sequences[0].tokens.back() == kUnknownToken);
  CHECK(ahead.sequences[0].drawn_by == 0);
  CHECK_FALSE(bench.scheduler->CanPlanAhead());  // two steps are enough
  bench.Settle();
  CHECK(bench.output[1].size() == 1);
  REQUIRE(bench.scheduler->CanPlanAhead());
  bench.Launch();
  bench.Settle();
  // The token being drawn is the last, whatever it is.
  CHECK(bench.Launch().empty());
  bench.Settle();
  CHECK(bench.output[1] == bench.Solo(request));
  CHECK(bench.finish[1].finish == FinishReason::kLength);
  CHECK(bench.scheduler->Idle());
}

TEST_CASE("PlanAhead: the row planned after a stop token is thrown away, its page is free and has no name") {
  AheadBench bench(Config(50));
  Request request = MakeRequest(1, 6, 30);
  const std::vector<int32_t> solo = bench.Solo(request);
  request.stop_token_ids = {solo[1]};  // the last row fills the second page
  bench.Add(request);
  bench.Launch();
  for (int step = 0; step < 2; ++step) {
    bench.Launch();
    bench.Settle();
  }
  CHECK(bench.finish[1].finish == FinishReason::kStop);
  CHECK(bench.output[1] == std::vector<int32_t>{solo[0], solo[1]});
  CHECK(bench.scheduler->Idle());
  CHECK(bench.scheduler->stats().num_pages_used == 0);
  bench.Settle();
  CHECK(bench.output[1].size() == 2);
  CHECK(bench.scheduler->stats().num_pages_cached == 1);  // the first page alone
}

TEST_CASE("PlanAhead: a page that a token unknown at first completes is found like any other") {
  AheadBench bench(Config(50));
  const Request first = MakeRequest(1, 6, 6);
  bench.Add(first);
  bench.Launch();
  while (!bench.results.empty()) {
    if (bench.scheduler->CanPlanAhead()) bench.Launch();
    bench.Settle();
  }
  Request second = MakeRequest(2, 6, 2);
  for (const int32_t token : bench.Solo(first)) second.prompt_tokens.push_back(token);
  bench.Add(second);
  bench.Drain();
  CHECK(bench.finish[2].num_cached_tokens == 8);  // of the 11 that were computed
}

TEST_CASE("PlanAhead: not where the host must know the token first") {
  AheadBench bench(Config(50));
  Request request = MakeRequest(1, 3, 5);
  SECTION("a penalty counts it") { request.sampling.frequency_penalty = 0.5f; }
  SECTION("a penalty divides by it") { request.sampling.repetition_penalty = 1.1f; }
  SECTION("a grammar goes on from it") {
    // Never looked into by the scheduler.
    static const int grammar = 0;
    request.grammar =
        std::shared_ptr<const Grammar>(std::shared_ptr<void>(), reinterpret_cast<const Grammar*>(&grammar));
  }
  bench.Add(request);
  bench.Launch();
  CHECK_FALSE(bench.scheduler->CanPlanAhead());
  bench.Settle();
  bench.Drain();
  CHECK(bench.output[1] == bench.Solo(request));
}

TEST_CASE("PlanAhead: a long prompt's chunks are planned ahead whatever its answer needs") {
  SchedulerConfig config = Config(50, 16);
  config.max_chunk_tokens = 8;
  AheadBench bench(config);
  Request request = MakeRequest(1, 40, 3);
  request.sampling.presence_penalty = 1;
  bench.Add(request);
  bench.Launch();
  CHECK(bench.scheduler->CanPlanAhead());
  const StepPlan& ahead = bench.Launch();
  CHECK(ahead.sequences[0].first_position == 16);
  CHECK(ahead.sequences[0].drawn_by == -1);
  bench.Settle();
  bench.Settle();
  bench.Drain();
  CHECK(bench.output[1] == bench.Solo(request));
}

TEST_CASE("PlanAhead: an embedding ends with the step in flight, and nothing is planned for it") {
  AheadBench bench(Config(50));
  Request request = MakeRequest(1, 5);
  request.kind = Request::Kind::kEmbed;
  bench.Add(request);
  bench.Launch();
  REQUIRE(bench.scheduler->CanPlanAhead());
  CHECK(bench.Launch().empty());
  bench.Settle();
  CHECK(bench.finish[1].embedding.size() == 1);
  CHECK(bench.scheduler->Idle());
}

TEST_CASE("PlanAhead: one who leaves with two steps in flight gets nothing of either") {
  AheadBench bench(Config(50));
  bench.Add(MakeRequest(1, 6, 30));
  bench.Add(MakeRequest(2, 5, 30, 40));
  bench.Launch();
  bench.Launch();
  const bool is_cancelled = GENERATE(true, false);
  is_cancelled ? bench.scheduler->Cancel({1}) : bench.scheduler->Finish({1});
  CHECK(bench.scheduler->stats().num_pages_used == 2);  // the other's
  bench.Settle();
  bench.Settle();
  CHECK(bench.output[1].empty());
  CHECK(bench.finish.contains(1) == is_cancelled);
  CHECK(bench.output[2].size() == 2);
}

TEST_CASE("PlanAhead: one that is preempted while its token is drawn keeps the token") {
  AheadBench bench(Config(7));
  bench.Add(MakeRequest(1, 9, 12));
  bench.Add(MakeRequest(2, 11, 12, 30));
  bench.Launch();
  for (int step = 0; bench.scheduler->stats().num_preemptions == 0; ++step) {
    REQUIRE(step < 20);
    REQUIRE(bench.scheduler->CanPlanAhead());
    bench.Launch();
    if (bench.scheduler->stats().num_preemptions == 0) bench.Settle();
  }
  REQUIRE(bench.results.size() == 2);  // the victim's row is in the first of them
  const size_t num_before = bench.output[2].size();
  bench.Settle();
  CHECK(bench.output[2].size() == num_before + 1);
  bench.Settle();
  bench.Drain();
  for (const uint64_t id : {1, 2}) {
    CHECK(bench.output[id] == bench.Solo(MakeRequest(id, id == 1 ? 9 : 11, 12, id == 1 ? 0 : 30)));
  }
}

TEST_CASE("PlanAhead: unusable logits of one that was preempted since leave none of its pages to be found") {
  AheadBench bench(Config(7));
  bench.Add(MakeRequest(1, 9, 12));
  bench.Add(MakeRequest(2, 11, 12, 30));
  bench.Launch();
  for (int step = 0; bench.scheduler->stats().num_preemptions == 0; ++step) {
    REQUIRE(step < 20);
    bench.Launch();
    if (bench.scheduler->stats().num_preemptions == 0) bench.Settle();
  }
  const int32_t num_cached = bench.scheduler->stats().num_pages_cached;
  REQUIRE(num_cached > 0);  // what the victim left
  REQUIRE(bench.results[0].sequences.size() == 2);
  bench.results[0].sequences[1].is_failed = true;
  bench.Settle();
  CHECK(bench.finish[2].finish == FinishReason::kError);
  CHECK(bench.scheduler->stats().num_pages_cached == 0);
  bench.Settle();
  bench.Drain();
}

TEST_CASE("PlanAhead: a step that fails takes the one planned ahead of it along") {
  AheadBench bench(Config(50));
  bench.Add(MakeRequest(1, 8, 30));
  bench.Launch();
  bench.Add(MakeRequest(2, 12, 30, 50));
  bench.Launch();
  bench.Take(bench.scheduler->Abort());
  CHECK(bench.finish[1].finish == FinishReason::kError);
  CHECK(bench.finish[2].finish == FinishReason::kError);
  CHECK(bench.scheduler->Idle());
  CHECK(bench.scheduler->stats().num_pages_used == 0);
  CHECK(bench.scheduler->stats().num_pages_cached == 0);
  CHECK_FALSE(bench.scheduler->CanPlanAhead());
}

}  // namespace
}  // namespace millrace::testing
