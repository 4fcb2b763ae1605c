// SPDX-License-Identifier: Apache-2.0
// What a step costs the scheduler: Plan and Commit of N decoding sequences, and of a steady mix of arrivals.
#include <benchmark/benchmark.h>

#include "scheduler/scheduler.h"

namespace millrace {
namespace {

SchedulerConfig Config(int32_t num_sequences) {
  SchedulerConfig config;
  config.num_pages = 1 << 16;
  config.max_sequences = num_sequences;
  config.max_model_tokens = 1 << 20;
  return config;
}

Request MakeRequest(uint64_t id, int32_t num_prompt, int32_t max_new, int num_tenants) {
  Request request;
  request.id = {id};
  request.tenant = {.name = std::to_string(id % num_tenants), .salt = id % num_tenants};
  for (int32_t i = 0; i < num_prompt; ++i) request.prompt_tokens.push_back(static_cast<int32_t>((id * 31 + i) % 50000));
  request.max_new_tokens = max_new;
  request.stop_token_ids = {50001, 50002};
  return request;
}

void Answer(const StepPlan& plan, StepResult* result) {
  result->step = plan.step;
  result->sequences.resize(plan.sequences.size());
  for (size_t i = 0; i < plan.sequences.size(); ++i) {
    result->sequences[i].sampled.token = plan.sequences[i].samples ? static_cast<int32_t>(plan.step % 50000) : -1;
  }
}

// Every sequence decodes. Arguments: sequences, tenants.
void BM_DecodeStep(benchmark::State& state) {
  const int num_sequences = static_cast<int>(state.range(0));
  auto scheduler = Scheduler::Create(Config(num_sequences)).value();
  StepResult result;
  uint64_t next_id = 0;
  for (auto _ : state) {
    if (scheduler->stats().num_running < num_sequences) {
      state.PauseTiming();
      while (scheduler->stats().num_running + scheduler->stats().num_waiting < num_sequences) {
        (void)scheduler->Add(MakeRequest(++next_id, 100, 2000, static_cast<int>(state.range(1))), absl::UnixEpoch());
      }
      while (scheduler->stats().num_waiting > 0) {
        Answer(scheduler->Plan(absl::UnixEpoch()), &result);
        scheduler->Commit(result, absl::UnixEpoch());
      }
      state.ResumeTiming();
    }
    Answer(scheduler->Plan(absl::UnixEpoch()), &result);
    benchmark::DoNotOptimize(scheduler->Commit(result, absl::UnixEpoch()));
  }
  state.SetItemsProcessed(state.iterations() * num_sequences);
}
BENCHMARK(BM_DecodeStep)->Args({1, 1})->Args({32, 1})->Args({256, 1})->Args({256, 256})->Args({1024, 16});

// A full house with a backlog: requests end and others are admitted all the time, 128 prompt and 64 new tokens each.
void BM_MixedStep(benchmark::State& state) {
  const int num_sequences = static_cast<int>(state.range(0));
  auto scheduler = Scheduler::Create(Config(num_sequences)).value();
  StepResult result;
  uint64_t next_id = 0;
  int64_t num_rows = 0;
  for (auto _ : state) {
    while (scheduler->stats().num_waiting < 64) {
      (void)scheduler->Add(MakeRequest(++next_id, 128, 64, static_cast<int>(state.range(1))), absl::UnixEpoch());
    }
    const StepPlan& plan = scheduler->Plan(absl::UnixEpoch());
    num_rows += plan.num_rows;
    Answer(plan, &result);
    benchmark::DoNotOptimize(scheduler->Commit(result, absl::UnixEpoch()));
  }
  state.counters["rows_per_step"] = static_cast<double>(num_rows) / static_cast<double>(state.iterations());
}
BENCHMARK(BM_MixedStep)->Args({32, 1})->Args({256, 1})->Args({256, 64});

}  // namespace
}  // namespace millrace

BENCHMARK_MAIN();
