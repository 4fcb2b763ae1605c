// SPDX-License-Identifier: Apache-2.0
#include "cache/cache_key.h"

#include <catch2/catch.hpp>
#include <set>
#include <string>
#include <vector>

#include "cache/sealed_value.h"

namespace millrace {
namespace {

template <typename... Fields>
Digest Hash(const Fields&... fields) {
  KeyHasher hasher("test");
  (hasher.Add(fields), ...);
  return hasher.Finish();
}

TEST_CASE("KeyHasher: no two lists of fields are the same bytes", "[cache]") {
  using Numbers = std::vector<int32_t>;
  KeyHasher empty_list("test"), other_purpose("other");
  empty_list.AddCount(0);
  const std::vector<Digest> digests = {
      Hash(),
      other_purpose.Finish(),
      Hash(""),
      Hash("", ""),
      Hash("ab", "c"),
      Hash("a", "bc"),
      Hash("abc"),
      Hash(0),
      Hash(1),
      Hash(0.0),
      Hash(1.0),
      Hash(0.5f),
      Hash(Numbers{}),
      Hash(Numbers{0}),
      Hash(Numbers{1, 2}, Numbers{3}),
      Hash(Numbers{1}, Numbers{2, 3}),
      Hash(Numbers{-1}),
      Hash(std::optional<int32_t>()),
      Hash(std::optional<int32_t>(0)),
      Hash(std::optional<std::string>("")),
      Hash(std::string("\0", 1)),
      Hash(std::string("\0\0", 2)),
      empty_list.Finish(),
  };
  CHECK(std::set<Digest>(digests.begin(), digests.end()).size() == digests.size());
  CHECK(Hash(-0.0) == Hash(0.0));
  CHECK(Hash("a", 1, 0.25) == Hash("a", 1, 0.25));
}

TEST_CASE("Sha256: is SHA-256", "[cache]") {
  const Digest digest = Sha256("abc");
  CHECK(std::vector<int>(digest.begin(), digest.begin() + 4) == std::vector<int>{0xba, 0x78, 0x16, 0xbf});
}

TEST_CASE("SealedValue: opens under its key, and nothing else does", "[cache]") {
  const CacheKey key{.tenant = "t", .model = "m", .digest = Sha256("a")};
  const absl::Time stored = absl::FromUnixMillis(1'700'000'000'123);
  const std::string sealed = SealValue(key, stored, "payload");
  const auto opened = OpenValue(key, sealed);
  REQUIRE(opened);
  CHECK(opened->payload == "payload");
  CHECK(opened->stored == stored);

  CHECK_FALSE(OpenValue({.tenant = "t", .model = "m", .digest = Sha256("b")}, sealed));
  CHECK_FALSE(OpenValue(key, sealed + "x"));
  for (size_t i = 0; i < sealed.size(); ++i) {
    CHECK_FALSE(OpenValue(key, sealed.substr(0, i)));
    std::string changed = sealed;
    changed[i] = static_cast<char>(changed[i] ^ 1);
    CHECK_FALSE(OpenValue(key, changed));
  }
}

}  // namespace
}  // namespace millrace
