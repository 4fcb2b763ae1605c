// SPDX-License-Identifier: Apache-2.0
#include <algorithm>

#include "absl/strings/cord.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "server/wire/api_error.h"
#include "server/wire/json_writer.h"

namespace millrace {
namespace {

constexpr char kParamUrl[] = "millrace/param";
constexpr char kCodeUrl[] = "millrace/code";
constexpr char kLimitUrl[] = "millrace/limit";
constexpr char kRetryUrl[] = "millrace/retry-ms";

absl::Status WithPayload(absl::Status status, const char* url, std::string_view text) {
  if (!text.empty()) status.SetPayload(url, absl::Cord(absl::string_view(text.data(), text.size())));
  return status;
}

std::string Payload(const absl::Status& status, const char* url) {
  const auto payload = status.GetPayload(url);
  return payload ? std::string(*payload) : std::string();
}

struct Mapping {
  int http_status;
  const char* type;
  const char* code;
};

Mapping MapCode(absl::StatusCode code) {
  switch (code) {
    case absl::StatusCode::kInvalidArgument:
    case absl::StatusCode::kOutOfRange:
      return {400, "invalid_request_error", kInvalidValue};
    case absl::StatusCode::kUnauthenticated:
      return {401, "invalid_request_error", "invalid_api_key"};
    case absl::StatusCode::kPermissionDenied:
      return {403, "invalid_request_error", "permission_denied"};
    case absl::StatusCode::kNotFound:
      return {404, "invalid_request_error", "not_found"};
    case absl::StatusCode::kResourceExhausted:
      return {429, "rate_limit_error", "rate_limit_exceeded"};
    case absl::StatusCode::kCancelled:
      return {499, "server_error", "cancelled"};
    case absl::StatusCode::kUnavailable:
      return {503, "service_unavailable", "unavailable"};
    case absl::StatusCode::kDeadlineExceeded:
      return {504, "server_error", "deadline_exceeded"};
    case absl::StatusCode::kUnimplemented:
      return {501, "server_error", "not_implemented"};
    default:
      return {500, "server_error", "internal_error"};
  }
}

}  // namespace

absl::Status ParamError(std::string_view param, std::string_view message, std::string_view code) {
  absl::Status status = absl::InvalidArgumentError(absl::string_view(message.data(), message.size()));
  return WithPayload(WithPayload(std::move(status), kParamUrl, param), kCodeUrl, code);
}

absl::Status WithErrorCode(absl::Status status, std::string_view code) {
  return WithPayload(std::move(status), kCodeUrl, code);
}

absl::Status WithErrorParam(absl::Status status, std::string_view param) {
  return WithPayload(std::move(status), kParamUrl, param);
}

std::string ErrorParam(const absl::Status& status) { return Payload(status, kParamUrl); }

absl::Status LimitError(std::string_view message, std::string_view limit, absl::Duration retry_after) {
  absl::Status status = absl::ResourceExhaustedError(absl::string_view(message.data(), message.size()));
  const int64_t num_ms = absl::ToInt64Milliseconds(absl::Ceil(retry_after, absl::Milliseconds(1)));
  return WithPayload(WithPayload(std::move(status), kLimitUrl, limit), kRetryUrl, absl::StrCat(num_ms));
}

absl::Duration RetryAfter(const absl::Status& status) {
  int64_t num_ms = 0;
  return absl::SimpleAtoi(Payload(status, kRetryUrl), &num_ms) ? absl::Milliseconds(num_ms) : absl::Seconds(1);
}

std::string RejectionReason(const absl::Status& status) {
  if (absl::IsUnavailable(status)) return "unavailable";
  if (!absl::IsResourceExhausted(status)) return "";
  std::string limit = Payload(status, kLimitUrl);
  return limit.empty() ? "queue_full" : limit;
}

ApiError ToApiError(const absl::Status& status) {
  const Mapping mapping = MapCode(status.code());
  ApiError error{.http_status = mapping.http_status,
                 .message = std::string(status.message()),
                 .type = mapping.type,
                 .param = Payload(status, kParamUrl),
                 .code = Payload(status, kCodeUrl)};
  if (error.code.empty()) error.code = mapping.code;
  if (error.http_status == 429) error.retry_after = RetryAfter(status);
  return error;
}

std::string ErrorJson(const ApiError& error) {
  std::string out = R"({"error":{"message":)";
  AppendJsonString(error.message, out);
  out += R"(,"type":)";
  AppendJsonString(error.type, out);
  out += R"(,"param":)";
  AppendJsonStringOrNull(error.param, out);
  out += R"(,"code":)";
  AppendJsonString(error.code, out);
  out += "}}";
  return out;
}

HttpResponse ErrorResponse(const ApiError& error) {
  HttpResponse response{.status = error.http_status, .body = ErrorJson(error)};
  if (error.http_status == 429) {
    // Whole seconds, so rounded up: who comes earlier is refused again.
    const int64_t num_seconds = absl::ToInt64Seconds(absl::Ceil(error.retry_after, absl::Seconds(1)));
    response.headers.push_back({"retry-after", absl::StrCat(std::max<int64_t>(1, num_seconds))});
  }
  if (error.http_status == 503) response.headers.push_back({"retry-after", "5"});
  if (error.http_status == 401) response.headers.push_back({"www-authenticate", "Bearer"});
  return response;
}

HttpResponse ErrorResponse(const absl::Status& status) { return ErrorResponse(ToApiError(status)); }

}  // namespace millrace
