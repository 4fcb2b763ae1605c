// SPDX-License-Identifier: Apache-2.0
#include "cache/redis_url.h"

#include <catch2/catch.hpp>
#include <string>

namespace millrace {
namespace {

TEST_CASE("RedisUrl: host, port, database, user and password", "[cache]") {
  const RedisAddress plain = ParseRedisUrl("redis://cache").value();
  CHECK(plain.host == "cache");
  CHECK(plain.port == 6379);
  CHECK(plain.database == 0);
  CHECK(plain.password.empty());

  const RedisAddress full = ParseRedisUrl("redis://me:p%40ss:w/ord@10.0.0.1:7000/3").value();
  CHECK(full.host == "10.0.0.1");
  CHECK(full.port == 7000);
  CHECK(full.database == 3);
  CHECK(full.user == "me");
  CHECK(full.password == "p@ss:w/ord");

  CHECK(ParseRedisUrl("redis://:secret@host/").value().password == "secret");
  CHECK(ParseRedisUrl("redis://[::1]:7000").value().host == "::1");
  CHECK(ParseRedisUrl("redis://[::1]").value().port == 6379);
}

TEST_CASE("RedisUrl: what is no URL is refused, and no password is told", "[cache]") {
  for (const char* url :
       {"", "cache", "http://cache", "rediss://cache", "redis://", "redis://:6379", "redis://h:0", "redis://h:65536",
        "redis://h:+1", "redis://h:", "redis://h/x", "redis://h/-1", "redis://[::1", "redis://[::1]x",
        "redis://secret@h", "redis://:secret%4@h", "redis://:secret@h:x"}) {
    CAPTURE(url);
    const auto address = ParseRedisUrl(url);
    CHECK(absl::IsInvalidArgument(address.status()));
    CHECK(std::string(address.status().message()).find("secret") == std::string::npos);
  }
}

}  // namespace
}  // namespace millrace
