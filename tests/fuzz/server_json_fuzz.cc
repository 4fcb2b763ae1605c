// SPDX-License-Identifier: Apache-2.0
// Requests as clients send them: JSON to typed requests, by each of the parsers. The first byte chooses.
#include <cstddef>
#include <cstdint>
#include <string_view>

#include "server/api/parse_requests.h"
#include "server/wire/api_error.h"

namespace {

// Whatever the fault, it must be told in a valid error.
template <typename T>
void Check(const absl::StatusOr<T>& parsed) {
  if (!parsed.ok()) (void)millrace::ErrorResponse(parsed.status());
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t num_bytes) {
  if (num_bytes == 0) return 0;
  const std::string_view body(reinterpret_cast<const char*>(data) + 1, num_bytes - 1);
  switch (data[0]) {
    case 'c':
      Check(millrace::ParseCompletion(body));
      break;
    case 'e':
      Check(millrace::ParseEmbedding(body));
      break;
    case 't':
      Check(millrace::ParseTokenize(body));
      break;
    case 'd':
      Check(millrace::ParseDetokenize(body));
      break;
    default:
      Check(millrace::ParseChat(body));
      break;
  }
  return 0;
}
