// SPDX-License-Identifier: Apache-2.0
#pragma once
// Who a request's key belongs to, what it may do and what it has left. Keys are kept as SHA-256 only. Thread-safe; the
// files can be read again while requests run.
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/clock.h"
#include "engine/engine.h"
#include "server/auth/budget.h"
#include "server/auth/key_file.h"

namespace millrace {

// What a route asks of a key. Without any keys everyone may do all but kAdmin.
enum class Access : uint8_t {
  kProbe,    // nothing, not even a key
  kAnyKey,   // a key, whatever its roles
  kInfer,    // the role infer
  kMetrics,  // the role metrics
  kAdmin,    // the role admin
};

struct Identity {
  Tenant tenant;
  std::string key_name;  // empty: no keys exist, or none is needed
  Roles roles;
  std::shared_ptr<const Quota> quota;  // null: no limits
};

// A key as its administrator sees it.
struct KeyInfo {
  std::string name, tenant;
  Roles roles;
  RateLimits limits, tenant_limits;
  absl::Time expires;
  RateState state;
};

class ApiKeys {
 public:
  explicit ApiKeys(Clock clock = absl::Now);  // no keys: everyone is the anonymous tenant
  ~ApiKeys();

  // A key given on the command line: of the anonymous tenant, with the roles infer and metrics.
  absl::Status AddKey(std::string_view key);
  // A file's keys (key_file.h). InvalidArgument names path and line; then nothing has changed.
  absl::Status AddFile(const std::string& path);
  absl::Status AddText(std::string_view text, std::string_view path_for_errors);
  // Reads every file again. What keys and tenants have spent stays, and so do requests that run with keys that are
  // gone. InvalidArgument: the old keys stay.
  absl::Status Reload();

  bool is_required() const { return num_keys() > 0; }
  size_t num_keys() const;
  std::vector<KeyInfo> List() const;  // as given; no secrets
  // From "Authorization: Bearer K" or a bare x-api-key value. Unauthenticated: no key, an unknown or an expired one;
  // PermissionDenied: it lacks the role.
  absl::StatusOr<Identity> Authorize(std::string_view authorization, std::string_view x_api_key, Access access) const;

 private:
  struct Table;
  struct Source {
    std::string path;  // empty: not of a file
    KeyFile file;
  };
  absl::Status Add(Source source);
  absl::StatusOr<std::shared_ptr<const Table>> Build(const std::vector<Source>& sources) const
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(change_mu_);
  std::shared_ptr<const Table> table() const;

  const Clock clock_;
  mutable absl::Mutex change_mu_;  // one change at a time; before mu_
  std::vector<Source> sources_ ABSL_GUARDED_BY(change_mu_);
  mutable absl::Mutex mu_;
  std::shared_ptr<const Table> table_ ABSL_GUARDED_BY(mu_);
};

// Separates tenants' prefix caches: derived from the name, 0 for the anonymous tenant.
uint64_t TenantSalt(std::string_view tenant_name);

}  // namespace millrace
