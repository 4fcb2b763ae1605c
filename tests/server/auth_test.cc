// SPDX-License-Identifier: Apache-2.0
#include <catch2/catch.hpp>
#include <filesystem>
#include <fstream>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "server/auth/api_keys.h"

namespace millrace {
namespace {

// Whose key it is, if it may infer; "-" where it is refused.
std::string TenantOf(const ApiKeys& keys, const std::string& key, Access access = Access::kAnyKey) {
  const auto identity = keys.Authorize("", key, access);
  return identity.ok() ? identity->tenant.name : "-";
}

std::string HexDigest(std::string_view key) {
  const Digest digest = Sha256(key);
  return absl::BytesToHexString(absl::string_view(reinterpret_cast<const char*>(digest.data()), digest.size()));
}

TEST_CASE("ApiKeys: without keys everyone is anonymous, and nobody an administrator", "[auth]") {
  const ApiKeys keys;
  CHECK_FALSE(keys.is_required());
  const auto identity = keys.Authorize("", "", Access::kInfer);
  REQUIRE(identity.ok());
  CHECK(identity->tenant.name.empty());
  CHECK(identity->tenant.salt == 0);
  CHECK(identity->quota == nullptr);
  CHECK(keys.Authorize("", "", Access::kMetrics).ok());
  CHECK(absl::IsPermissionDenied(keys.Authorize("", "", Access::kAdmin).status()));
}

TEST_CASE("ApiKeys: lines, digests, tenants and weights", "[auth]") {
  ApiKeys keys;
  REQUIRE(keys.AddText("# comment\n\nplain\nwith-tenant acme\nheavy acme-2 4 # note\n"
                       // SHA-256 of "abc"
                       "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad digest\n",
                       "keys")
              .ok());
  CHECK(keys.num_keys() == 4);
  CHECK(TenantOf(keys, "plain").empty());
  CHECK(TenantOf(keys, "with-tenant") == "acme");
  CHECK(TenantOf(keys, "abc") == "digest");
  CHECK(TenantOf(keys, "ab") == "-");
  const Tenant heavy = keys.Authorize("", "heavy", Access::kInfer)->tenant;
  CHECK(heavy.weight == 4);
  CHECK(heavy.salt != keys.Authorize("", "with-tenant", Access::kInfer)->tenant.salt);
  CHECK(keys.Authorize("Bearer plain", "", Access::kInfer).ok());
  CHECK(keys.Authorize("bearer  plain", "", Access::kInfer).ok());
  CHECK(absl::IsUnauthenticated(keys.Authorize("Basic plain", "", Access::kInfer).status()));
  CHECK(absl::IsUnauthenticated(keys.Authorize("Bearer ", "", Access::kInfer).status()));
  CHECK(absl::IsUnauthenticated(keys.Authorize("", "", Access::kAnyKey).status()));
}

TEST_CASE("ApiKeys: YAML, as a list or below keys", "[auth]") {
  ApiKeys keys;
  REQUIRE(keys.AddText("keys:\n  - {key: one, tenant: a, weight: 2}\n  - key: two\n", "k.yaml").ok());
  REQUIRE(keys.AddText("- key: three\n  tenant: c\n", "k.yaml").ok());
  CHECK(keys.Authorize("", "one", Access::kInfer)->tenant.weight == 2);
  CHECK(TenantOf(keys, "two").empty());
  CHECK(TenantOf(keys, "three") == "c");
}

TEST_CASE("ApiKeys: a key does what its roles say, and no more", "[auth]") {
  ApiKeys keys;
  REQUIRE(keys.AddKey("given").ok());
  REQUIRE(keys.AddText("keys:\n"
                       "- {key: plain}\n"
                       "- {key: scraper, name: prometheus, roles: metrics}\n"
                       "- {key: boss, roles: [admin]}\n"
                       "- {key: both, roles: [infer, admin]}\n",
                       "k")
              .ok());
  const auto roles = [&keys](const std::string& key) {
    std::string text;
    for (const Access access : {Access::kInfer, Access::kMetrics, Access::kAdmin, Access::kAnyKey}) {
      text += keys.Authorize("", key, access).ok() ? 'y' : 'n';
    }
    return text;
  };
  CHECK(roles("given") == "yyny");
  CHECK(roles("plain") == "ynny");
  CHECK(roles("scraper") == "nyny");
  CHECK(roles("boss") == "nnyy");
  CHECK(roles("both") == "ynyy");
  CHECK(roles("unknown") == "nnnn");
  const absl::Status status = keys.Authorize("", "scraper", Access::kInfer).status();
  CHECK(absl::IsPermissionDenied(status));
  CHECK(status.message() == "the key 'prometheus' lacks the role infer");
}

TEST_CASE("ApiKeys: a key expires at its time", "[auth]") {
  absl::Time now = absl::FromUnixSeconds(1'893'455'999);  // a second before 2030
  ApiKeys keys([&now] { return now; });
  REQUIRE(keys.AddText("- {key: day, name: night, expires: 2030-01-01}\n"
                       "- {key: second, expires: 2030-01-01T00:00:00+00:00}\n"
                       "- {key: zone, expires: \"2030-01-01T02:00:00+01:00\"}\n- key: forever\n",
                       "k")
              .ok());
  for (const char* key : {"day", "second", "zone", "forever"}) CHECK(TenantOf(keys, key).empty());
  now += absl::Seconds(1);
  CHECK(TenantOf(keys, "day") == "-");
  CHECK(TenantOf(keys, "second") == "-");
  CHECK(TenantOf(keys, "zone").empty());
  CHECK(TenantOf(keys, "forever").empty());
  const absl::Status status = keys.Authorize("", "day", Access::kInfer).status();
  CHECK(absl::IsUnauthenticated(status));
  CHECK(status.message() == "the key 'night' has expired");
}

TEST_CASE("ApiKeys: tenants give their keys a weight and limits together", "[auth]") {
  const absl::Time now = absl::FromUnixSeconds(1000);
  ApiKeys keys([now] { return now; });
  REQUIRE(keys.AddText("tenants:\n"
                       "- {name: acme, weight: 3, requests_per_minute: 3}\n"
                       "- {name: free}\n"
                       "keys:\n"
                       "- {key: a, tenant: acme, requests_per_minute: 2}\n"
                       "- {key: b, tenant: acme, weight: 5}\n"
                       "- {key: c, tenant: free}\n",
                       "k")
              .ok());
  const auto a = *keys.Authorize("", "a", Access::kInfer), b = *keys.Authorize("", "b", Access::kInfer);
  CHECK(a.tenant.weight == 3);
  CHECK(b.tenant.weight == 5);
  CHECK(keys.Authorize("", "c", Access::kInfer)->quota == nullptr);
  auto first = a.quota->Reserve(1), second = a.quota->Reserve(1);
  CHECK((first.ok() && second.ok()));
  CHECK(absl::IsResourceExhausted(a.quota->Reserve(1).status()));  // the key's two
  auto third = b.quota->Reserve(1);
  CHECK(third.ok());
  const absl::Status status = b.quota->Reserve(1).status();  // the tenant's three
  CHECK(std::string(status.message()).find("tenant 'acme' on requests per minute: limit 3") != std::string::npos);
}

TEST_CASE("ApiKeys: what was spent survives a new file, and a file at fault changes nothing", "[auth]") {
  const auto folder = std::filesystem::temp_directory_path() / absl::StrCat("millrace_keys_", getpid());
  std::filesystem::create_directories(folder);
  const std::string path = folder / "keys.yaml";
  const auto write = [&path](const std::string& text) { std::ofstream(path) << text; };
  const absl::Time now = absl::FromUnixSeconds(1000);
  ApiKeys keys([now] { return now; });
  REQUIRE(keys.AddKey("given").ok());
  write("- {key: old, tenant: a, requests_per_minute: 2}\n- key: gone\n");
  REQUIRE(keys.AddFile(path).ok());
  const auto before = *keys.Authorize("", "old", Access::kInfer);
  auto running = before.quota->Reserve(1);
  REQUIRE(running.ok());

  for (const char* fault : {"- {key: old\n", "", "- {key: old}\n- {key: old}\n", "- {key: given}\n"}) {
    write(fault);
    const absl::Status status = keys.Reload();
    CHECK(absl::IsInvalidArgument(status));
    CHECK(std::string(status.message()).find(path) != std::string::npos);
    CHECK(TenantOf(keys, "gone").empty());
  }

  write("- {key: old, tenant: a, requests_per_minute: 3}\n- {key: new, tenant: b}\n");
  REQUIRE(keys.Reload().ok());
  CHECK(TenantOf(keys, "gone") == "-");
  CHECK(TenantOf(keys, "new") == "b");
  CHECK(TenantOf(keys, "given").empty());
  const auto after = *keys.Authorize("", "old", Access::kInfer);
  CHECK(after.quota->state().requests.limit == 3);
  CHECK(after.quota->state().requests.remaining == 2);
  running = Lease();  // taken before the reload, given back behind it
  CHECK(after.quota->state().requests.remaining == 3);
  std::filesystem::remove_all(folder);
}

TEST_CASE("ApiKeys: the list names keys and tells no secret", "[auth]") {
  ApiKeys keys;
  REQUIRE(
      keys.AddText("- {key: planted-secret, name: ci, tenant: a, tokens_per_minute: 100}\n- key: other-secret\n", "k")
          .ok());
  const std::vector<KeyInfo> list = keys.List();
  REQUIRE(list.size() == 2);
  CHECK(list[0].name == "ci");
  CHECK(list[0].limits.tokens_per_minute == 100);
  CHECK(list[0].state.tokens.remaining == 100);
  CHECK(list[1].name == "key-" + HexDigest("other-secret").substr(0, 8));
}

TEST_CASE("ApiKeys: faults name path and line, and no key", "[auth]") {
  const auto fault = [](const std::string& text) {
    ApiKeys keys;
    return std::string(keys.AddText(text, "file").message());
  };
  const std::string digest(64, 'a');
  CHECK(fault("ok\nkey tenant weight\n").find("file:2:") == 0);
  CHECK(fault("ok\nkey tenant -1\n").find("file:2: weight") == 0);
  CHECK(fault("ok\nkey ten{ant\n").find("file:2: tenant") == 0);
  CHECK(fault("ok\nkey other\n").find("file:2: the tenant names anonymous and other") == 0);
  CHECK(fault("sha256:xyz\n").find("file:1: sha256") == 0);
  CHECK(fault("one\ntwo\none\n").find("file:3: this key is there already") == 0);
  CHECK(fault("- key: a\n- kee: b\n").find("file:2: unknown field 'kee'") == 0);
  CHECK(fault("- key: a\n- sk-4Abc: b\n") == "file:2: unknown field");
  CHECK(fault("- key: a\n  weight: [1]\n").find("file:2") == 0);
  CHECK(fault("- key: [\n").find("file:") == 0);
  CHECK(fault("- key: a\n  key: b\n") == "file:2: a field twice");
  CHECK(fault("- key: a\n  sha256: " + digest + "\n") == "file:2: one of key and sha256, once");
  CHECK(fault("- tenant: a\n") == "file:1: a key needs key or sha256");
  CHECK(fault("- key: a\n  roles: [infer, root]\n") == "file:2: roles are infer, metrics and admin");
  CHECK(fault("- key: a\n  roles: []\n") == "file:2: a key without a role is of no use");
  CHECK(fault("- key: a\n  expires: soon\n").find("file:2: expires is a day") == 0);
  CHECK(fault("- key: a\n  name: \"a b\"\n").find("file:2: key names have letters") == 0);
  CHECK(fault("- key: a\n  name: \"\"\n") == "file:2: name is empty");
  CHECK(fault("- {key: a, name: x}\n- {key: b, name: x}\n") == "file:2: another key has the name 'x'");
  for (const char* number : {"0", "-1", "1.5", "many", "99999999999999999999"}) {
    CHECK(fault(absl::StrCat("- key: a\n  tokens_per_minute: ", number, "\n")).find("file:2: ") == 0);
  }
  CHECK(fault("tenants:\n- {name: a}\n- {name: a}\nkeys:\n- key: k\n") == "file:3: this tenant is there already");
  CHECK(fault("tenants:\n- {weight: 1}\nkeys: []\n") == "file:2: a tenant needs a name");
  CHECK(fault("tenants:\n- {name: a, roles: infer}\nkeys: []\n") == "file:2: unknown field 'roles'");
  CHECK(fault("tenants: {}\nkeys: []\n") == "file: tenants: expected a list");
  CHECK(fault("tenants:\n- {name: a}\nkeys:\n- {key: k, tenant: b}\n") == "file:4: tenants does not list 'b'");
  CHECK(fault("keys:\n- key: k\nteams: []\n") == "file:3: unknown field 'teams'");
  ApiKeys keys;
  CHECK(keys.AddFile("/nonexistent/keys").code() == absl::StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace millrace
