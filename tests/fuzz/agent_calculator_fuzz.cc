// SPDX-License-Identifier: Apache-2.0
// Any text as an expression: a value or a fault, and a value in brackets is the same value.
#include <cstdint>
#include <string>
#include <string_view>

#include "agent/tools/calculator.h"
#include "kernels/check.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t num_bytes) {
  const std::string_view text(reinterpret_cast<const char*>(data), num_bytes);
  const auto value = millrace::Calculate(text);
  if (!value.ok()) return 0;
  MILLRACE_CHECK(!value->empty(), "a value without digits");
  const auto again = millrace::Calculate("(" + std::string(text) + ")");
  MILLRACE_CHECK(!again.ok() || *again == *value, "brackets change the value");
  return 0;
}
