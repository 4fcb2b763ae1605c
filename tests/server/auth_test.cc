// SPDX-License-Identifier: Apache-2.0
#include <catch2/catch.hpp>

#include "server/auth/api_keys.h"

namespace millrace {
namespace {

TEST_CASE("ApiKeys: without keys everyone is anonymous", "[auth]") {
  const ApiKeys keys;
  CHECK_FALSE(keys.is_required());
  const auto tenant = keys.Authenticate("", "");
  REQUIRE(tenant.ok());
  CHECK(tenant->name.empty());
  CHECK(tenant->salt == 0);
}

TEST_CASE("ApiKeys: lines, digests, tenants and weights", "[auth]") {
  ApiKeys keys;
  REQUIRE(keys.AddText("# comment\n\nplain\nwith-tenant acme\nheavy acme-2 4 # note\n"
                       // SHA-256 of "abc"
                       "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad digest\n",
                       "keys")
              .ok());
  CHECK(keys.num_keys() == 4);
  CHECK(keys.Find("plain")->name.empty());
  CHECK(keys.Find("with-tenant")->name == "acme");
  CHECK(keys.Find("heavy")->weight == 4);
  CHECK(keys.Find("abc")->name == "digest");
  CHECK_FALSE(keys.Find("ab").has_value());
  CHECK_FALSE(keys.Find("").has_value());
  CHECK(keys.Find("heavy")->salt != keys.Find("with-tenant")->salt);
  CHECK(keys.Authenticate("Bearer plain", "").ok());
  CHECK(keys.Authenticate("bearer  plain", "").ok());
  CHECK(keys.Authenticate("", "plain").ok());
  CHECK(keys.Authenticate("Basic plain", "").status().code() == absl::StatusCode::kUnauthenticated);
  CHECK(keys.Authenticate("Bearer ", "").status().code() == absl::StatusCode::kUnauthenticated);
}

TEST_CASE("ApiKeys: YAML, as a list or below keys", "[auth]") {
  ApiKeys keys;
  REQUIRE(keys.AddText("keys:\n  - {key: one, tenant: a, weight: 2}\n  - key: two\n", "k.yaml").ok());
  REQUIRE(keys.AddText("- key: three\n  tenant: c\n", "k.yaml").ok());
  CHECK(keys.Find("one")->weight == 2);
  CHECK(keys.Find("two")->name.empty());
  CHECK(keys.Find("three")->name == "c");
}

TEST_CASE("ApiKeys: faults name path and line", "[auth]") {
  const auto fault = [](const char* text) {
    ApiKeys keys;
    return std::string(keys.AddText(text, "file").message());
  };
  CHECK(fault("ok\nkey tenant weight\n").find("file:2:") == 0);
  CHECK(fault("ok\nkey tenant -1\n").find("file:2: weight") == 0);
  CHECK(fault("ok\nkey ten{ant\n").find("file:2: tenant") == 0);
  CHECK(fault("sha256:xyz\n").find("file:1: sha256") == 0);
  CHECK(fault("- key: a\n- kee: b\n").find("file:2: unknown field 'kee'") == 0);
  CHECK(fault("- key: a\n  weight: [1]\n").find("file:2") == 0);
  CHECK(fault("- key: [\n").find("file:") == 0);
  ApiKeys keys;
  CHECK(keys.AddFile("/nonexistent/keys").code() == absl::StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace millrace
