// SPDX-License-Identifier: Apache-2.0
#pragma once
// OpenAI's x-ratelimit-* headers: what a limited key has left, on every answer to it.
#include <memory>
#include <vector>

#include "server/auth/budget.h"
#include "server/http/http_server.h"

namespace millrace {

// limit, remaining and reset of requests and of tokens, where there is a limit.
void AddRateHeaders(const RateState& state, std::vector<HttpHeader>& headers);
// A writer that adds them, as they stand when the answer begins. `quota` null: `writer` itself.
std::shared_ptr<ResponseWriter> WithRateHeaders(std::shared_ptr<ResponseWriter> writer,
                                                std::shared_ptr<const Quota> quota);

}  // namespace millrace
