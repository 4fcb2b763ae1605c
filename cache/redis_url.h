// SPDX-License-Identifier: Apache-2.0
#pragma once
// Where a Redis server is. Pure function.
#include <string>
#include <string_view>

#include "absl/status/statusor.h"

namespace millrace {

struct RedisAddress {
  std::string host;
  int port = 6379;
  int database = 0;
  std::string user, password;  // empty: none
};

// redis://[[USER]:PASSWORD@]HOST[:PORT][/DATABASE], an IPv6 address in brackets, %XX in user and password.
// InvalidArgument says what is wrong, never the password.
absl::StatusOr<RedisAddress> ParseRedisUrl(std::string_view url);

}  // namespace millrace
