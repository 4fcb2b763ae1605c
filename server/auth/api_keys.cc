// SPDX-License-Identifier: Apache-2.0
#include "server/auth/api_keys.h"

#include <cstring>
#include <utility>

#include "absl/container/flat_hash_map.h"
#include "absl/container/flat_hash_set.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "server/wire/api_error.h"

namespace millrace {
namespace {

absl::string_view Absl(std::string_view text) { return {text.data(), text.size()}; }

struct TenantAccount {
  TenantEntry entry;
  std::shared_ptr<Budget> budget;
};

struct KeyAccount {
  KeyEntry entry;
  Identity identity;
  std::shared_ptr<Budget> budget;
};

absl::Status CheckRole(const Identity& identity, Access access) {
  const Roles& roles = identity.roles;
  const char* role = access == Access::kInfer && !roles.infer       ? "infer"
                     : access == Access::kMetrics && !roles.metrics ? "metrics"
                     : access == Access::kAdmin && !roles.admin     ? "admin"
                                                                    : nullptr;
  if (role == nullptr) return absl::OkStatus();
  if (identity.key_name.empty()) {
    return absl::PermissionDeniedError(
        absl::StrCat("this needs a key with the role ", role, ", and the server has no keys"));
  }
  return absl::PermissionDeniedError(absl::StrCat("the key '", identity.key_name, "' lacks the role ", role));
}

}  // namespace

// By digest: looking one up takes time that tells at most of digests, and those give no key away.
struct ApiKeys::Table {
  std::vector<KeyAccount> keys;  // as given
  absl::flat_hash_map<Digest, size_t> by_digest;
  absl::flat_hash_map<std::string, TenantAccount> tenants;

  const KeyAccount* Find(const Digest& digest) const {
    const auto found = by_digest.find(digest);
    return found == by_digest.end() ? nullptr : &keys[found->second];
  }
};

uint64_t TenantSalt(std::string_view tenant_name) {
  if (tenant_name.empty()) return 0;
  const Digest digest = Sha256(tenant_name);
  uint64_t salt = 0;
  std::memcpy(&salt, digest.data(), sizeof(salt));
  return salt | 1;  // never the anonymous tenant's
}

ApiKeys::ApiKeys(Clock clock) : clock_(std::move(clock)), table_(std::make_shared<Table>()) {}

ApiKeys::~ApiKeys() = default;

std::shared_ptr<const ApiKeys::Table> ApiKeys::table() const {
  absl::MutexLock lock(&mu_);
  return table_;
}

absl::Status ApiKeys::AddKey(std::string_view key) {
  KeyEntry entry;
  entry.where = "--api-key";
  entry.roles.metrics = true;
  if (absl::Status status = SetKey(key, entry); !status.ok()) {
    return absl::InvalidArgumentError(absl::StrCat("--api-key: ", status.message()));
  }
  Source source;
  source.file.keys.push_back(std::move(entry));
  return Add(std::move(source));
}

absl::Status ApiKeys::AddFile(const std::string& path) {
  auto file = ReadKeyFile(path);
  if (!file.ok()) return file.status();
  return Add({.path = path, .file = *std::move(file)});
}

absl::Status ApiKeys::AddText(std::string_view text, std::string_view path) {
  auto file = ParseKeyFile(text, path);
  if (!file.ok()) return file.status();
  return Add({.path = "", .file = *std::move(file)});
}

absl::Status ApiKeys::Add(Source source) {
  absl::MutexLock change(&change_mu_);
  sources_.push_back(std::move(source));
  auto table = Build(sources_);
  if (!table.ok()) {
    sources_.pop_back();
    return table.status();
  }
  absl::MutexLock lock(&mu_);
  table_ = *std::move(table);
  return absl::OkStatus();
}

absl::Status ApiKeys::Reload() {
  absl::MutexLock change(&change_mu_);
  std::vector<Source> sources = sources_;
  for (Source& source : sources) {
    if (source.path.empty()) continue;
    auto file = ReadKeyFile(source.path);
    if (!file.ok()) return file.status();
    source.file = *std::move(file);
  }
  auto table = Build(sources);
  if (!table.ok()) return table.status();
  sources_ = std::move(sources);
  absl::MutexLock lock(&mu_);
  table_ = *std::move(table);
  return absl::OkStatus();
}

// Every check comes before the first budget is touched, so that a file at fault changes nothing.
absl::StatusOr<std::shared_ptr<const ApiKeys::Table>> ApiKeys::Build(const std::vector<Source>& sources) const {
  const std::shared_ptr<const Table> old = this->table();
  auto table = std::make_shared<Table>();
  absl::flat_hash_set<std::string> names;
  for (const Source& source : sources) {
    for (const TenantEntry& tenant : source.file.tenants) table->tenants[tenant.name].entry = tenant;
    for (const KeyEntry& key : source.file.keys) {
      if (!table->by_digest.emplace(key.digest, table->keys.size()).second) {
        return absl::InvalidArgumentError(absl::StrCat(key.where, ": this key is there already"));
      }
      if (!names.insert(key.name).second) {
        return absl::InvalidArgumentError(absl::StrCat(key.where, ": another key has the name '", key.name, "'"));
      }
      table->tenants[key.tenant].entry.name = key.tenant;
      table->keys.push_back({.entry = key, .identity = {}, .budget = nullptr});
    }
  }
  const absl::Time now = clock_();
  for (auto& [name, tenant] : table->tenants) {
    const auto found = old->tenants.find(name);
    const RateLimits& limits = tenant.entry.limits;
    tenant.budget = found != old->tenants.end()
                        ? found->second.budget
                        : std::make_shared<Budget>(absl::StrCat("tenant '", name, "'"), limits, now);
    tenant.budget->SetLimits(limits, now);
  }
  for (KeyAccount& key : table->keys) {
    const KeyEntry& entry = key.entry;
    const TenantAccount& tenant = table->tenants.at(entry.tenant);
    const KeyAccount* known = old->Find(entry.digest);
    key.budget = known != nullptr ? known->budget
                                  : std::make_shared<Budget>(absl::StrCat("key '", entry.name, "'"), entry.limits, now);
    key.budget->SetLimits(entry.limits, now);
    const bool is_limited = entry.limits != RateLimits{} || tenant.entry.limits != RateLimits{};
    key.identity = {.tenant = {.name = entry.tenant,
                               .salt = TenantSalt(entry.tenant),
                               .weight = entry.weight.value_or(tenant.entry.weight)},
                    .key_name = entry.name,
                    .roles = entry.roles,
                    .quota = is_limited ? std::make_shared<Quota>(key.budget, tenant.budget, clock_) : nullptr};
  }
  return table;
}

size_t ApiKeys::num_keys() const { return table()->keys.size(); }

std::vector<KeyInfo> ApiKeys::List() const {
  const std::shared_ptr<const Table> table = this->table();
  std::vector<KeyInfo> list;
  for (const KeyAccount& key : table->keys) {
    list.push_back({.name = key.entry.name,
                    .tenant = key.entry.tenant,
                    .roles = key.entry.roles,
                    .limits = key.entry.limits,
                    .tenant_limits = table->tenants.at(key.entry.tenant).entry.limits,
                    .expires = key.entry.expires,
                    .state = key.identity.quota ? key.identity.quota->state() : RateState{}});
  }
  return list;
}

absl::StatusOr<Identity> ApiKeys::Authorize(std::string_view authorization, std::string_view x_api_key,
                                            Access access) const {
  if (access == Access::kProbe) return Identity{};
  const std::shared_ptr<const Table> table = this->table();
  if (table->keys.empty()) {
    const Identity anyone{.tenant = {}, .key_name = "", .roles = {.infer = true, .metrics = true}, .quota = nullptr};
    if (absl::Status status = CheckRole(anyone, access); !status.ok()) return status;
    return anyone;
  }
  std::string_view key = x_api_key;
  constexpr std::string_view kBearer = "bearer ";
  if (absl::StartsWithIgnoreCase(Absl(authorization), Absl(kBearer))) key = authorization.substr(kBearer.size());
  while (!key.empty() && key.front() == ' ') key.remove_prefix(1);
  if (key.empty()) {
    return absl::UnauthenticatedError("no API key given; send it as 'Authorization: Bearer KEY'");
  }
  const KeyAccount* found = table->Find(Sha256(key));
  if (found == nullptr) return absl::UnauthenticatedError("incorrect API key provided");
  if (clock_() >= found->entry.expires) {
    return WithErrorCode(absl::UnauthenticatedError(absl::StrCat("the key '", found->entry.name, "' has expired")),
                         "expired_api_key");
  }
  if (absl::Status status = CheckRole(found->identity, access); !status.ok()) return status;
  return found->identity;
}

}  // namespace millrace
