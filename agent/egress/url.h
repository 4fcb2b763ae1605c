// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"

namespace millrace {

// A web address in the one spelling that leaves nothing to interpretation.
struct WebUrl {
  bool is_https = false;
  std::string host;  // lower case; an IPv6 address without its brackets
  uint16_t port = 0;
  std::string target;  // path and query, beginning with '/'
};

// InvalidArgument for all that two readers could understand differently: another scheme, a user name, a host that is
// neither a plain name (letters, digits, '-', '.') nor an address in its usual form, numbers that only some take for an
// address (octal, hexadecimal, shortened), spaces, control characters, backslashes, bytes beyond ASCII.
absl::StatusOr<WebUrl> ParseWebUrl(std::string_view url);

// The URL that a redirect's Location means, seen from `base`; the same refusals.
absl::StatusOr<WebUrl> ResolveLocation(const WebUrl& base, std::string_view location);

std::string ToString(const WebUrl& url);

}  // namespace millrace
