// SPDX-License-Identifier: Apache-2.0
#pragma once
// One HTTP request at a time through libcurl, without following redirects: whoever asks decides what goes along to
// another host. One thread. Internal to the hub client.
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"

namespace millrace {

enum class HubMethod { kGet, kHead };

struct HubHttpRequest {
  HubMethod method = HubMethod::kGet;
  std::string url;
  std::string token;          // empty: no Authorization header
  uint64_t resume_bytes = 0;  // > 0: Range from there on
};

struct HubHttpResponse {
  int code = 0;
  std::vector<std::pair<std::string, std::string>> headers;  // names in lower case
  std::string redirect_url;                                  // absolute; empty: none
  // Null: absent.
  const std::string* Header(std::string_view name) const;
};

// Receives the body piece by piece; an error ends the transfer. `head` has code and headers.
using HubBodySink = std::function<absl::Status(const HubHttpResponse& head, std::string_view piece)>;

class HubHttp {
 public:
  // `ca_file`: PEM file of the authorities to trust; empty: the system's.
  HubHttp(absl::Duration stall_timeout, std::string ca_file);
  ~HubHttp();
  HubHttp(const HubHttp&) = delete;
  HubHttp& operator=(const HubHttp&) = delete;

  // Any answer is OK, whatever its code. Unavailable: no connection, or it broke; trying again may help.
  // FailedPrecondition: the server's certificate is not trusted, or the file of authorities is bad. Else the sink's
  // error.
  absl::StatusOr<HubHttpResponse> Fetch(const HubHttpRequest& request, const HubBodySink& sink);

 private:
  struct Transfer;
  static size_t OnHeader(char* data, size_t unit, size_t count, void* transfer);
  static size_t OnBody(char* data, size_t unit, size_t count, void* transfer);

  void* const curl_;
  const absl::Duration stall_timeout_;
  const std::string ca_file_;
};

// Whether two URLs have the same scheme, host and port.
bool IsSameOrigin(const std::string& a, const std::string& b);
// "https", "http" or empty.
std::string UrlScheme(const std::string& url);
// Each byte that is not unreserved as %XX; '/' stays where `keeps_slash`.
enum class Slashes { kKept, kEscaped };
std::string UrlEscape(std::string_view text, Slashes slashes);

}  // namespace millrace
