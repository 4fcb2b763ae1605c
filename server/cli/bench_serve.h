// SPDX-License-Identifier: Apache-2.0
#pragma once
// `millrace bench serve`: an open-loop load generator against a server of OpenAI's API. Requests start when their time
// has come, whether or not earlier ones are answered; latencies count from that time. Main thread.
#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "server/cli/load_trace.h"

namespace millrace {

inline constexpr int32_t kDefaultLoadRequests = 100;

struct BenchServeOptions {
  std::string url = "http://127.0.0.1:8000";
  std::string api_key;
  std::string model;                     // empty: the server's first
  std::string endpoint = "completions";  // or "chat"
  int32_t num_prompts = 0;               // at most; 0: all of a trace, else kDefaultLoadRequests
  double request_rate = 4;               // Poisson arrivals per second; infinity: all at once
  std::string trace;       // CSV: arrival seconds (or a timestamp), input tokens, output tokens; overrides rate
  double trace_speed = 1;  // 2: twice as fast as it was recorded
  int32_t input_tokens = 128;
  int32_t output_tokens = 64;
  int32_t max_concurrency = 4096;  // open connections; more than this wait, and their waiting counts
  uint64_t seed = 0;
  std::string output_json;  // results; empty: none
  std::string output_svg;   // plot; empty: none
};

// The requests that the options ask for. NotFound, InvalidArgument: the trace cannot be read.
absl::StatusOr<std::vector<Arrival>> MakeArrivals(const BenchServeOptions& options);
int RunBenchServe(const BenchServeOptions& options);

}  // namespace millrace
