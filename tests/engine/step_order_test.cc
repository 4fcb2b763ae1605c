// SPDX-License-Identifier: Apache-2.0
// Whole loops over a real model: whether steps run one by one or one ahead, everybody is told the same.
#include <catch2/catch.hpp>

#include "tests/support/step_order_load.h"

namespace millrace::testing {
namespace {

LoadOutcome RunLoad(const StepLoad& load, StepOrder order) {
  auto device = MakeCpuDevice({.num_threads = 1});
  REQUIRE(device.ok());
  LoadedModel model(std::string(MILLRACE_SOURCE_DIR) + "/tests/data/goldens/qwen3", *std::move(device), load);
  return LoadRun(model, load, FunctionsOf(model.runner(), order)).Run();
}

TEST_CASE("Step order: steps run ahead tell everybody the tokens of plain ones", "[step_order]") {
  uint64_t num_preemptions = 0, num_hits = 0;
  for (uint32_t seed = 0; seed < 12; ++seed) {
    CAPTURE(seed);
    const StepLoad load{.seed = seed,
                        .num_requests = 60,
                        .num_pages = seed % 3 == 0 ? 60 : 13,
                        .page_tokens = 8,
                        .cancels = seed % 2 * 0.1,
                        .has_host_work = seed % 4 < 2};
    const LoadOutcome plain = RunLoad(load, StepOrder::kPlain), ahead = RunLoad(load, StepOrder::kAhead);
    CheckSameOutcome(plain, ahead);
    CHECK(plain.num_ahead == 0);
    CHECK(ahead.num_ahead > 10);
    num_preemptions += ahead.stats.num_preemptions;
    num_hits += ahead.stats.prefix_hit_tokens;
  }
  CHECK(num_preemptions > 20);
  CHECK(num_hits > 100);
}

}  // namespace
}  // namespace millrace::testing
