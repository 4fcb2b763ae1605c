// SPDX-License-Identifier: Apache-2.0
#include "engine/run/step_loop.h"

#include <catch2/catch.hpp>
#include <deque>
#include <string>

#include "absl/synchronization/notification.h"
#include "absl/time/clock.h"
#include "tests/support/computed_step.h"

namespace millrace {
namespace {

constexpr absl::Duration kPatience = absl::Seconds(20);  // turns a hang into a failure, decides nothing else

// Collects one request's events; any thread may wait for its end.
class Events {
 public:
  TokenSink Sink() {
    return [this](TokenEvent&& event) {
      absl::MutexLock lock(&mu_);
      for (const TokenResult& token : event.tokens) tokens_.push_back(token.token);
      if (event.finish != FinishReason::kNone) finish_ = event.finish;
    };
  }
  FinishReason WaitForFinish() {
    absl::MutexLock lock(&mu_);
    const auto is_finished = [this] { return finish_ != FinishReason::kNone; };
    mu_.AwaitWithTimeout(absl::Condition(&is_finished), kPatience);
    return finish_;
  }
  bool WaitForTokens(size_t num_tokens) {
    absl::MutexLock lock(&mu_);
    const auto has_tokens = [this, num_tokens] { return tokens_.size() >= num_tokens; };
    return mu_.AwaitWithTimeout(absl::Condition(&has_tokens), kPatience);
  }
  std::vector<int32_t> tokens() {
    absl::MutexLock lock(&mu_);
    return tokens_;
  }
  FinishReason finish() {
    absl::MutexLock lock(&mu_);
    return finish_;
  }

 private:
  absl::Mutex mu_;
  std::vector<int32_t> tokens_;
  FinishReason finish_ = FinishReason::kNone;
};

// The next token is the last one plus one, which the position tells where the last one is not known yet.
absl::Status CountUp(const StepPlan& plan, StepResult* result) {
  result->step = plan.step;
  result->sequences.assign(plan.sequences.size(), {});
  for (size_t i = 0; i < plan.sequences.size(); ++i) {
    const PlannedSequence& planned = plan.sequences[i];
    if (!planned.samples) continue;
    const int32_t last_of_prompt = planned.num_prompt_tokens - 1;
    const int32_t last = planned.first_position + planned.num_tokens - 1;
    result->sequences[i].sampled.token =
        planned.tokens[static_cast<size_t>(last_of_prompt)] + last - last_of_prompt + 1;
  }
  return absl::OkStatus();
}

SchedulerConfig SmallConfig() {
  return {.num_pages = 64,
          .page_tokens = 4,
          .max_sequences = 8,
          .max_step_tokens = 32,
          .max_model_tokens = 128,
          .max_queued_requests = 4,
          .max_queued_tokens = 1000};
}

std::unique_ptr<StepLoop> MakeLoop(const SchedulerConfig& config, testing::RunStep run_step,
                                   std::function<void(const StepStats&)> on_step = nullptr,
                                   StepOrder order = StepOrder::kPlain) {
  auto scheduler = Scheduler::Create(config);
  REQUIRE(scheduler.ok());
  return std::make_unique<StepLoop>(std::move(*scheduler), config,
                                    testing::ComputedAtLaunch(std::move(run_step), order), std::move(on_step));
}

Request MakeRequest(std::vector<int32_t> prompt, int32_t max_new_tokens) {
  return {.prompt_tokens = std::move(prompt), .max_new_tokens = max_new_tokens};
}

// A step that waits until it is let go.
struct Gate {
  absl::Notification entered;
  absl::Notification release;
  std::atomic<int> num_steps{0};
  absl::Status Step(const StepPlan& plan, StepResult* result) {
    if (num_steps++ == 0) {
      entered.Notify();
      release.WaitForNotification();
    }
    return CountUp(plan, result);
  }
};

TEST_CASE("StepLoop: a request streams its tokens and finishes by length", "[step_loop]") {
  auto loop = MakeLoop(SmallConfig(), CountUp, nullptr, GENERATE(StepOrder::kPlain, StepOrder::kAhead));
  loop->Start();
  Events events;
  auto handle = loop->Submit(MakeRequest({5, 6, 7}, 4), events.Sink());
  REQUIRE(handle.ok());
  CHECK(events.WaitForFinish() == FinishReason::kLength);
  CHECK(events.tokens() == std::vector<int32_t>{8, 9, 10, 11});
}

TEST_CASE("StepLoop: a stop token ends the request", "[step_loop]") {
  auto loop = MakeLoop(SmallConfig(), CountUp, nullptr, GENERATE(StepOrder::kPlain, StepOrder::kAhead));
  loop->Start();
  Events events;
  Request request = MakeRequest({1}, 50);
  request.stop_token_ids = {5};
  auto handle = loop->Submit(std::move(request), events.Sink());
  REQUIRE(handle.ok());
  CHECK(events.WaitForFinish() == FinishReason::kStop);
  CHECK(events.tokens() == std::vector<int32_t>{2, 3, 4, 5});
}

TEST_CASE("StepLoop: a reset of the prefix cache comes between two steps, and is not waited for longer than allowed",
          "[step_loop]") {
  Gate gate;
  auto loop = MakeLoop(SmallConfig(), [&gate](const StepPlan& plan, StepResult* out) { return gate.Step(plan, out); });
  loop->Start();
  Events events;
  auto handle = loop->Submit(MakeRequest({1, 2, 3, 4, 5, 6, 7, 8, 9}, 2), events.Sink());
  REQUIRE(handle.ok());
  gate.entered.WaitForNotification();
  CHECK(absl::IsDeadlineExceeded(loop->ResetPrefixCache(std::nullopt, absl::ZeroDuration()).status()));
  gate.release.Notify();
  CHECK(events.WaitForFinish() == FinishReason::kLength);
  CHECK(*loop->ResetPrefixCache(77, kPatience) == 0);  // nobody's
  CHECK(*loop->ResetPrefixCache(std::nullopt, kPatience) == 2);
}

TEST_CASE("StepLoop: who waits for a reset does not wait on when the device fails, and later ones are refused",
          "[step_loop]") {
  Gate gate;
  auto loop = MakeLoop(SmallConfig(), [&gate](const StepPlan& plan, StepResult* out) {
    gate.Step(plan, out).IgnoreError();
    return absl::InternalError("lost");
  });
  loop->Start();
  Events events;
  auto handle = loop->Submit(MakeRequest({1, 2}, 2), events.Sink());
  REQUIRE(handle.ok());
  gate.entered.WaitForNotification();
  absl::Status status;
  std::thread waiting([&] { status = loop->ResetPrefixCache(std::nullopt, kPatience).status(); });
  gate.release.Notify();
  waiting.join();
  CHECK((status.ok() || absl::IsUnavailable(status)));  // the inbox is read once more before the thread ends
  CHECK(events.WaitForFinish() == FinishReason::kError);
  CHECK(absl::IsUnavailable(loop->ResetPrefixCache(std::nullopt, kPatience).status()));
}

TEST_CASE("StepLoop: dropping the handle cancels, frees the pages and is counted", "[step_loop]") {
  absl::Mutex mu;
  uint64_t freed = 0;
  int32_t used_pages = -1;
  const auto on_step = [&](const StepStats& stats) {
    absl::MutexLock lock(&mu);
    freed += stats.disconnect_steps.size();
    used_pages = stats.scheduler.num_pages_used;
  };
  auto loop = MakeLoop(SmallConfig(), CountUp, on_step, GENERATE(StepOrder::kPlain, StepOrder::kAhead));
  loop->Start();
  Events events;
  auto handle = loop->Submit(MakeRequest({1, 2, 3}, 100), events.Sink());
  REQUIRE(handle.ok());
  REQUIRE(events.WaitForTokens(1));
  handle->Reset();
  absl::MutexLock lock(&mu);
  const auto is_freed = [&] { return used_pages == 0; };
  CHECK(mu.AwaitWithTimeout(absl::Condition(&is_freed), kPatience));
  CHECK(freed <= 1);  // 0 when the request had ended by itself before
}

TEST_CASE("StepLoop: pages of those who leave during a step are free before the next one begins", "[step_loop]") {
  absl::Notification second_step, release;
  absl::Mutex mu;
  std::vector<StepStats> steps;
  int num_steps = 0;
  Events stays;
  std::deque<Events> leave(2);
  auto loop = MakeLoop(
      SmallConfig(),
      [&](const StepPlan& plan, StepResult* result) {
        if (++num_steps == 2) {
          second_step.Notify();
          release.WaitForNotification();
        }
        return CountUp(plan, result);
      },
      [&](const StepStats& stats) {
        absl::MutexLock lock(&mu);
        steps.push_back(stats);
      });
  auto staying = loop->Submit(MakeRequest({1, 2, 3}, 4), stays.Sink());
  std::vector<RequestHandle> leaving;
  for (Events& events : leave) leaving.push_back(*loop->Submit(MakeRequest({7, 8, 9, 10, 11}, 50), events.Sink()));
  loop->Start();
  second_step.WaitForNotification();
  leaving.clear();
  release.Notify();
  CHECK(stays.WaitForFinish() == FinishReason::kLength);
  absl::MutexLock lock(&mu);
  REQUIRE(steps.size() >= 3);
  CHECK(steps[1].num_sequences == 3);
  CHECK(steps[1].disconnect_steps.empty());
  CHECK(steps[2].num_sequences == 1);
  CHECK(steps[2].disconnect_steps == std::vector<uint64_t>{0, 0});
  CHECK(steps[2].scheduler.num_pages_used == 2);  // five tokens of the one that stays
  CHECK(leave[0].finish() == FinishReason::kNone);
}

TEST_CASE("StepLoop: beyond the queue's bounds a request is refused with the reason", "[step_loop]") {
  Gate gate;
  auto loop =
      MakeLoop(SmallConfig(), [&](const StepPlan& plan, StepResult* result) { return gate.Step(plan, result); });
  loop->Start();
  Events running;
  auto first = loop->Submit(MakeRequest({1}, 2), running.Sink());
  gate.entered.WaitForNotification();
  Events waiting;
  std::vector<RequestHandle> handles;
  absl::Status refusal;
  for (int i = 0; i < 6 && refusal.ok(); ++i) {
    auto handle = loop->Submit(MakeRequest({1}, 2), waiting.Sink());
    refusal = handle.status();
    if (handle.ok()) handles.push_back(std::move(*handle));
  }
  CHECK(absl::IsResourceExhausted(refusal));
  CHECK(std::string(refusal.message()).find("requests wait") != std::string::npos);
  gate.release.Notify();
  CHECK(running.WaitForFinish() == FinishReason::kLength);
}

TEST_CASE("StepLoop: beyond the queue's prompt tokens a request is refused, unless nothing else waits", "[step_loop]") {
  SchedulerConfig config = SmallConfig();
  config.max_queued_tokens = 50;
  Events events;
  auto loop = MakeLoop(config, CountUp);  // never started: everything waits
  auto first = loop->Submit(MakeRequest(std::vector<int32_t>(60, 1), 2), events.Sink());
  CHECK(first.ok());
  const absl::Status refusal = loop->Submit(MakeRequest({1}, 2), events.Sink()).status();
  CHECK(absl::IsResourceExhausted(refusal));
  CHECK(std::string(refusal.message()).find("60 prompt tokens wait") != std::string::npos);
  first->Disarm();
}

TEST_CASE("StepLoop: what was accepted runs, though preempted sequences alone would fill the queue", "[step_loop]") {
  SchedulerConfig config = SmallConfig();
  config.num_pages = 12;
  config.max_queued_requests = 3;
  std::deque<Events> events(6);
  std::unique_ptr<StepLoop> loop;
  std::vector<absl::StatusOr<RequestHandle>> handles;
  const auto submit_until = [&](size_t count) {
    while (handles.size() < count) {
      handles.push_back(loop->Submit(MakeRequest({1, 2, 3}, 40), events[handles.size()].Sink()));
    }
  };
  const auto on_step = [&](const StepStats& stats) {
    if (stats.scheduler.num_running == 3 && handles.size() == 3) submit_until(5);
    if (stats.scheduler.num_preemptions > 0 && stats.scheduler.num_waiting >= 3) submit_until(6);
  };
  loop = MakeLoop(config, CountUp, on_step, GENERATE(StepOrder::kPlain, StepOrder::kAhead));
  submit_until(3);
  loop->Start();
  for (Events& one : events) {
    CHECK(one.WaitForFinish() == FinishReason::kLength);
    CHECK(one.tokens().size() == 40);
    CHECK(one.tokens().back() == 43);
  }
  for (const auto& handle : handles) CHECK(handle.status().ToString() == "OK");
  handles.clear();
}

TEST_CASE("StepLoop: a place in the queue that was given up is free at once", "[step_loop]") {
  SchedulerConfig config = SmallConfig();
  config.max_sequences = 1;
  config.max_queued_requests = 2;
  absl::Notification second_step, release;
  std::atomic<int> num_steps{0};
  auto loop = MakeLoop(config, [&](const StepPlan& plan, StepResult* result) {
    if (++num_steps == 2) {
      second_step.Notify();
      release.WaitForNotification();
    }
    return CountUp(plan, result);
  });
  Events running, gone, waiting, late;
  std::vector<absl::StatusOr<RequestHandle>> handles;
  handles.push_back(loop->Submit(MakeRequest({1}, 5), running.Sink()));
  handles.push_back(loop->Submit(MakeRequest({1}, 5), gone.Sink()));
  loop->Start();
  REQUIRE(second_step.WaitForNotificationWithTimeout(kPatience));
  handles.push_back(loop->Submit(MakeRequest({1}, 5), waiting.Sink()));
  handles[1]->Reset();
  handles.push_back(loop->Submit(MakeRequest({1}, 5), late.Sink()));
  for (const auto& handle : handles) REQUIRE(handle.status().ToString() == "OK");
  release.Notify();
  for (Events* one : {&running, &waiting, &late}) CHECK(one->WaitForFinish() == FinishReason::kLength);
}

TEST_CASE("StepLoop: what can never run is refused with the numbers", "[step_loop]") {
  auto loop = MakeLoop(SmallConfig(), CountUp);
  loop->Start();
  Events events;
  const auto too_long = loop->Submit(MakeRequest(std::vector<int32_t>(100, 1), 29), events.Sink());
  CHECK(absl::IsInvalidArgument(too_long.status()));
  CHECK(std::string(too_long.status().message()).find("128") != std::string::npos);
  CHECK(absl::IsInvalidArgument(loop->Submit(MakeRequest({}, 1), events.Sink()).status()));
}

TEST_CASE("StepLoop: a step that does not end fails its requests, and the loop recovers when it ends", "[step_loop]") {
  Gate gate;
  auto loop = MakeLoop(
      SmallConfig(), [&](const StepPlan& plan, StepResult* result) { return gate.Step(plan, result); }, nullptr,
      GENERATE(StepOrder::kPlain, StepOrder::kAhead));
  loop->Start();
  Events stuck;
  auto handle = loop->Submit(MakeRequest({1}, 5), stuck.Sink());
  gate.entered.WaitForNotification();
  CHECK(loop->CheckHealth(absl::Hours(1)) == EngineHealth::kReady);
  CHECK(loop->CheckHealth(absl::ZeroDuration()) == EngineHealth::kStuck);
  CHECK(stuck.finish() == FinishReason::kError);
  Events refused;
  CHECK(absl::IsUnavailable(loop->Submit(MakeRequest({1}, 5), refused.Sink()).status()));
  gate.release.Notify();
  const absl::Time give_up = absl::Now() + kPatience;
  while (loop->CheckHealth(absl::Hours(1)) != EngineHealth::kReady && absl::Now() < give_up) std::this_thread::yield();
  Events later;
  auto next = loop->Submit(MakeRequest({1}, 2), later.Sink());
  REQUIRE(next.ok());
  CHECK(later.WaitForFinish() == FinishReason::kLength);
}

TEST_CASE("StepLoop: the watchdog sees a hang outside a step, and leaves the sinks alone", "[step_loop]") {
  absl::Notification entered, release;
  Events events;
  auto loop = MakeLoop(SmallConfig(), CountUp, [&](const StepStats&) {
    if (entered.HasBeenNotified()) return;
    entered.Notify();
    release.WaitForNotification();
  });
  auto handle = loop->Submit(MakeRequest({1}, 5), events.Sink());
  CHECK(loop->CheckHealth(absl::ZeroDuration()) == EngineHealth::kReady);  // nothing to do is no hang
  loop->Start();
  entered.WaitForNotification();
  CHECK(loop->CheckHealth(absl::Hours(1)) == EngineHealth::kReady);
  CHECK(loop->CheckHealth(absl::ZeroDuration()) == EngineHealth::kStuck);
  CHECK(absl::IsUnavailable(loop->Submit(MakeRequest({1}, 5), events.Sink()).status()));
  CHECK(events.finish() == FinishReason::kNone);
  release.Notify();
  CHECK(events.WaitForFinish() == FinishReason::kLength);
  CHECK(loop->CheckHealth(absl::Hours(1)) == EngineHealth::kReady);
}

// What a loop asks of its device, in order.
std::string CallsOf(StepOrder order, Request request) {
  auto scheduler = Scheduler::Create(SmallConfig());
  REQUIRE(scheduler.ok());
  std::string calls;  // l for launch, c for collect
  StepFunctions functions = testing::ComputedAtLaunch(CountUp, order);
  functions.launch = [&calls, launch = functions.launch](const StepPlan& plan) {
    calls += 'l';
    return launch(plan);
  };
  functions.collect = [&calls, collect = functions.collect](StepResult* result) {
    calls += 'c';
    return collect(result);
  };
  Events events;
  StepLoop loop(std::move(*scheduler), SmallConfig(), functions, nullptr);
  auto handle = loop.Submit(std::move(request), events.Sink());
  REQUIRE(handle.ok());
  loop.Start();
  CHECK(events.WaitForFinish() == FinishReason::kLength);
  return calls;
}

TEST_CASE("StepLoop: ahead, each step is launched before the one in flight is collected", "[step_loop]") {
  const Request request = MakeRequest({1, 2, 3}, 4);
  CHECK(CallsOf(StepOrder::kPlain, request) == "lclclclc");
  CHECK(CallsOf(StepOrder::kAuto, request) == "lclclclc");
  CHECK(CallsOf(StepOrder::kAhead, request) == "llclclcc");
  Request penalised = request;
  penalised.sampling.presence_penalty = 0.5f;  // needs the tokens before the next are drawn
  CHECK(CallsOf(StepOrder::kAhead, penalised) == "lclclclc");
}

TEST_CASE("StepLoop: a device that is lost with a step ahead of it fails every request once", "[step_loop]") {
  const bool breaks_at_launch = GENERATE(true, false);
  auto scheduler = Scheduler::Create(SmallConfig());
  REQUIRE(scheduler.ok());
  StepFunctions functions = testing::ComputedAtLaunch(CountUp, StepOrder::kAhead);
  int num_launched = 0, num_collected = 0;
  functions.launch = [&, launch = functions.launch](const StepPlan& plan) {
    if (breaks_at_launch && ++num_launched == 3) return absl::InternalError("lost");
    return launch(plan);
  };
  functions.collect = [&, collect = functions.collect](StepResult* result) {
    if (!breaks_at_launch && ++num_collected == 2) return absl::InternalError("lost");
    return collect(result);
  };
  std::deque<Events> events(3);
  StepLoop loop(std::move(*scheduler), SmallConfig(), functions, nullptr);
  std::vector<RequestHandle> handles;
  for (Events& one : events) handles.push_back(*loop.Submit(MakeRequest({1, 2, 3}, 20), one.Sink()));
  loop.Start();
  for (Events& one : events) {
    CHECK(one.WaitForFinish() == FinishReason::kError);
    CHECK(one.tokens() == std::vector<int32_t>{4});  // of the step that was collected
  }
  const absl::Time give_up = absl::Now() + kPatience;
  while (loop.CheckHealth(absl::Hours(1)) != EngineHealth::kFailed && absl::Now() < give_up) std::this_thread::yield();
  CHECK(loop.CheckHealth(absl::Hours(1)) == EngineHealth::kFailed);
}

TEST_CASE("StepLoop: a lost device fails every request and stops the loop", "[step_loop]") {
  auto loop = MakeLoop(SmallConfig(), [](const StepPlan&, StepResult*) { return absl::InternalError("device lost"); });
  loop->Start();
  Events events;
  auto handle = loop->Submit(MakeRequest({1}, 5), events.Sink());
  CHECK(events.WaitForFinish() == FinishReason::kError);
  const absl::Time give_up = absl::Now() + kPatience;
  while (loop->CheckHealth(absl::Hours(1)) != EngineHealth::kFailed && absl::Now() < give_up) std::this_thread::yield();
  CHECK(loop->CheckHealth(absl::Hours(1)) == EngineHealth::kFailed);
  CHECK(absl::IsUnavailable(loop->Submit(MakeRequest({1}, 5), events.Sink()).status()));
}

TEST_CASE("StepLoop: destruction ends every live request", "[step_loop]") {
  Events events;
  RequestHandle handle;
  {
    auto loop = MakeLoop(SmallConfig(), CountUp);
    auto submitted = loop->Submit(MakeRequest({1}, 5), events.Sink());  // never started
    REQUIRE(submitted.ok());
    handle = std::move(*submitted);
    loop.reset();
  }
  CHECK(events.finish() == FinishReason::kError);
  handle.Disarm();
}

}  // namespace
}  // namespace millrace
