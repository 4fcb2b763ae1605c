// SPDX-License-Identifier: Apache-2.0
// The warpgroup kernel of prefill attention: what attention_test.cc asks of its twin, about its own edges.
#include <utility>
#include <vector>

#include "kernels/cuda/attention_plan.h"
#include "kernels/cuda/page_divisor.h"
#include "kernels/cuda/warpgroups.h"
#include "tests/cuda/attention_step.h"
#include "tests/cuda/harness.h"

namespace millrace::cuda {
namespace {

using cuda_test::AttentionStep;
using cuda_test::KvShape;
using cuda_test::Random;
using cuda_test::StepOptions;
using cuda_test::StepSequence;

constexpr DType kHalves[] = {DType::kBF16, DType::kF16};
constexpr DType kBytes[] = {DType::kI8, DType::kF8E4M3};
constexpr DType kKvTypes[] = {DType::kBF16, DType::kF16, DType::kI8, DType::kF8E4M3};

// Tests are built for the device they run on.
bool HasWarpgroups() {
  int major = 0, minor = 0;
  cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, 0);
  cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, 0);
  bool has_warpgroups = false;
  EXPECT(FindWarpgroups(has_warpgroups) == cudaSuccess);
  EXPECT(has_warpgroups == (major == 9 && minor == 0));
  return has_warpgroups;
}

StepOptions Options(const KvShape& kv, int window_tokens = 0) {
  return {.kv = kv, .window_tokens = window_tokens, .padding = 8, .has_warpgroups = true};
}

std::vector<uint16_t> AttendBy(AttentionStep& step) {
  EXPECT(HasWarpgroupAttention(step.launch())) << step.Describe();
  return step.Attend();
}

KERNEL_TEST("attention warpgroup: agrees with double in both head dimensions and every dtype") {
  if (!HasWarpgroups()) return;
  for (const int dim : {64, 128}) {
    for (const DType kv_dtype : kKvTypes) {
      for (const DType dtype : kHalves) {
        StepOptions options = Options({.dtype = kv_dtype, .num_heads = 4, .num_kv_heads = 2, .head_dim = dim});
        options.dtype = dtype;
        AttentionStep step(options, {{2, 0, 1}, {37, 30, 2}});
        step.ExpectAgrees(AttendBy(step));
      }
    }
  }
}

KERNEL_TEST("attention warpgroup: agrees with double at the edges of tiles, groups of warps and steps") {
  if (!HasWarpgroups()) return;
  const int group_rows[][2] = {{1, 63}, {1, 64}, {1, 65}, {1, 127}, {1, 128}, {1, 129}, {3, 43}, {8, 33}, {9, 15}};
  for (const auto& [group, rows] : group_rows) {
    AttentionStep step(Options({.num_heads = group, .num_kv_heads = 1}), {{rows, 0, 1}, {rows, 127, 2}});
    step.ExpectAgrees(AttendBy(step), 7);
  }
}

KERNEL_TEST("attention warpgroup: agrees with double in every page size and window") {
  if (!HasWarpgroups()) return;
  for (const int page_tokens : {1, 7, 8, 16, 64, 128, 256}) {
    for (const int window : {0, 1, 37, 128, 200}) {
      AttentionStep step(Options({.num_heads = 1, .num_kv_heads = 1, .page_tokens = page_tokens}, window),
                         {{66, 0, 1}, {2, 300, 2}, {70, 250, 3}});
      step.ExpectAgrees(AttendBy(step), 7);
    }
  }
}

KERNEL_TEST("attention warpgroup: agrees with double in 8-bit KV of several page sizes, with and without a window") {
  if (!HasWarpgroups()) return;
  const std::pair<int, int> pages_windows[] = {{1, 37}, {7, 0}, {16, 37}, {129, 0}};
  for (const DType dtype : kBytes) {
    for (const auto& [page_tokens, window] : pages_windows) {
      const KvShape kv{.dtype = dtype, .num_heads = 1, .num_kv_heads = 1, .page_tokens = page_tokens};
      AttentionStep step(Options(kv, window), {{66, 0, 1}, {2, 300, 2}, {70, 250, 3}});
      step.ExpectAgrees(AttendBy(step), 7);
    }
  }
}

KERNEL_TEST("attention warpgroup: agrees with double when every stage is filled again and again") {
  if (!HasWarpgroups()) return;
  for (const int dim : {64, 128}) {
    for (const DType dtype : {DType::kBF16, DType::kI8, DType::kF8E4M3}) {
      for (const int window : {0, 700}) {
        if (dtype != DType::kBF16 && window == 0) continue;
        const KvShape kv{.dtype = dtype, .num_heads = 1, .num_kv_heads = 1, .head_dim = dim};
        AttentionStep step(Options(kv, window), {{130, 1100, 1}});
        step.ExpectAgrees(AttendBy(step), 19);
      }
    }
  }
}

KERNEL_TEST("attention warpgroup: agrees with double in shapes drawn at random") {
  if (!HasWarpgroups()) return;
  Random random(17);
  for (int i = 0; i < 9; ++i) {
    const int num_kv_heads = random.Int(1, 2), page_tokens = 1 << random.Int(0, 7);
    StepOptions options = Options({.dtype = kKvTypes[random.Int(0, 3)],
                                   .num_heads = num_kv_heads * random.Int(1, 5),
                                   .num_kv_heads = num_kv_heads,
                                   .head_dim = 64 * random.Int(1, 2),
                                   .page_tokens = page_tokens - (page_tokens > 2 ? random.Int(0, 1) : 0)},
                                  random.Int(0, 1) * random.Int(1, 400));
    options.layout_seed = random.Bits();
    std::vector<StepSequence> sequences;
    for (int s = random.Int(1, 4); s > 0; --s) {
      sequences.push_back({random.Int(0, 90), random.Int(0, 500), random.Bits() % 1000});
    }
    sequences.push_back({random.Int(2, 150), random.Int(0, 300), 1});
    AttentionStep step(options, sequences);
    EXPECT(HasWarpgroupAttention(step.launch())) << step.Describe();
    step.ExpectAgrees(step.Attend(random.Int(1, 5)), 11);
  }
}

KERNEL_TEST("attention warpgroup: a row's bits depend neither on the step, nor on pages, nor on the machine") {
  if (!HasWarpgroups()) return;
  const std::vector<StepSequence> sequences = {{1, 700, 1}, {0}, {40, 0, 2}, {1, 3, 3}, {3, 90, 4}, {0}, {1, 129, 5}};
  const std::pair<DType, int> windows[] = {
      {DType::kBF16, 0}, {DType::kBF16, 150}, {DType::kI8, 150}, {DType::kF8E4M3, 0}};
  for (const auto& [dtype, window] : windows) {
    const StepOptions options = Options({.dtype = dtype, .num_heads = 9, .num_kv_heads = 1}, window);
    AttentionStep together(options, sequences);
    const std::vector<uint16_t> out = together.Attend(1);
    together.ExpectAgrees(out, 13);
    EXPECT(together.Attend(132) == out) << together.Describe() << "another grid, the plan's counters used before";
    for (size_t s = 0; s < sequences.size(); ++s) {
      if (sequences[s].num_rows < 2) continue;
      StepOptions elsewhere = options;
      elsewhere.layout_seed = 2;
      elsewhere.kv.page_tokens = 5;
      AttentionStep alone(elsewhere, {sequences[s]});
      EXPECT(alone.RowsOf(AttendBy(alone), 0) == together.RowsOf(out, s)) << together.Describe() << "sequence" << s;
    }
  }
}

KERNEL_TEST("attention warpgroup: a prompt's rows have the same bits however it is cut") {
  if (!HasWarpgroups()) return;
  for (const DType dtype : {DType::kBF16, DType::kI8}) {
    const StepOptions options = Options({.dtype = dtype, .num_heads = 3, .num_kv_heads = 1}, 140);
    AttentionStep whole(options, {{300, 0, 1}});
    const std::vector<uint16_t> want = whole.RowsOf(AttendBy(whole), 0);
    std::vector<uint16_t> got;
    for (const auto& [rows, context] : std::vector<std::pair<int, int>>{{33, 0}, {100, 33}, {2, 133}, {165, 135}}) {
      AttentionStep part(options, {{rows, context, 1}});
      const std::vector<uint16_t> piece = part.RowsOf(AttendBy(part), 0);
      got.insert(got.end(), piece.begin(), piece.end());
    }
    EXPECT(got == want) << whole.Describe();
  }
}

KERNEL_TEST("attention warpgroup: a token's page is found without a division") {
  for (int page_tokens = 1; page_tokens <= 300; ++page_tokens) {
    const PageDivisor divisor = PageDivisor::Of(page_tokens);
    for (const int64_t about : {int64_t{0}, int64_t{1000}, int64_t{123456789}, int64_t{INT32_MAX}}) {
      const int64_t multiple = about / page_tokens * page_tokens;
      for (const int64_t token : {multiple - 1, multiple, multiple + 1, about}) {
        if (token < 0 || token > INT32_MAX) continue;
        EXPECT(divisor.Divide(static_cast<int32_t>(token)) == token / page_tokens) << token << "by" << page_tokens;
      }
    }
  }
}

KERNEL_TEST("attention warpgroup: takes what it was made for and leaves the rest to its twin") {
  AttentionStep step(Options({.num_heads = 2, .num_kv_heads = 1}), {{4, 9, 2}});
  const AttentionLaunch fits = step.launch();
  EXPECT(HasWarpgroupAttention(fits));
  AttentionLaunch other = fits;
  other.has_warpgroups = false;
  EXPECT(!HasWarpgroupAttention(other));
  other = fits, other.kv.head_dim = 96;
  EXPECT(!HasWarpgroupAttention(other));
  for (const DType dtype : kKvTypes) {
    other = fits, other.kv.dtype = dtype;
    EXPECT(HasWarpgroupAttention(other));
  }
  other = fits, other.scale = -1;
  EXPECT(!HasWarpgroupAttention(other));
  other = fits, other.q.stride += 2;
  EXPECT(!HasWarpgroupAttention(other));
  other = fits, other.q.data = static_cast<uint16_t*>(fits.q.data) + 2;
  EXPECT(!HasWarpgroupAttention(other));
}

}  // namespace
}  // namespace millrace::cuda
