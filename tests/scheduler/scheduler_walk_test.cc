// SPDX-License-Identifier: Apache-2.0
// Seeded random walks: thousands of steps of everything that can happen, every invariant checked after each. At the
// end: every request ended exactly once and within a bound, each output equals its solo output, no page is left.
#include <catch2/catch.hpp>
#include <deque>
#include <map>
#include <random>
#include <set>

#include "scheduler/scheduler.h"
#include "tests/scheduler/fake_model.h"

namespace millrace {
namespace {

struct WalkOptions {
  uint32_t seed = 0;
  int32_t num_pages = 40;
  int32_t step_tokens = 48;
  int32_t max_sequences = 8;
  int num_steps = 1000;
  int num_tenants = 4;
  int32_t max_prompt = 60;
  int32_t max_new = 20;
  double faults = 0;      // share of steps that break, and of sequences with bad logits
  double departures = 0;  // share of steps in which someone leaves
  bool has_deadlines = false;
  bool enable_prefix_caching = true;
  bool has_equal_prompts = false;
  int32_t hoarded_new = 0;  // > 0: the first tenant's requests are this long, and all have one priority
  double pinned_share = 0;  // > 0: most requests belong to sessions
  int max_wait_steps = 0;   // > 0: no tenant's oldest request stays out of more plans in a row
  bool runs_ahead = false;  // a step is planned while the one before flies
};

class Walk {
 public:
  explicit Walk(const WalkOptions& options)
      : options_(options),
        config_(Config(options)),
        scheduler_(Scheduler::Create(config_).value()),
        model_(config_),
        random_(options.seed) {}

  void Run() {
    for (int step = 0; step < options_.num_steps; ++step) {
      if (Chance(0.5)) AddSome();
      if (Chance(options_.departures)) Depart();
      if (Chance(0.002)) scheduler_->ResetPrefixCache(std::nullopt);
      if (options_.pinned_share > 0 && Chance(0.1)) {
        scheduler_->ReleaseSession(1 + Below(options_.num_tenants * 6));
        CheckNow();
      }
      Step();
      now_ += absl::Milliseconds(Below(20));
    }
    Drain();
    CheckEnd();
  }

  uint64_t num_preemptions() const { return scheduler_->stats().num_preemptions; }
  uint64_t num_hit_tokens() const { return scheduler_->stats().prefix_hit_tokens; }
  int num_ahead() const { return num_ahead_; }

 private:
  struct Client {
    Request request;
    std::vector<int32_t> output;
    int num_finishes = 0;
    bool is_gone = false;  // Finish() was called: no event comes
    FinishReason finish = FinishReason::kNone;
  };
  struct Flight {
    StepResult result;
    bool is_broken = false;
  };

  static SchedulerConfig Config(const WalkOptions& options) {
    SchedulerConfig config;
    config.num_pages = options.num_pages;
    config.page_tokens = 4;
    config.max_sequences = options.max_sequences;
    config.max_step_tokens = options.step_tokens;
    config.max_model_tokens =
        std::min(options.max_prompt + std::max(options.max_new / 2, options.hoarded_new), options.num_pages * 4);
    config.min_turn_tokens = 3;
    config.max_pinned_share = options.pinned_share;
    config.max_pin_time = absl::Milliseconds(500);
    config.enable_prefix_caching = options.enable_prefix_caching;
    return config;
  }

  int32_t Below(int32_t bound) { return static_cast<int32_t>(random_() % bound); }
  bool Chance(double share) { return std::uniform_real_distribution<>(0, 1)(random_) < share; }

  Request MakeRequest() {
    Request request;
    request.id = {++next_id_};
    const int tenant = Below(options_.num_tenants);
    request.tenant = {"t" + std::to_string(tenant), static_cast<uint64_t>(tenant) * 1000, 1.0 + tenant % 3};
    request.priority = Below(10) == 0 ? Below(5) - 2 : 0;
    // Few families of prompts, so that prefixes meet; each branches off somewhere.
    const int family = options_.has_equal_prompts ? 0 : Below(3);
    const int32_t num_tokens = 1 + Below(options_.max_prompt),
                  branch = options_.has_equal_prompts ? num_tokens : Below(options_.max_prompt + 1);
    for (int32_t i = 0; i < num_tokens; ++i) {
      request.prompt_tokens.push_back(i < branch ? (i * 7 + family) % FakeModel::kVocabTokens
                                                 : Below(FakeModel::kVocabTokens));
    }
    request.sampling.seed = Below(2);
    request.max_new_tokens = 1 + Below(options_.max_new);
    if (options_.hoarded_new > 0) request.priority = 0;
    if (options_.hoarded_new > 0 && tenant == 0) request.max_new_tokens = options_.hoarded_new;
    request.min_new_tokens = Below(4);
    for (int i = Below(6); i > 0; --i) request.stop_token_ids.push_back(Below(FakeModel::kVocabTokens));
    if (Below(12) == 0) request.sampling.num_prompt_logprobs = Below(3);
    if (Below(20) == 0) request.kind = Request::Kind::kEmbed;
    if (Below(20) == 0) request.ignore_eos = true;
    // A session is one tenant's; some go on, some are left alone.
    if (options_.pinned_share > 0 && Below(4) != 0) request.session = 1 + tenant + options_.num_tenants * Below(6);
    if (options_.runs_ahead && Below(40) == 0) request.sampling.presence_penalty = 1;
    if (options_.has_deadlines && Below(4) == 0) request.deadline = now_ + absl::Milliseconds(Below(2000));
    return request;
  }

  void AddSome() {
    for (int i = 1 + Below(3); i > 0 && scheduler_->stats().num_waiting < 30; --i) {
      Request request = MakeRequest();
      const absl::Status status = scheduler_->Add(request, now_);
      if (status.ok()) {
        live_.insert(request.id.value);
        clients_[request.id.value].request = std::move(request);
      } else {
        REQUIRE(absl::IsInvalidArgument(status));
        REQUIRE(static_cast<int32_t>(request.prompt_tokens.size()) + 1 > config_.max_model_tokens);
      }
    }
  }

  void Depart() {
    if (live_.empty()) return;
    const uint64_t id = *std::next(live_.begin(), Below(static_cast<int32_t>(live_.size())));
    if (Chance(0.5)) {
      scheduler_->Cancel({id});
      live_.erase(id);
    } else {
      scheduler_->Finish({id});
      clients_[id].is_gone = true;
      live_.erase(id);
    }
    CheckNow();
  }

  void Step() {
    if (flights_.empty() && !Launch()) {
      REQUIRE(scheduler_->Idle());
      Take(scheduler_->TakeEvents());
      return;
    }
    if (options_.runs_ahead && scheduler_->CanPlanAhead() && Chance(0.9)) {
      if (Launch()) ++num_ahead_;
      if (Chance(options_.departures)) Depart();
    }
    if (flights_.front().is_broken) {
      flights_.clear();
      Take(scheduler_->Abort());
    } else {
      const StepResult result = std::move(flights_.front().result);
      flights_.pop_front();
      Take(scheduler_->Commit(result, now_));
    }
    CheckNow();
  }

  // False: nothing was planned.
  bool Launch() {
    const StepPlan& plan = scheduler_->Plan(now_);
    CheckNow();
    if (plan.empty()) return false;
    CheckPlan(plan);
    CheckWaits(plan);
    Flight flight;
    flight.is_broken = !flights_.empty() && flights_.back().is_broken;
    if (flight.is_broken) {
      // Nothing runs after a step that broke.
    } else if (Chance(options_.faults)) {
      flight.is_broken = true;
      model_.RunAndBreak(plan);
    } else {
      flight.result = model_.Run(plan);
      if (Chance(options_.faults)) {
        const int32_t victim = Below(static_cast<int32_t>(plan.sequences.size()));
        model_.Poison(plan.sequences[victim]);
        flight.result.sequences[victim].is_failed = true;
      }
    }
    flights_.push_back(std::move(flight));
    if (Chance(options_.departures)) Depart();  // while the step flies
    return true;
  }

  void CheckNow() {
    const absl::Status status = scheduler_->CheckIntegrity();
    INFO("seed " << options_.seed << ": " << status.ToString());
    REQUIRE(status.ok());
    REQUIRE(model_.fault() == "");
  }

  void CheckPlan(const StepPlan& plan) {
    int32_t num_rows = 0;
    std::set<uint64_t> seen;
    for (const PlannedSequence& sequence : plan.sequences) {
      num_rows += sequence.num_tokens;
      REQUIRE(sequence.num_tokens >= 1);
      REQUIRE(seen.insert(sequence.id.value).second);
      REQUIRE(live_.count(sequence.id.value) == 1);
      const int32_t end = sequence.first_position + sequence.num_tokens;
      REQUIRE(static_cast<int32_t>(sequence.pages.size()) == (end + 3) / 4);
      REQUIRE(sequence.samples == (end == static_cast<int32_t>(sequence.tokens.size())));
      REQUIRE((sequence.drawn_by >= 0) == (sequence.tokens.back() == kUnknownToken));
      if (sequence.drawn_by >= 0) REQUIRE_FALSE(sequence.request->sampling.has_penalties());
    }
    REQUIRE(num_rows == plan.num_rows);
    REQUIRE(num_rows <= config_.max_step_tokens);
  }

  void CheckWaits(const StepPlan& plan) {
    if (options_.max_wait_steps == 0) return;
    std::set<uint64_t> planned;
    for (const PlannedSequence& sequence : plan.sequences) planned.insert(sequence.id.value);
    std::set<std::string> seen;
    for (const uint64_t id : live_) {  // in order of arrival
      const std::string& tenant = clients_[id].request.tenant.name;
      if (!seen.insert(tenant).second) continue;
      int& num_steps = num_waited_steps_[tenant];
      num_steps = planned.count(id) > 0 ? 0 : num_steps + 1;
      INFO("seed " << options_.seed << ", tenant " << tenant << ", request " << id);
      REQUIRE(num_steps <= options_.max_wait_steps);
    }
  }

  void Take(const std::vector<TokenEvent>& events) {
    for (const TokenEvent& event : events) {
      Client& client = clients_.at(event.id.value);
      REQUIRE(client.num_finishes == 0);
      // Finish() may come too late: the deadline's event was on its way.
      if (client.is_gone) REQUIRE(event.finish == FinishReason::kDeadline);
      client.is_gone = false;
      for (const TokenResult& token : event.tokens) client.output.push_back(token.token);
      if (event.finish == FinishReason::kNone) continue;
      ++client.num_finishes;
      client.finish = event.finish;
      live_.erase(event.id.value);
    }
  }

  void Drain() {
    // Each step computes at least a row of the best request, and one is computed again at most as often as any is
    // preempted: serving all of them one after the other is the worst there is.
    int64_t num_rows = 0;
    const uint64_t num_preempted = num_preemptions();
    for (uint64_t id : live_)
      num_rows += clients_[id].request.prompt_tokens.size() + clients_[id].request.max_new_tokens;
    int64_t num_steps = 0;
    if (options_.runs_ahead) num_rows *= 2;  // some are computed for nothing
    while (!scheduler_->Idle() || !flights_.empty()) {
      const uint64_t num_again = num_preemptions() - num_preempted;
      REQUIRE(++num_steps <= num_rows + static_cast<int64_t>(num_again) * config_.max_model_tokens);
      Step();
    }
    Take(scheduler_->TakeEvents());
  }

  void CheckEnd() {
    REQUIRE(live_.empty());
    const SchedulerStats stats = scheduler_->stats();
    CHECK(stats.num_pages_used == 0);
    CHECK(stats.num_waiting_tokens == 0);
    scheduler_->ResetPrefixCache(std::nullopt);
    CHECK(scheduler_->stats().num_pages_cached == 0);
    for (const auto& [id, client] : clients_) {
      INFO("seed " << options_.seed << ", request " << id);
      REQUIRE(client.num_finishes == (client.is_gone ? 0 : 1));
      if (client.request.kind == Request::Kind::kEmbed) continue;
      const std::vector<int32_t> solo = FakeModel::Solo(client.request, config_.max_model_tokens);
      const bool is_complete = client.finish == FinishReason::kStop || client.finish == FinishReason::kLength;
      if (is_complete) {
        REQUIRE(client.output == solo);
      } else {  // ended early: what came is still right
        REQUIRE(client.output.size() <= solo.size());
        REQUIRE(std::equal(client.output.begin(), client.output.end(), solo.begin()));
        if (options_.faults == 0) REQUIRE(client.finish != FinishReason::kError);
      }
    }
  }

  const WalkOptions options_;
  const SchedulerConfig config_;
  std::unique_ptr<Scheduler> scheduler_;
  FakeModel model_;
  std::mt19937 random_;
  absl::Time now_ = absl::FromUnixSeconds(5000);
  uint64_t next_id_ = 0;
  std::map<uint64_t, Client> clients_;
  std::set<uint64_t> live_;
  std::map<std::string, int> num_waited_steps_;
  std::deque<Flight> flights_;  // launched, not learnt from: at most two
  int num_ahead_ = 0;
};

TEST_CASE("SchedulerWalk: roomy pool, everybody stays") {
  for (uint32_t seed = 0; seed < 4; ++seed) {
    Walk walk({.seed = seed, .num_pages = 300});
    walk.Run();
    CHECK(walk.num_hit_tokens() > 0);
  }
}

TEST_CASE("SchedulerWalk: tiny pools preempt all the time, and nobody starves") {
  uint64_t num_preemptions = 0;
  for (uint32_t seed = 100; seed < 108; ++seed) {
    Walk walk({.seed = seed, .num_pages = 17 + static_cast<int32_t>(seed % 5), .max_sequences = 12, .max_new = 40});
    walk.Run();
    num_preemptions += walk.num_preemptions();
  }
  CHECK(num_preemptions > 100);
}

TEST_CASE("SchedulerWalk: cancels, stops, deadlines, also while a step flies") {
  for (uint32_t seed = 200; seed < 206; ++seed) {
    Walk({.seed = seed, .num_pages = 25, .departures = 0.3, .has_deadlines = true}).Run();
  }
}

TEST_CASE("SchedulerWalk: broken steps and unusable logits on top") {
  for (uint32_t seed = 300; seed < 308; ++seed) {
    Walk({.seed = seed, .num_pages = 30, .num_tenants = 2, .faults = 0.05, .departures = 0.2, .has_deadlines = true})
        .Run();
  }
}

TEST_CASE("SchedulerWalk: equal prompts side by side in breaking steps and too few pages") {
  for (uint32_t seed = 500; seed < 512; ++seed) {
    Walk({.seed = seed,
          .num_pages = 26,
          .step_tokens = 22,
          .num_tenants = 1,
          .max_prompt = 80,
          .max_new = 30,
          .faults = 0.2,
          .has_equal_prompts = true})
        .Run();
  }
}

TEST_CASE("SchedulerWalk: arrivals never end, one tenant hoards, and no tenant's oldest request waits long") {
  for (uint32_t seed = 600; seed < 606; ++seed) {
    // Alternately slots and pages are what is scarce.
    const bool has_few_pages = seed % 2 == 0;
    Walk walk({.seed = seed,
               .num_pages = has_few_pages ? 200 : 800,
               .max_sequences = has_few_pages ? 40 : 6,
               .hoarded_new = 300,
               .max_wait_steps = 100});
    walk.Run();
    CHECK(walk.num_preemptions() > 0);
  }
}

TEST_CASE("SchedulerWalk: sessions pin their pages in pools large and small") {
  for (uint32_t seed = 700; seed < 712; ++seed) {
    Walk({.seed = seed,
          .num_pages = seed % 3 == 0 ? 26 : 80,
          .max_new = 30,
          .faults = seed % 4 == 0 ? 0.05 : 0,
          .departures = 0.2,
          .has_deadlines = true,
          .pinned_share = seed % 2 == 0 ? 0.25 : 0.9})
        .Run();
  }
  for (uint32_t seed = 720; seed < 724; ++seed) {
    Walk({.seed = seed,
          .num_pages = 200,
          .max_sequences = 40,
          .hoarded_new = 300,
          .pinned_share = 0.25,
          .max_wait_steps = 150})
        .Run();
  }
}

TEST_CASE("SchedulerWalk: narrow steps, many tenants, no prefix reuse") {
  for (uint32_t seed = 400; seed < 404; ++seed) {
    Walk({.seed = seed, .num_pages = 40, .step_tokens = 9, .max_sequences = 20, .num_tenants = 50, .departures = 0.1})
        .Run();
    Walk({.seed = seed, .num_pages = 40, .departures = 0.1, .enable_prefix_caching = false}).Run();
    Walk({.seed = seed, .num_pages = 60, .step_tokens = 1, .num_steps = 300, .faults = 0.02}).Run();
  }
}

TEST_CASE("SchedulerWalk: steps planned ahead of the one that flies change nobody's tokens") {
  uint64_t num_preemptions = 0;
  for (uint32_t seed = 700; seed < 712; ++seed) {
    Walk walk({.seed = seed,
               .num_pages = 20 + static_cast<int32_t>(seed % 3) * 40,
               .max_new = 40,
               .departures = seed % 2 * 0.2,
               .has_deadlines = seed % 2 == 1,
               .pinned_share = seed % 4 == 0 ? 0.5 : 0,
               .runs_ahead = true});
    walk.Run();
    CHECK(walk.num_ahead() > 100);
    num_preemptions += walk.num_preemptions();
  }
  CHECK(num_preemptions > 100);
}

TEST_CASE("SchedulerWalk: steps planned ahead of one that breaks or gives unusable logits") {
  for (uint32_t seed = 720; seed < 732; ++seed) {
    Walk walk({.seed = seed,
               .num_pages = 26,
               .num_tenants = 2,
               .max_new = 30,
               .faults = 0.05,
               .departures = 0.2,
               .has_deadlines = true,
               .has_equal_prompts = seed % 2 == 0,
               .runs_ahead = true});
    walk.Run();
    CHECK(walk.num_ahead() > 100);
  }
}

TEST_CASE("SchedulerWalk: narrow steps planned ahead, and no tenant's oldest request waits long") {
  for (uint32_t seed = 740; seed < 744; ++seed) {
    Walk({.seed = seed, .num_pages = 40, .step_tokens = 9, .max_sequences = 20, .num_tenants = 50, .runs_ahead = true})
        .Run();
    Walk({.seed = seed,
          .num_pages = seed % 2 == 0 ? 200 : 800,
          .max_sequences = seed % 2 == 0 ? 40 : 6,
          .hoarded_new = 300,
          .max_wait_steps = 120,
          .runs_ahead = true})
        .Run();
  }
}

}  // namespace
}  // namespace millrace
