// SPDX-License-Identifier: Apache-2.0
#pragma once
// Runs a load through a step loop and keeps what each request was told. For tests that two orders of steps, or two
// devices, come to the same.
#include <algorithm>
#include <catch2/catch.hpp>
#include <cmath>
#include <functional>
#include <memory>
#include <random>
#include <utility>
#include <vector>

#include "absl/synchronization/mutex.h"
#include "engine/run/step_loop.h"
#include "tests/support/checked_scheduler.h"
#include "tests/support/step_load.h"

namespace millrace::testing {

struct LoadOutcome {
  std::vector<std::vector<int32_t>> tokens;  // by request
  std::vector<std::vector<float>> logprobs, prompt_logprobs;
  std::vector<FinishReason> finishes;  // kNone: it went away
  SchedulerStats stats;
  int num_ahead = 0;  // steps launched while another was in flight
};

// Submits some requests before the loop starts and the others step by step, and lets some go in the middle.
class LoadRun {
 public:
  LoadRun(LoadedModel& model, const StepLoad& load, StepFunctions functions)
      : load_(load), requests_(MakeLoad(load)), random_(load.seed + 1), handles_(requests_.size()) {
    outcome_.tokens.resize(requests_.size());
    outcome_.logprobs.resize(requests_.size());
    outcome_.prompt_logprobs.resize(requests_.size());
    outcome_.finishes.assign(requests_.size(), FinishReason::kNone);
    is_done_.assign(requests_.size(), false);
    auto scheduler = Scheduler::Create(model.Config());
    REQUIRE(scheduler.ok());
    functions.launch = [this, launch = functions.launch](const StepPlan& plan) {
      outcome_.num_ahead += num_in_flight_++ > 0 ? 1 : 0;
      return launch(plan);
    };
    functions.collect = [this, collect = functions.collect](StepResult* result) {
      --num_in_flight_;
      return collect(result);
    };
    loop_ = std::make_unique<StepLoop>(std::make_unique<CheckedScheduler>(*std::move(scheduler)), model.Config(),
                                       std::move(functions), [this](const StepStats& stats) { OnStep(stats); });
  }

  LoadOutcome Run() {
    for (int i = 0; i < 6; ++i) SubmitNext();
    loop_->Start();
    {
      absl::MutexLock lock(&mu_);
      const auto is_done = [this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) { return num_done_ == requests_.size(); };
      REQUIRE(mu_.AwaitWithTimeout(absl::Condition(&is_done), absl::Seconds(300)));
    }
    for (RequestHandle& handle : handles_) handle.Disarm();
    outcome_.stats = loop_->stats();
    loop_.reset();
    return std::move(outcome_);
  }

 private:
  void SubmitNext() {
    if (num_submitted_ == requests_.size()) return;
    const size_t i = num_submitted_++;
    handles_[i] = *loop_->Submit(std::move(requests_[i]), [this, i](TokenEvent&& event) {
      for (const TokenResult& token : event.tokens) {
        outcome_.tokens[i].push_back(token.token);
        outcome_.logprobs[i].push_back(token.logprob);
      }
      for (const TokenResult& token : event.prompt_logprobs) outcome_.prompt_logprobs[i].push_back(token.logprob);
      outcome_.finishes[i] = event.finish;
      if (event.finish != FinishReason::kNone) Done(i);
    });
  }
  void OnStep(const StepStats&) {
    SubmitNext();
    if (std::uniform_real_distribution<>(0, 1)(random_) >= load_.cancels) return;
    const size_t i = random_() % num_submitted_;
    if (is_done_[i] || outcome_.tokens[i].empty()) return;
    handles_[i].Reset();
    Done(i);
  }
  void Done(size_t i) {
    absl::MutexLock lock(&mu_);
    is_done_[i] = true;
    ++num_done_;
  }

  const StepLoad load_;
  std::vector<Request> requests_;
  std::mt19937 random_;
  size_t num_submitted_ = 0;
  int num_in_flight_ = 0;
  std::vector<bool> is_done_;
  LoadOutcome outcome_;
  absl::Mutex mu_;
  size_t num_done_ ABSL_GUARDED_BY(mu_) = 0;
  std::vector<RequestHandle> handles_;
  std::unique_ptr<StepLoop> loop_;
};

inline StepFunctions FunctionsOf(Runner& runner, StepOrder order) {
  return {.launch = [&runner](const StepPlan& plan) { return runner.Launch(plan); },
          .collect = [&runner](StepResult* result) { return runner.Collect(result); },
          .order = order};
}

inline bool AreNear(const std::vector<float>& a, const std::vector<float>& b, float tolerance) {
  return std::equal(a.begin(), a.end(), b.begin(), b.end(),
                    [tolerance](float x, float y) { return x == y || std::abs(x - y) <= tolerance; });
}

// Who went away was told the same up to then; everyone else all the same.
inline void CheckSameOutcome(const LoadOutcome& expected, const LoadOutcome& actual, float logprob_tolerance = 0) {
  for (size_t i = 0; i < expected.tokens.size(); ++i) {
    CAPTURE(i);
    const std::vector<int32_t>&a = expected.tokens[i], &b = actual.tokens[i];
    if (expected.finishes[i] != FinishReason::kNone && actual.finishes[i] != FinishReason::kNone) {
      CHECK(a == b);
      CHECK(expected.finishes[i] == actual.finishes[i]);
      CHECK(AreNear(expected.logprobs[i], actual.logprobs[i], logprob_tolerance));
      CHECK(AreNear(expected.prompt_logprobs[i], actual.prompt_logprobs[i], logprob_tolerance));
    } else {
      const size_t num_common = std::min(a.size(), b.size());
      CHECK(std::equal(a.begin(), a.begin() + static_cast<std::ptrdiff_t>(num_common), b.begin()));
    }
  }
}

}  // namespace millrace::testing
