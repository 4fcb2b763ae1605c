// SPDX-License-Identifier: Apache-2.0
#pragma once
// Who a request's key belongs to. Keys are kept as SHA-256 only and compared in constant time. Constant after
// construction; any thread.
#include <array>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "engine/engine.h"

namespace millrace {

using KeyDigest = std::array<unsigned char, 32>;

class ApiKeys {
 public:
  ApiKeys() = default;  // no keys: everyone is the anonymous tenant

  // A key given on the command line, of the anonymous tenant.
  absl::Status AddKey(std::string_view key);
  // Adds a file's keys. YAML: a list (also below a top-level `keys:`) of maps {key: K or sha256: HEX, tenant: NAME,
  // weight: W}; or plain lines "K [tenant [weight]]", where K may be "sha256:HEX" and # starts a comment.
  // InvalidArgument names path and line.
  absl::Status AddFile(const std::string& path);
  absl::Status AddText(std::string_view text, std::string_view path_for_errors);

  bool is_required() const { return !entries_.empty(); }
  size_t num_keys() const { return entries_.size(); }
  // The tenant whose key this is. Looks at every key, whatever the result, so that time tells nothing.
  std::optional<Tenant> Find(std::string_view key) const;
  // From "Authorization: Bearer K" (or a bare x-api-key value). Unauthenticated without or with an unknown key;
  // the anonymous tenant when no keys exist.
  absl::StatusOr<Tenant> Authenticate(std::string_view authorization, std::string_view x_api_key) const;

 private:
  struct Entry {
    KeyDigest digest;
    Tenant tenant;
  };
  absl::Status Add(std::string_view key_or_digest, std::string_view tenant, double weight, std::string_view where);
  absl::Status AddLines(std::string_view text, std::string_view path);
  absl::Status AddYaml(std::string_view text, std::string_view path);

  std::vector<Entry> entries_;
};

// Separates tenants' prefix caches: derived from the name, 0 for the anonymous tenant.
uint64_t TenantSalt(std::string_view tenant_name);

}  // namespace millrace
