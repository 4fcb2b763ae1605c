// SPDX-License-Identifier: Apache-2.0
#pragma once
// Errors in Anthropic's shape: {type: "error", error: {type, message}, request_id}. Pure functions.
#include <string>
#include <string_view>

#include "server/http/http_message.h"
#include "server/wire/api_error.h"

namespace millrace {

std::string MessageErrorJson(const ApiError& error, std::string_view request_id);
HttpResponse MessageErrorResponse(const ApiError& error, std::string_view request_id);

}  // namespace millrace
