// SPDX-License-Identifier: Apache-2.0
#pragma once
// The file that names keys and tenants, read into plain data. Pure functions; no key is ever part of a message.
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "cache/cache_key.h"
#include "server/auth/rate_limits.h"

namespace millrace {

// What a key may be used for.
struct Roles {
  bool infer = true;
  bool metrics = false;
  bool admin = false;
};

struct KeyEntry {
  Digest digest{};
  std::string name;  // for logs and lists; "key-" and the digest's first 8 hex digits unless given
  std::string tenant;
  std::optional<double> weight;  // without: the tenant's
  Roles roles;
  RateLimits limits;
  absl::Time expires = absl::InfiniteFuture();
  std::string where;  // "path:line", for messages
};

struct TenantEntry {
  std::string name;
  double weight = 1.0;
  RateLimits limits;  // of all its keys together
};

struct KeyFile {
  std::vector<TenantEntry> tenants;
  std::vector<KeyEntry> keys;
};

// YAML: a list of keys, or maps `tenants:` and `keys:` of them (docs/keys.md); or plain lines "KEY [TENANT [WEIGHT]]",
// where KEY may be "sha256:HEX" and # starts a comment. InvalidArgument names path and line.
absl::StatusOr<KeyFile> ParseKeyFile(std::string_view text, std::string_view path);
// Likewise, and refuses a file without a key: an empty one must not open the server to everyone.
absl::StatusOr<KeyFile> ReadKeyFile(const std::string& path);

// Fills digest and name from a key, or from "sha256:HEX".
absl::Status SetKey(std::string_view key_or_digest, KeyEntry& entry);

}  // namespace millrace
