// SPDX-License-Identifier: Apache-2.0
// A stored value as a foreign store may return it: under its seal, and past it.
#include <cstdint>
#include <cstdlib>
#include <string_view>

#include "cache/sealed_value.h"
#include "server/caching/stored_answer.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t num_bytes) {
  using namespace millrace;
  if (num_bytes == 0) return 0;
  const std::string_view bytes(reinterpret_cast<const char*>(data) + 1, num_bytes - 1);
  const CacheKey key{.tenant = "t", .model = "m"};
  const int32_t num_choices = data[0] % 8;
  if (const auto opened = OpenValue(key, bytes)) DecodeAnswer(opened->payload, num_choices);
  const auto deltas = DecodeAnswer(bytes, num_choices);
  if (!deltas) return 0;
  // What is accepted is written again as an answer that is accepted, and sealing changes nothing.
  const std::string again = EncodeAnswer(*deltas);
  const std::string sealed = SealValue(key, absl::FromUnixSeconds(1), again);
  const auto opened = OpenValue(key, sealed);
  if (!opened || opened->payload != again || !DecodeAnswer(opened->payload, num_choices)) std::abort();
  return 0;
}
