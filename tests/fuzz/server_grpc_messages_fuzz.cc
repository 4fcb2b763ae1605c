// SPDX-License-Identifier: Apache-2.0
// Bytes as each of millrace.v1's requests, through the conversion to typed ones (tools and template variables are
// JSON).
#include <cstddef>
#include <cstdint>

#include "server/grpc/inference_messages.h"

namespace {

template <typename Message>
void Try(const uint8_t* data, size_t num_bytes) {
  Message message;
  if (message.ParseFromArray(data, static_cast<int>(num_bytes))) (void)millrace::FromMessage(message);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t num_bytes) {
  Try<millrace::v1::GenerateRequest>(data, num_bytes);
  Try<millrace::v1::ChatRequest>(data, num_bytes);
  Try<millrace::v1::EmbedRequest>(data, num_bytes);
  Try<millrace::v1::TokenizeRequest>(data, num_bytes);
  return 0;
}
