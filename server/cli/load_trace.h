// SPDX-License-Identifier: Apache-2.0
#pragma once
// When requests arrive and how long they are: drawn from a Poisson process or read from a recorded trace. Pure.
#include <cstdint>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"

namespace millrace {

struct Arrival {
  double seconds = 0;  // after the start
  int32_t input_tokens = 0;
  int32_t output_tokens = 0;
};

// Exponential gaps; an infinite rate: all at 0.
std::vector<Arrival> PoissonArrivals(int32_t num_requests, double rate, int32_t input_tokens, int32_t output_tokens,
                                     uint64_t seed);
// CSV with a header line, then time, input tokens, output tokens; the time in seconds or as "2023-11-16 18:17:03.97".
// At most `num_requests`, 0: all; the first arrives at 0; gaps are divided by `speed`. InvalidArgument names the line.
absl::StatusOr<std::vector<Arrival>> ParseTrace(std::string_view csv, int32_t num_requests, double speed);

}  // namespace millrace
