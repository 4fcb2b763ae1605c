// SPDX-License-Identifier: Apache-2.0
#pragma once
// A model on the CPU and on a GPU draws the same tokens.
#include <catch2/catch.hpp>
#include <cmath>
#include <cstdio>
#include <limits>
#include <vector>

#include "tests/cuda_engine/cuda_backend.h"
#include "tests/cuda_engine/device_session.h"

namespace millrace::testing {

inline std::unique_ptr<Device> Cpu() {
  auto device = MakeCpuDevice({.num_threads = kIsEmulated ? 1 : 0});
  REQUIRE(device.ok());
  return *std::move(device);
}

// How far `token` is behind the best, where that is among what was reported.
inline double LeadOver(const TokenResult& result, int32_t token) {
  for (const TopLogprob& top : result.top) {
    if (top.token == token) return static_cast<double>(result.top[0].logprob) - top.logprob;
  }
  return std::numeric_limits<double>::infinity();
}

struct Sameness {
  double near_tie = 0;
  int num_new = 16;  // tokens compared
};

// Feeds both devices the CPU's greedy tokens and compares what each would draw next. They may differ only where the
// CPU's best leads the other's token by less than `sameness.near_tie`: activations are float32 there and bfloat16 here.
inline void CheckSameTokens(DeviceSession& cpu, DeviceSession& cuda, const std::vector<int32_t>& prompt,
                            const Sameness& sameness) {
  SessionSequence expected = cpu.NewSequence(1, prompt), actual = cuda.NewSequence(1, prompt);
  int num_equal = 0;
  for (int i = 0; i < sameness.num_new; ++i) {
    const TokenResult want = cpu.Step({&expected})[0], got = cuda.Step({&actual})[0];
    if (got.token == want.token) {
      ++num_equal;
      CHECK(std::abs(static_cast<double>(got.logprob) - want.logprob) < sameness.near_tie);
    } else {
      const double lead = LeadOver(want, got.token);
      std::printf("token %d: %d instead of %d, which leads by %.4f\n", i, got.token, want.token, lead);
      CHECK(lead < sameness.near_tie);
    }
    expected.tokens.push_back(want.token);
    actual.tokens.push_back(want.token);
  }
  CHECK(num_equal >= sameness.num_new / 2);
}

}  // namespace millrace::testing
