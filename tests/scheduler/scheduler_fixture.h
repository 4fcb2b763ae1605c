// SPDX-License-Identifier: Apache-2.0
#pragma once
// A scheduler with its fake model, driven by hand, and what came out of it. Test thread only.
#include <catch2/catch.hpp>
#include <map>
#include <memory>
#include <numeric>
#include <vector>

#include "scheduler/scheduler.h"
#include "tests/scheduler/fake_model.h"

namespace millrace::testing {

inline const absl::Time kStart = absl::FromUnixSeconds(1000);

inline SchedulerConfig Config(int32_t num_pages, int32_t step_tokens = 64) {
  SchedulerConfig config;
  config.num_pages = num_pages;
  config.page_tokens = 4;
  config.max_sequences = 8;
  config.max_step_tokens = step_tokens;
  config.max_model_tokens = 1000;
  return config;
}

inline Request MakeRequest(uint64_t id, int32_t num_prompt, int32_t max_new = 4, int32_t first_token = 0) {
  Request request;
  request.id = {id};
  request.prompt_tokens.resize(num_prompt);
  std::iota(request.prompt_tokens.begin(), request.prompt_tokens.end(), first_token);
  for (int32_t& token : request.prompt_tokens) token %= FakeModel::kVocabTokens;
  request.max_new_tokens = max_new;
  return request;
}

// A scheduler with its fake model, and what came out of it.
struct Bench {
  explicit Bench(const SchedulerConfig& config)
      : config(config), scheduler(Scheduler::Create(config).value()), model(config) {}

  void Add(const Request& request) { REQUIRE(scheduler->Add(request, now) == absl::OkStatus()); }
  void Take(const std::vector<TokenEvent>& events) {
    for (const TokenEvent& event : events) {
      for (const TokenResult& token : event.tokens) output[event.id.value].push_back(token.token);
      prompt_logprobs[event.id.value] += event.prompt_logprobs.size();
      if (event.finish != FinishReason::kNone) finish[event.id.value] = event;
    }
    REQUIRE(scheduler->CheckIntegrity() == absl::OkStatus());
    REQUIRE(model.fault() == "");
  }
  const StepPlan& Step() {
    const StepPlan& plan = scheduler->Plan(now);
    REQUIRE(scheduler->CheckIntegrity() == absl::OkStatus());
    if (!plan.empty()) Take(scheduler->Commit(model.Run(plan), now));
    return plan;
  }
  int Drain(int max_steps = 10000) {
    int num_steps = 0;
    while (!scheduler->Idle()) {
      REQUIRE(++num_steps <= max_steps);
      Step();
    }
    Take(scheduler->TakeEvents());
    return num_steps;
  }
  int32_t RowsOf(uint64_t id, const StepPlan& plan) const {
    for (const PlannedSequence& sequence : plan.sequences) {
      if (sequence.id.value == id) return sequence.num_tokens;
    }
    return 0;
  }

  SchedulerConfig config;
  std::unique_ptr<Scheduler> scheduler;
  FakeModel model;
  absl::Time now = kStart;
  std::map<uint64_t, std::vector<int32_t>> output;
  std::map<uint64_t, size_t> prompt_logprobs;
  std::map<uint64_t, TokenEvent> finish;
};

}  // namespace millrace::testing
