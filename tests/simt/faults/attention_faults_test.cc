// SPDX-License-Identifier: Apache-2.0
// Mistakes planted in the warpgroup kernel of attention, at every place where it waits, fences or copies: the emulator
// reports each, or the result is another, in some order of threads.
#include <optional>
#include <string>
#include <vector>

#include "kernels/cuda/attention_plan.h"
#include "tests/cuda/attention_step.h"
#include "tests/cuda/harness.h"
#include "tests/simt/emulator/faults.h"

namespace millrace::cuda {
namespace {

using cuda_test::AttentionStep;
using simt::Call;
using simt::FaultKind;

constexpr int kMostSeeds = 8;
constexpr int kTurnBarriers[] = {1, 2};  // which group multiplies first changes the time only

// Two stages, filled several times; both groups, several items for the one block, pages that end within a box.
AttentionStep MakeStep(DType kv_dtype) {
  return AttentionStep({.kv = {.dtype = kv_dtype, .num_heads = 1, .num_kv_heads = 1, .head_dim = 128},
                        .padding = 8,
                        .has_warpgroups = true},
                       {{70, 640, 1}, {20, 5, 2}});
}

bool IsWorthPlanting(const Call& call) {
#if __has_feature(address_sanitizer)
  // Which leaves the emulator no sight of the queries' plain stores.
  if (call.wrapper == "FenceAsyncProxy" || call.wrapper == "NamedBarrierWait") return false;
#endif
  return call.wrapper != "NamedBarrierWait" || (call.place != kTurnBarriers[0] && call.place != kTurnBarriers[1]);
}

// Nothing: a report ended the launch.
std::optional<std::vector<uint16_t>> Attend(AttentionStep& step) {
  const cudaError_t error = LaunchAttentionWarpgroup(step.launch(1), nullptr);
  simt::TakeReport();
  cudaGetLastError();
  return error == cudaSuccess ? std::optional(step.out()) : std::nullopt;
}

bool IsFound(AttentionStep& step, const std::vector<uint16_t>& right, const Call& call, FaultKind kind) {
  bool is_found = false;
  simt::PlantFault({call, kind});
  for (int seed = 0; seed < kMostSeeds && !is_found; ++seed) {
    simt::SetSeed(static_cast<uint64_t>(seed));
    step.ClearOut();
    const std::optional<std::vector<uint16_t>> out = Attend(step);
    is_found = !out.has_value() || *out != right;
  }
  simt::TakeOutFault();
  simt::SetSeed(0);
  return is_found;
}

void ExpectAllFound(DType kv_dtype, int num_kv_tensors) {
  AttentionStep step = MakeStep(kv_dtype);
  EXPECT(LaunchAttentionPlan(step.plan_launch(), nullptr) == cudaSuccess);
  simt::RecordCalls();
  const std::vector<uint16_t> right = step.Run(LaunchAttentionWarpgroup, step.launch(1));
  const std::vector<Call> calls = simt::TakeCalls();
  step.ExpectAgrees(right, 9);
  const simt::QuietReports quiet;
  int num_barriers = 0, num_tensors = 0;
  for (const Call& call : calls) {
    const std::string what = std::string(call.wrapper) + " at " + std::to_string(call.place);
    if (!IsWorthPlanting(call)) continue;
    if (call.wrapper == "TensorCopy") {
      ++num_tensors;
      EXPECT(IsFound(step, right, call, FaultKind::kNextBox)) << what;
      continue;
    }
    if (call.wrapper == "MbarrierInit") {
      EXPECT(IsFound(step, right, call, FaultKind::kHalfTheArrivals)) << what;
      continue;
    }
    EXPECT(IsFound(step, right, call, FaultKind::kSkipped)) << what;
    if (call.wrapper != "MbarrierWait") continue;
    ++num_barriers;
    EXPECT(IsFound(step, right, call, FaultKind::kOtherPhase)) << what;
  }
  EXPECT(num_barriers == 8) << "full and empty, of two stages of keys and of values";
  EXPECT(num_tensors == num_kv_tensors) << "keys and values";
}

KERNEL_TEST(
    "attention warpgroup: a wait, a fence or a phase that is wrong anywhere is found, and a page that is another") {
  ExpectAllFound(DType::kBF16, 2);
}

#if !__has_feature(address_sanitizer)  // which leaves no sight of the plain stores of what was widened
KERNEL_TEST("attention warpgroup: int8 KV, a wait, a fence or a phase that is wrong anywhere is found") {
  ExpectAllFound(DType::kI8, 0);
}
#endif

}  // namespace
}  // namespace millrace::cuda
