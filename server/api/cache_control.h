// SPDX-License-Identifier: Apache-2.0
#pragma once
// The Cache-Control of requests (RFC 9111, section 5.2.1). Pure functions, hostile input welcome.
#include <string_view>

#include "server/pipeline/requests.h"

namespace millrace {

// Takes in one header: no-store, no-cache, max-age=N, only-if-cached. What it does not know it leaves alone; a max-age
// that is no number is 0, so that a fault never makes an answer older than was wanted.
void ApplyCacheControl(std::string_view header, CacheControl& control);

}  // namespace millrace
