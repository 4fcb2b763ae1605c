// SPDX-License-Identifier: Apache-2.0
#pragma once
// `millrace bench throughput` and `latency`: the engine without a network. Main thread.
#include <cstdint>
#include <string>

#include "server/config/serve_options.h"

namespace millrace {

struct BenchOfflineOptions {
  int32_t num_prompts = 32;  // throughput: requests in all; latency: batch size
  int32_t input_tokens = 128;
  int32_t output_tokens = 64;
  int32_t num_runs = 5;  // latency: timed runs after one that warms up
  uint64_t seed = 0;
  std::string output_json;  // file for the results; empty: none
};

int RunBenchThroughput(const ServeOptions& serve, const BenchOfflineOptions& options);
int RunBenchLatency(const ServeOptions& serve, const BenchOfflineOptions& options);

}  // namespace millrace
