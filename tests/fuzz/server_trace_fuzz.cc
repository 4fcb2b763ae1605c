// SPDX-License-Identifier: Apache-2.0
// A recorded trace of arrivals: in order, from 0 on, with lengths that can be asked for, or a fault that names the
// line.
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string_view>

#include "server/cli/load_trace.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t num_bytes) {
  using namespace millrace;
  constexpr int32_t kMaxRequests = 100;
  const auto trace = ParseTrace({reinterpret_cast<const char*>(data), num_bytes}, kMaxRequests, /*speed=*/1);
  if (!trace.ok()) return 0;
  if (trace->empty() || trace->size() > kMaxRequests || trace->front().seconds != 0) std::abort();
  double before = 0;
  for (const Arrival& arrival : *trace) {
    if (!std::isfinite(arrival.seconds) || arrival.seconds < before) std::abort();
    if (arrival.input_tokens < 1 || arrival.output_tokens < 1) std::abort();
    before = arrival.seconds;
  }
  return 0;
}
