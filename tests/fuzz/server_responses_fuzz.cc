// SPDX-License-Identifier: Apache-2.0
// Requests of /v1/responses, and what was stored of earlier ones. The bytes are the body; a history stands beside it.
#include <cstddef>
#include <cstdint>
#include <string_view>

#include "server/responses/responses_request.h"
#include "server/wire/api_error.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t num_bytes) {
  const std::string_view body(reinterpret_cast<const char*>(data), num_bytes);
  // The body's own text is what an earlier response said: stored items are not trusted either.
  const millrace::ItemSource source{
      .history = [body](const std::string&) -> absl::StatusOr<std::vector<std::string>> {
        return std::vector<std::string>{std::string(body)};
      },
      .item = [body](const std::string&) -> absl::StatusOr<std::string> { return std::string(body); }};
  for (const millrace::ItemSource& one : {millrace::ItemSource{}, source}) {
    const auto request = millrace::ParseResponses(body, one);
    if (!request.ok()) (void)millrace::ErrorResponse(request.status());
  }
  return 0;
}
