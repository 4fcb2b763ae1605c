// SPDX-License-Identifier: Apache-2.0
// The loop that runs a step ahead, on whatever computes.
#include <catch2/catch.hpp>

#include "tests/cuda_engine/cuda_backend.h"
#include "tests/support/step_order_load.h"

namespace millrace::testing {
namespace {

LoadOutcome RunLoad(const StepLoad& load, StepOrder order) {
  LoadedModel model(std::string(MILLRACE_SOURCE_DIR) + "/tests/data/goldens/qwen3", Cuda(), load);
  return LoadRun(model, load, FunctionsOf(model.runner(), order)).Run();
}

// Prompts are computed in one piece and none again: how they are cut would change the last bits.
TEST_CASE("CUDA step order: a step ahead on a device that computes beside the host tells everybody the same",
          "[cuda][step_order]") {
  const StepLoad load{.seed = 3,
                      .num_requests = 14,
                      .max_prompt = 8,
                      .max_new = 14,
                      .num_pages = 80,
                      .has_host_work = false,
                      .has_prefix_caching = false};
  const LoadOutcome plain = RunLoad(load, StepOrder::kPlain);
  const LoadOutcome ahead = RunLoad(load, StepOrder::kAhead);
  CheckSameOutcome(plain, ahead, /*logprob_tolerance=*/0.02f);
  CHECK(plain.num_ahead == 0);
  CHECK(ahead.num_ahead > 5);
}

}  // namespace
}  // namespace millrace::testing
