// SPDX-License-Identifier: Apache-2.0
#pragma once
// A seeded load of requests of every kind, run through a step loop over a model: what each was told in the end. For
// tests that two orders of steps, or two devices, come to the same.
#include <algorithm>
#include <catch2/catch.hpp>
#include <cmath>
#include <functional>
#include <memory>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "absl/synchronization/mutex.h"
#include "engine/grammar/json_schema.h"
#include "engine/grammar/token_vocabulary.h"
#include "engine/load/model_weights.h"
#include "engine/run/runner.h"
#include "engine/run/step_loop.h"
#include "engine/text/byte_alphabet.h"
#include "engine/text/template_json.h"
#include "engine/text/tokenizer.h"

namespace millrace::testing {

// A scheduler that is checked after each of its verbs.
class CheckedScheduler final : public Scheduler {
 public:
  explicit CheckedScheduler(std::unique_ptr<Scheduler> scheduler) : scheduler_(std::move(scheduler)) {}
  absl::Status Add(Request request, absl::Time now) override {
    return Checked(scheduler_->Add(std::move(request), now));
  }
  void Cancel(RequestId id) override {
    scheduler_->Cancel(id);
    Check();
  }
  void Finish(RequestId id) override {
    scheduler_->Finish(id);
    Check();
  }
  void ReleaseSession(uint64_t session) override {
    scheduler_->ReleaseSession(session);
    Check();
  }
  const StepPlan& Plan(absl::Time now) override {
    const StepPlan& plan = scheduler_->Plan(now);
    Check();
    return plan;
  }
  bool CanPlanAhead() const override { return scheduler_->CanPlanAhead(); }
  std::vector<TokenEvent> Commit(const StepResult& result, absl::Time now) override {
    return Checked(scheduler_->Commit(result, now));
  }
  std::vector<TokenEvent> Abort() override { return Checked(scheduler_->Abort()); }
  std::vector<TokenEvent> TakeEvents() override { return scheduler_->TakeEvents(); }
  bool Idle() const override { return scheduler_->Idle(); }
  absl::Time NextDeadline() const override { return scheduler_->NextDeadline(); }
  SchedulerStats stats() const override { return scheduler_->stats(); }
  std::vector<std::pair<std::string, int32_t>> WaitingByTenant() const override {
    return scheduler_->WaitingByTenant();
  }
  void ResetPrefixCache() override { scheduler_->ResetPrefixCache(); }
  absl::Status CheckIntegrity() const override { return scheduler_->CheckIntegrity(); }

 private:
  void Check() const {
    const absl::Status status = scheduler_->CheckIntegrity();
    if (!status.ok()) FAIL(status.ToString());  // an exception on the engine thread: the test process ends
  }
  template <typename T>
  T Checked(T result) const {
    Check();
    return result;
  }
  const std::unique_ptr<Scheduler> scheduler_;
};

struct StepLoad {
  uint32_t seed = 0;
  int num_requests = 24;
  int32_t max_prompt = 40;
  int32_t max_new = 24;
  int32_t num_pages = 24;
  int32_t page_tokens = 16;
  double cancels = 0.1;       // share of requests that go away in the middle
  bool has_host_work = true;  // grammars and penalties, which keep steps from being planned ahead
  bool has_embeddings = true;
  bool has_prefix_caching = true;
};

struct LoadOutcome {
  std::vector<std::vector<int32_t>> tokens;  // by request
  std::vector<std::vector<float>> logprobs, prompt_logprobs;
  std::vector<FinishReason> finishes;  // kNone: it went away
  SchedulerStats stats;
  int num_ahead = 0;  // steps launched while another was in flight
};

// A vocabulary of the goldens' models: one printable character each.
inline constexpr int32_t kLoadVocab = 96;

class LoadedModel {
 public:
  LoadedModel(const std::string& model_dir, std::unique_ptr<Device> device, const StepLoad& load)
      : load_(load), device_(std::move(device)) {
    auto info = ReadModelInfo(model_dir, {.dtype = "bfloat16"});
    REQUIRE(info.status().ToString() == "OK");
    REQUIRE(info->vocab_tokens == kLoadVocab);
    auto weights = LoadWeights(*info, {.dtype = "bfloat16"}, *device_);
    REQUIRE(weights.status().ToString() == "OK");
    // Few logits at a time, so that a step takes several calls of Sample.
    auto model = Model::Create(*info, std::move(*weights),
                               {.max_rows = kMaxRows,
                                .max_logit_rows = 5,
                                .max_sequences = kMaxSequences,
                                .max_positions = kMaxTokens,
                                .num_pages = load.num_pages,
                                .page_tokens = load.page_tokens},
                               *device_);
    REQUIRE(model.status().ToString() == "OK");
    VocabSpec spec{.model = "gpt2", .pre = "gpt-2"};
    for (int i = 0; i < kLoadVocab; ++i)
      spec.tokens.push_back(BytesToAlphabet(std::string(1, static_cast<char>(i + 32))));
    tokenizer_ = Tokenizer::FromVocab(spec).value();
    vocabulary_ = std::make_unique<TokenVocabulary>(*tokenizer_, kLoadVocab);
    runner_ = std::make_unique<Runner>(std::move(*model), *device_, vocabulary_.get());
  }

  static constexpr int32_t kMaxRows = 32, kMaxSequences = 8, kMaxTokens = 100;
  Runner& runner() { return *runner_; }
  Device& device() { return *device_; }
  SchedulerConfig Config() const {
    return {.num_pages = load_.num_pages,
            .page_tokens = load_.page_tokens,
            .max_sequences = kMaxSequences,
            .max_step_tokens = kMaxRows,
            .max_model_tokens = kMaxTokens,
            .enable_prefix_caching = load_.has_prefix_caching,
            .min_turn_tokens = 3};
  }

 private:
  const StepLoad load_;
  const std::unique_ptr<Device> device_;
  std::unique_ptr<Tokenizer> tokenizer_;
  std::unique_ptr<TokenVocabulary> vocabulary_;
  std::unique_ptr<Runner> runner_;
};

inline std::vector<Request> MakeLoad(const StepLoad& load) {
  std::mt19937 random(load.seed);
  const auto below = [&](int32_t bound) { return static_cast<int32_t>(random() % static_cast<uint32_t>(bound)); };
  const auto grammar = CompileJsonSchema(*ParseJsonValue(R"({"type": "array", "items": {"enum": [1, 25, true]}})"));
  REQUIRE(grammar.status().ToString() == "OK");
  std::vector<Request> requests(static_cast<size_t>(load.num_requests));
  for (Request& request : requests) {
    // Few beginnings, so that prefixes are found.
    const int32_t num_tokens = 1 + below(load.max_prompt), branch = below(load.max_prompt), family = below(2);
    for (int32_t i = 0; i < num_tokens; ++i) {
      request.prompt_tokens.push_back(i < branch ? (i * 7 + family) % kLoadVocab : below(kLoadVocab));
    }
    request.tenant.name = below(2) == 0 ? "a" : "b";
    request.priority = below(6) == 0 ? -1 : 0;
    request.max_new_tokens = 1 + below(load.max_new);
    request.min_new_tokens = below(4);
    for (int i = below(4); i > 0; --i) request.stop_token_ids.push_back(below(kLoadVocab));
    request.sampling.temperature = below(3) == 0 ? 0.0f : 0.5f + 0.1f * static_cast<float>(below(10));
    request.sampling.seed = random();
    if (below(4) == 0) request.sampling.top_k = 1 + below(20);
    if (below(4) == 0) request.sampling.top_p = 0.8f;
    if (below(3) == 0) request.sampling.num_top_logprobs = below(3);
    if (below(8) == 0) request.sampling.num_prompt_logprobs = below(3);
    if (below(6) == 0) request.sampling.logit_bias = {{below(kLoadVocab), 2.0f}};
    if (load.has_embeddings && below(10) == 0) request.kind = Request::Kind::kEmbed;
    if (!load.has_host_work) continue;
    if (below(8) == 0) request.sampling.repetition_penalty = 1.3f;
    if (below(8) == 0) {
      request.grammar = *grammar;
      request.stop_token_ids = {kLoadVocab - 2};
    }
  }
  return requests;
}

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
