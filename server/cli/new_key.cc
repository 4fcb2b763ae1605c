// SPDX-License-Identifier: Apache-2.0
#include "server/cli/new_key.h"

#include <openssl/rand.h>

#include <cstdio>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "server/auth/key_file.h"

namespace millrace {
namespace {

constexpr char kKeyPrefix[] = "mr-";  // lets scanners of leaked secrets know one

}  // namespace

absl::StatusOr<NewKey> MakeNewKey(const NewKeyOptions& options) {
  unsigned char bytes[32];
  if (RAND_bytes(bytes, sizeof(bytes)) != 1) return absl::UnavailableError("the system has no random numbers");
  NewKey made;
  made.key = kKeyPrefix + absl::WebSafeBase64Escape(absl::string_view(reinterpret_cast<char*>(bytes), sizeof(bytes)));
  const Digest digest = Sha256(made.key);
  std::vector<std::string> fields;
  const auto add = [&fields](const char* name, const std::string& value) {
    if (!value.empty()) fields.push_back(absl::StrCat(name, ": \"", absl::CHexEscape(value), "\""));
  };
  add("name", options.name);
  add("tenant", options.tenant);
  add("expires", options.expires);
  if (!options.roles.empty()) fields.push_back(absl::StrCat("roles: [", absl::StrJoin(options.roles, ", "), "]"));
  const absl::string_view digest_bytes(reinterpret_cast<const char*>(digest.data()), digest.size());
  fields.push_back(absl::StrCat("sha256: ", absl::BytesToHexString(digest_bytes)));
  made.entry = absl::StrCat("- {", absl::StrJoin(fields, ", "), "}");
  if (auto file = ParseKeyFile(made.entry, "the new entry"); !file.ok()) return file.status();
  return made;
}

int RunNewKey(const NewKeyOptions& options) {
  auto made = MakeNewKey(options);
  if (!made.ok()) {
    std::fprintf(stderr, "millrace: %s\n", std::string(made.status().message()).c_str());
    return 2;
  }
  std::printf("%s\n", made->entry.c_str());
  std::fprintf(stderr, "The key, which is shown only now: %s\n", made->key.c_str());
  return 0;
}

}  // namespace millrace
