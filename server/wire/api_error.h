// SPDX-License-Identifier: Apache-2.0
#pragma once
// Errors as clients see them: OpenAI's {error: {message, type, param, code}} and its HTTP status, made from a Status.
// The table from codes to statuses is in error_map.cc and nowhere else; gRPC uses the Status itself.
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "server/http/http_message.h"

namespace millrace {

// OpenAI's codes for a request at fault.
inline constexpr char kInvalidType[] = "invalid_type";
inline constexpr char kInvalidValue[] = "invalid_value";
inline constexpr char kMissingParameter[] = "missing_required_parameter";
inline constexpr char kUnsupportedParameter[] = "unsupported_parameter";
inline constexpr char kUnsupportedValue[] = "unsupported_value";

struct ApiError {
  int http_status = 500;
  std::string message;
  std::string type;                               // "invalid_request_error", ...
  std::string param;                              // empty: null
  std::string code;                               // never empty in an answer
  absl::Duration retry_after = absl::Seconds(1);  // for 429
};

// InvalidArgument that names the request's field and OpenAI's code for the fault.
absl::Status ParamError(std::string_view param, std::string_view message, std::string_view code = kInvalidValue);
// Adds OpenAI's code to any status.
absl::Status WithErrorCode(absl::Status status, std::string_view code);
absl::Status WithErrorParam(absl::Status status, std::string_view param);
std::string ErrorParam(const absl::Status& status);  // "" without one

// ResourceExhausted: a key's or tenant's limit, by its name in the metrics, and when to come back.
absl::Status LimitError(std::string_view message, std::string_view limit, absl::Duration retry_after);
// When to come back after ResourceExhausted: what LimitError said, else a second.
absl::Duration RetryAfter(const absl::Status& status);
// Why a request will not run, as a metric's label: the limit's name, "queue_full", "unavailable"; "" for other faults.
std::string RejectionReason(const absl::Status& status);

ApiError ToApiError(const absl::Status& status);
std::string ErrorJson(const ApiError& error);
// The whole response, with Retry-After where coming back helps.
HttpResponse ErrorResponse(const absl::Status& status);
HttpResponse ErrorResponse(const ApiError& error);

}  // namespace millrace
