// SPDX-License-Identifier: Apache-2.0
#pragma once
// What a key, or all keys of a tenant together, may use. Plain data.
#include <cstdint>

namespace millrace {

struct RateLimits {
  int64_t requests_per_minute = 0;  // 0: no limit; so the next
  int64_t tokens_per_minute = 0;    // prompt and output
  int64_t concurrent_requests = 0;
  friend bool operator==(const RateLimits&, const RateLimits&) = default;
};

}  // namespace millrace
