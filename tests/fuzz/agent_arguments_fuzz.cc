// SPDX-License-Identifier: Apache-2.0
// The first line is a tool's schema (which a tool server may have sent), the rest the arguments a model wrote.
#include <cstdint>
#include <string_view>

#include "agent/argument_check.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t num_bytes) {
  const std::string_view text(reinterpret_cast<const char*>(data), num_bytes);
  const size_t line = text.find('\n');
  if (line == text.npos) return 0;
  (void)millrace::CheckArguments(text.substr(0, line), text.substr(line + 1));
  return 0;
}
