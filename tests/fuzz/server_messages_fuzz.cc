// SPDX-License-Identifier: Apache-2.0
// Requests of /v1/messages, to be answered and to be counted.
#include <cstddef>
#include <cstdint>
#include <string_view>

#include "server/messages/message_error.h"
#include "server/messages/messages_request.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t num_bytes) {
  const std::string_view body(reinterpret_cast<const char*>(data), num_bytes);
  for (const auto purpose : {millrace::MessagesPurpose::kAnswer, millrace::MessagesPurpose::kCount}) {
    const auto request = millrace::ParseMessages(body, purpose);
    if (!request.ok()) (void)millrace::MessageErrorResponse(millrace::ToApiError(request.status()), "id");
  }
  return 0;
}
