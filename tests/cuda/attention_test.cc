// SPDX-License-Identifier: Apache-2.0
// Attention against double precision, its fast kernels against the plain one, and a row's bits against themselves in
// other company.
#include "kernels/cuda/attention.h"

#include <vector>

#include "kernels/cuda/attention_plan.h"
#include "tests/cuda/attention_step.h"
#include "tests/cuda/harness.h"

namespace millrace::cuda {
namespace {

using cuda_test::AttentionStep;
using cuda_test::KvShape;
using cuda_test::StepOptions;
using cuda_test::StepSequence;

constexpr DType kKvTypes[] = {DType::kBF16, DType::kF16, DType::kI8, DType::kF8E4M3};
constexpr DType kActivations[] = {DType::kBF16, DType::kF16};

// Lengths about the edges of a warp's tile, a block's, a chunk and a page.
std::vector<StepSequence> DecodeLengths() {
  std::vector<StepSequence> sequences;
  for (const int seen : {1, 15, 16, 17, 63, 65, 127, 128, 129, 257, 300}) {
    sequences.push_back({1, seen - 1, static_cast<uint32_t>(seen)});
    if (seen % 2 == 0) sequences.push_back({0});
  }
  return sequences;
}

KERNEL_TEST("attention: the plain kernel agrees with double in any head dimension, KV dtype, grouping and window") {
  const std::vector<StepSequence> sequences = {{1, 0, 1}, {0}, {3, 20, 2}, {1, 40, 3}};
  const KvShape shapes[] = {{.num_heads = 3, .num_kv_heads = 1, .head_dim = 16, .page_tokens = 1},
                            {.num_heads = 2, .num_kv_heads = 2, .head_dim = 34, .page_tokens = 7},
                            {.num_heads = 2, .num_kv_heads = 1, .head_dim = 512}};
  for (KvShape shape : shapes) {
    for (const DType dtype : kKvTypes) {
      for (const int window : {0, 1, 13}) {
        shape.dtype = dtype;
        AttentionStep step({.kv = shape, .window_tokens = window}, sequences);
        step.ExpectAgrees(step.AttendPlainly());
      }
    }
  }
}

KERNEL_TEST(
    "attention: decode and its plain twin agree with double in every head dimension and dtype, at the edges of its "
    "tiles") {
  for (const int dim : {32, 64, 80, 96, 128, 256}) {
    for (const DType kv_dtype : kKvTypes) {
      for (const DType dtype : kActivations) {
        const bool is_main = dim == 64 && dtype == DType::kBF16;
        const std::vector<StepSequence> few = {{1, 0, 1}, {1, 20, 2}, {1, 69, 3}, {1, 140, 4}};
        AttentionStep step(
            {.kv = {.dtype = kv_dtype, .num_heads = 4, .num_kv_heads = 1, .head_dim = dim}, .dtype = dtype},
            is_main ? DecodeLengths() : few);
        step.ExpectAgrees(step.Attend());
        step.ExpectAgrees(step.AttendPlainly());
      }
    }
  }
}

KERNEL_TEST("attention: decode agrees with double in every grouping of heads, page size and window") {
  for (const int group : {1, 3, 7, 8, 9, 17}) {
    AttentionStep step({.kv = {.num_heads = 2 * group, .num_kv_heads = 2}}, {{1, 5, 1}, {1, 150, 2}});
    step.ExpectAgrees(step.Attend());
  }
  for (const int page_tokens : {1, 7, 16, 64}) {
    for (const int window : {0, 1, 37, 128, 200}) {
      for (const DType dtype : {DType::kBF16, DType::kI8}) {
        AttentionStep step({.kv = {.dtype = dtype, .num_kv_heads = 1, .head_dim = 32, .page_tokens = page_tokens},
                            .window_tokens = window},
                           {{1, 5, 1}, {1, 150, 2}, {1, 391, 3}});
        step.ExpectAgrees(step.Attend());
      }
    }
  }
}

KERNEL_TEST("attention: decode agrees with double where chunks lengthen, with and without a window") {
  for (const int window : {0, 2100}) {
    AttentionStep step({.kv = {.num_heads = 2, .num_kv_heads = 1, .head_dim = 32}, .window_tokens = window},
                       {{1, kShortTokens - 1, 1}, {1, kShortTokens, 2}, {1, 5000, 3}});
    step.ExpectAgrees(step.Attend());
  }
}

KERNEL_TEST("attention: few rows over a long context agree with double, in every dtype, with and without a window") {
  for (const DType dtype : kKvTypes) {
    for (const int window : {0, 1100}) {
      // Two rows of eight chunks and more, three of twelve, and next to them what prefill and decode take.
      const std::vector<StepSequence> sequences = {{2, 1200, 1}, {5, 40, 2}, {3, 1700, 3}, {1, 300, 4}, {2, 900, 5}};
      AttentionStep step(
          {.kv = {.dtype = dtype, .num_heads = 3, .num_kv_heads = 1, .head_dim = 32}, .window_tokens = window},
          sequences);
      const std::vector<uint16_t> out = step.Attend(2);
      step.ExpectAgrees(out);
      EXPECT(step.Attend(40) == out) << step.Describe() << "another grid, the plan's counters used before";
      AttentionStep alone(
          {.kv = {.dtype = dtype, .num_heads = 3, .num_kv_heads = 1, .head_dim = 32}, .window_tokens = window},
          {sequences[2]});
      EXPECT(alone.RowsOf(alone.Attend(), 0) == step.RowsOf(out, 2)) << step.Describe();
    }
  }
}

KERNEL_TEST("attention: few rows over a long context are no work for prefill") {
  AttentionStep step({.kv = {.num_heads = 2, .num_kv_heads = 1, .head_dim = 32}}, {{2, 1200, 1}});
  EXPECT(LaunchAttentionPlan(step.plan_launch(), nullptr) == cudaSuccess);
  for (const uint16_t bits : step.Run(LaunchAttentionPrefill, step.launch())) EXPECT(bits == AttentionStep::kUnwritten);
  step.ExpectAgrees(step.Run(LaunchAttentionDecode, step.launch()));
}

KERNEL_TEST("attention: prefill and its plain twin agree with double in every head dimension and dtype") {
  for (const int dim : {32, 64, 80, 96, 128, 256}) {
    for (const DType kv_dtype : kKvTypes) {
      for (const DType dtype : kActivations) {
        AttentionStep step(
            {.kv = {.dtype = kv_dtype, .num_heads = 4, .num_kv_heads = 2, .head_dim = dim}, .dtype = dtype},
            {{2, 0, 1}, {37, 30, 2}});
        step.ExpectAgrees(step.Attend());
        step.ExpectAgrees(step.AttendPlainly());
      }
    }
  }
}

KERNEL_TEST(
    "attention: prefill agrees with double at the edges of its tiles, in every grouping, page size and window") {
  const int group_rows[][2] = {{1, 127}, {1, 128}, {1, 129}, {3, 43}, {8, 33}, {9, 15}};
  for (const auto& [group, rows] : group_rows) {
    AttentionStep step({.kv = {.num_heads = group, .num_kv_heads = 1, .head_dim = 32}}, {{rows, 0, 1}, {rows, 63, 2}});
    step.ExpectAgrees(step.Attend(), 7);
  }
  for (const int page_tokens : {1, 7, 16, 64}) {
    for (const int window : {0, 1, 37, 64, 200}) {
      for (const DType dtype : {DType::kBF16, DType::kI8}) {
        AttentionStep step({.kv = {.dtype = dtype, .num_heads = 2, .head_dim = 32, .page_tokens = page_tokens},
                            .window_tokens = window},
                           {{66, 0, 1}, {2, 300, 2}, {70, 250, 3}});
        step.ExpectAgrees(step.Attend(), 7);
      }
    }
  }
}

KERNEL_TEST("attention: a row's bits depend neither on the step, nor on pages, nor on the machine") {
  const std::vector<StepSequence> sequences = {{1, 700, 1}, {0}, {40, 0, 2}, {1, 3, 3}, {3, 90, 4}, {0}, {1, 129, 5}};
  for (const DType dtype : kKvTypes) {
    for (const int window : {0, 150}) {
      const StepOptions options{.kv = {.dtype = dtype, .num_heads = 9, .num_kv_heads = 1, .head_dim = 64},
                                .window_tokens = window};
      AttentionStep together(options, sequences);
      const std::vector<uint16_t> out = together.Attend(1);
      together.ExpectAgrees(out, 13);
      EXPECT(together.Attend(132) == out) << together.Describe() << "another grid, the plan's counters used before";
      for (size_t s = 0; s < sequences.size(); ++s) {
        if (sequences[s].num_rows == 0) continue;
        StepOptions elsewhere = options;
        elsewhere.layout_seed = 2;
        elsewhere.kv.page_tokens = 5;
        AttentionStep alone(elsewhere, {sequences[s]});
        EXPECT(alone.RowsOf(alone.Attend(), 0) == together.RowsOf(out, s)) << together.Describe() << "sequence" << s;
      }
    }
  }
}

KERNEL_TEST("attention: a prompt's rows have the same bits however it is cut") {
  const StepOptions options{.kv = {.num_heads = 3, .num_kv_heads = 1, .head_dim = 64}, .window_tokens = 50};
  AttentionStep whole(options, {{100, 0, 1}});
  const std::vector<uint16_t> want = whole.RowsOf(whole.Attend(), 0);
  std::vector<uint16_t> got;
  for (const auto& [rows, context] : std::vector<std::pair<int, int>>{{33, 0}, {2, 33}, {64, 35}}) {
    AttentionStep part(options, {{rows, context, 1}});
    const std::vector<uint16_t> piece = part.RowsOf(part.Attend(), 0);
    got.insert(got.end(), piece.begin(), piece.end());
  }
  EXPECT(std::equal(got.begin(), got.end(), want.begin()));
}

KERNEL_TEST("attention: one launch of the plan serves several of attention") {
  AttentionStep step({.kv = {.head_dim = 32}}, {{1, 300, 1}, {1, 500, 2}, {5, 10, 3}});
  const std::vector<uint16_t> first = step.Attend();
  step.ExpectAgrees(first);
  for (int layer = 1; layer < 3; ++layer) EXPECT(step.Run(LaunchAttention, step.launch()) == first) << layer;
}

KERNEL_TEST("attention: what the fast kernels do not take goes to the plain one, what nothing takes is refused") {
  AttentionStep step({.kv = {.num_heads = 2, .num_kv_heads = 1, .head_dim = 48}}, {{1, 30, 1}, {4, 9, 2}});
  EXPECT(!HasFastAttention(step.launch()));
  step.ExpectAgrees(step.Attend());
  AttentionLaunch launch = step.launch();
  launch.q.dtype = DType::kF32;
  EXPECT(LaunchAttention(launch, nullptr) == cudaErrorInvalidValue);
  AttentionStep fast({.kv = {.num_heads = 2, .num_kv_heads = 1, .head_dim = 64}}, {{1, 30, 1}});
  EXPECT(HasFastAttention(fast.launch()));
}

KERNEL_TEST("attention: a decode-only step leaves longer sequences alone") {
  AttentionStep step({.kv = {.head_dim = 32}}, {{1, 30, 1}, {4, 9, 2}});
  EXPECT(LaunchAttentionPlan(step.plan_launch(), nullptr) == cudaSuccess);
  AttentionLaunch launch = step.launch();
  launch.mix = AttentionMix::kDecode;
  const std::vector<uint16_t> out = step.Run(LaunchAttention, launch);
  for (const uint16_t bits : step.RowsOf(out, 1)) EXPECT(bits == AttentionStep::kUnwritten);
  for (const uint16_t bits : step.RowsOf(out, 0)) EXPECT(bits != AttentionStep::kUnwritten);
}

}  // namespace
}  // namespace millrace::cuda
