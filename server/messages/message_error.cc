// SPDX-License-Identifier: Apache-2.0
#include "server/messages/message_error.h"

#include "server/wire/json_object.h"

namespace millrace {
namespace {

std::string_view TypeOf(const ApiError& error) {
  switch (error.http_status) {
    case 401:
      return "authentication_error";
    case 403:
      return "permission_error";
    case 404:
      return "not_found_error";
    case 413:
      return "request_too_large";
    case 429:
      return "rate_limit_error";
    case 503:
      return "overloaded_error";
    case 504:
      return "timeout_error";
    default:
      return error.http_status < 500 ? "invalid_request_error" : "api_error";
  }
}

}  // namespace

std::string MessageErrorJson(const ApiError& error, std::string_view request_id) {
  std::string details, inner, out;
  JsonObject(details).Text("error_code", error.code).End();
  // The words by which Anthropic's own clients know that they should shorten the conversation.
  const bool is_too_long = error.code == "context_length_exceeded";
  JsonObject(inner)
      .Text("type", TypeOf(error))
      .Text("message", is_too_long ? "prompt is too long: " + error.message : error.message)
      .Raw("details", details)
      .End();
  JsonObject(out).Text("type", "error").Raw("error", inner).Text("request_id", request_id).End();
  return out;
}

HttpResponse MessageErrorResponse(const ApiError& error, std::string_view request_id) {
  HttpResponse response = ErrorResponse(error);
  response.body = MessageErrorJson(error, request_id);
  return response;
}

}  // namespace millrace
