// SPDX-License-Identifier: Apache-2.0
#pragma once
// Steps that a function computes as soon as they are launched, for a step loop without a device.
#include <deque>
#include <functional>
#include <memory>
#include <utility>

#include "engine/run/step_loop.h"

namespace millrace::testing {

using RunStep = std::function<absl::Status(const StepPlan&, StepResult*)>;

inline StepFunctions ComputedAtLaunch(RunStep run_step, StepOrder order = StepOrder::kPlain) {
  auto results = std::make_shared<std::deque<StepResult>>();
  return {.launch = [run_step = std::move(run_step),
                     results](const StepPlan& plan) { return run_step(plan, &results->emplace_back()); },
          .collect =
              [results](StepResult* result) {
                *result = std::move(results->front());
                results->pop_front();
                return absl::OkStatus();
              },
          .order = order};
}

}  // namespace millrace::testing
