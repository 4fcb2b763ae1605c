// SPDX-License-Identifier: Apache-2.0
// The loop that runs a step ahead, on the CUDA backend over an emulated runtime that does nothing before the host waits
// for it: what is overwritten too early or read too soon gives other tokens.
#include <cuda_runtime.h>

#include <catch2/catch.hpp>

#include "kernels/cuda/backend/cuda_device.h"
#include "tests/support/step_order_load.h"

namespace millrace::testing {
namespace {

enum class Streams { kAtOnce, kDeferred };

std::unique_ptr<LoadedModel> LoadModel(const StepLoad& load, Streams streams) {
  std::unique_ptr<simt::DeferredStreams> deferred;
  if (streams == Streams::kDeferred) deferred = std::make_unique<simt::DeferredStreams>();
  auto device = cuda::CudaDevice::Open({});
  REQUIRE(device.status().ToString() == "OK");
  return std::make_unique<LoadedModel>(std::string(MILLRACE_SOURCE_DIR) + "/tests/data/goldens/qwen3",
                                       *std::move(device), load);
}

LoadOutcome RunLoad(const StepLoad& load, StepOrder order, Streams streams) {
  const auto model = LoadModel(load, streams);
  return LoadRun(*model, load, FunctionsOf(model->runner(), order)).Run();
}

TEST_CASE("CUDA step order: whether the device computes at once or as late as it can, tokens are the same",
          "[cuda][step_order]") {
  uint64_t num_preemptions = 0, num_hits = 0;
  for (uint32_t seed = 0; seed < 2; ++seed) {
    CAPTURE(seed);
    const StepLoad load{.seed = seed,
                        .num_requests = 14,
                        .max_new = 14,
                        .num_pages = seed == 0 ? 40 : 9,
                        .cancels = 0.1,
                        .has_host_work = seed == 0};
    const LoadOutcome at_once = RunLoad(load, StepOrder::kAhead, Streams::kAtOnce);
    const LoadOutcome deferred = RunLoad(load, StepOrder::kAhead, Streams::kDeferred);
    CheckSameOutcome(at_once, deferred);
    CHECK(at_once.finishes == deferred.finishes);
    CHECK(deferred.num_ahead > 5);
    num_preemptions += deferred.stats.num_preemptions;
    num_hits += deferred.stats.prefix_hit_tokens;
  }
  CHECK(num_preemptions > 0);
  CHECK(num_hits > 0);
}

// Prompts are computed in one piece and none again: how they are cut would change the last bits.
TEST_CASE("CUDA step order: steps run ahead tell everybody the tokens of plain ones", "[cuda][step_order]") {
  const StepLoad load{.seed = 3,
                      .num_requests = 14,
                      .max_prompt = 8,
                      .max_new = 14,
                      .num_pages = 80,
                      .has_host_work = false,
                      .has_prefix_caching = false};
  const LoadOutcome plain = RunLoad(load, StepOrder::kPlain, Streams::kAtOnce);
  const LoadOutcome ahead = RunLoad(load, StepOrder::kAhead, Streams::kDeferred);
  CheckSameOutcome(plain, ahead, /*logprob_tolerance=*/0.02f);
  CHECK(plain.num_ahead == 0);
  CHECK(ahead.num_ahead > 5);
}

TEST_CASE("CUDA step order: the host waits for one event a step, and for nothing while it launches",
          "[cuda][step_order]") {
  const StepLoad load{
      .seed = 5, .num_requests = 10, .max_new = 12, .cancels = 0, .has_host_work = false, .has_embeddings = false};
  const auto model = LoadModel(load, Streams::kDeferred);
  int num_collected = 0, num_overlapped = 0;
  const StepFunctions functions{.launch =
                                    [&](const StepPlan& plan) {
                                      static_cast<void>(simt::TakeHostWaits());
                                      const absl::Status status = model->runner().Launch(plan);
                                      const simt::HostWaits waits = simt::TakeHostWaits();
                                      CHECK(waits.num_for_streams == 0);
                                      CHECK(waits.num_for_events == 0);
                                      return status;
                                    },
                                .collect =
                                    [&](StepResult* result) {
                                      const absl::Status status = model->runner().Collect(result);
                                      const simt::HostWaits waits = simt::TakeHostWaits();
                                      CHECK(waits.num_for_streams == 0);
                                      CHECK(waits.num_for_events == 1);
                                      ++num_collected;
                                      num_overlapped +=
                                          simt::HasDeferredWork() ? 1 : 0;  // the next step is still to be computed
                                      return status;
                                    },
                                .order = StepOrder::kAhead};
  const LoadOutcome outcome = LoadRun(*model, load, functions).Run();
  CHECK(outcome.num_ahead > num_collected / 2);
  CHECK(num_overlapped == outcome.num_ahead);
}

}  // namespace
}  // namespace millrace::testing
