// SPDX-License-Identifier: Apache-2.0
#pragma once
// What travels between the HTTP transport and the API: a whole request, a whole response. Plain data, any thread.
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/time/time.h"

namespace millrace {

struct HttpHeader {
  std::string name;  // as sent; compared without case
  std::string value;
};

struct HttpRequest {
  std::string id;      // the client's x-request-id when it is acceptable, else ours
  std::string method;  // "GET"; upper case as sent
  std::string path;    // percent-decoded, without the query
  std::string query;   // raw, without '?'
  std::vector<HttpHeader> headers;
  std::string body;
  std::string remote;  // "address:port"
  absl::Time received;
  std::shared_ptr<const void> body_charge;  // the transport's account of the body; kept as long as the body is

  // The first header of that name (any case), or "".
  std::string_view Header(std::string_view name) const;
};

struct HttpResponse {
  int status = 200;
  std::string content_type = "application/json";
  std::vector<HttpHeader> headers;  // further ones; the transport adds length, date and request id
  std::string body;
};

// "Not Found" for 404; "Unknown" for codes we never send.
std::string_view HttpReason(int status);
// Resolves %XX; a malformed escape stays as it is.
std::string PercentDecode(std::string_view text);
// Letters, digits and "._:-", 1 to 128 of them: safe in headers, logs and file names.
bool IsValidRequestId(std::string_view id);
// 32 random hexadecimal digits.
std::string RandomId();

}  // namespace millrace
