// SPDX-License-Identifier: Apache-2.0
#include "server/auth/key_file.h"

#include <yaml-cpp/yaml.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <fstream>

#include "absl/container/flat_hash_set.h"
#include "absl/strings/ascii.h"
#include "absl/strings/escaping.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"

namespace millrace {
namespace {

constexpr size_t kMaxFileBytes = 16 << 20;
constexpr int64_t kMaxPerMinute = int64_t{1} << 40;
constexpr std::string_view kDigestPrefix = "sha256:";

absl::string_view Absl(std::string_view text) { return {text.data(), text.size()}; }

bool IsHexDigest(std::string_view text) {
  return text.size() == 64 && std::all_of(text.begin(), text.end(),
                                          [](char c) { return absl::ascii_isxdigit(static_cast<unsigned char>(c)); });
}

// Names appear in metrics and logs.
bool IsName(std::string_view name) {
  return name.size() <= 64 && std::all_of(name.begin(), name.end(), [](char c) {
           return absl::ascii_isalnum(static_cast<unsigned char>(c)) || c == '-' || c == '_' || c == '.';
         });
}

absl::Status CheckName(const char* what, std::string_view name) {
  if (IsName(name)) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat(what, " names have letters, digits, '-', '_', '.' and at most 64 of them"));
}

absl::Status CheckTenant(std::string_view name) {
  if (name == "anonymous" || name == "other") {
    return absl::InvalidArgumentError("the tenant names anonymous and other have a meaning of their own");
  }
  return CheckName("tenant", name);
}

absl::Status CheckWeight(double weight) {
  if (weight > 0 && std::isfinite(weight)) return absl::OkStatus();
  return absl::InvalidArgumentError("weight must be a positive number");
}

absl::Status At(std::string_view where, const absl::Status& status) {
  if (status.ok()) return status;
  return absl::InvalidArgumentError(absl::StrCat(Absl(where), ": ", status.message()));
}

// ---- YAML -----------------------------------------------------------------------------------------------------------

absl::Status ReadRoles(const YAML::Node& node, Roles& roles) {
  roles = {.infer = false};
  const std::vector<std::string> names =
      node.IsSequence() ? node.as<std::vector<std::string>>() : std::vector<std::string>{node.as<std::string>()};
  for (const std::string& name : names) {
    if (name == "infer") {
      roles.infer = true;
    } else if (name == "metrics") {
      roles.metrics = true;
    } else if (name == "admin") {
      roles.admin = true;
    } else {
      return absl::InvalidArgumentError("roles are infer, metrics and admin");
    }
  }
  if (names.empty()) return absl::InvalidArgumentError("a key without a role is of no use");
  return absl::OkStatus();
}

absl::Status ReadLimit(const YAML::Node& node, int64_t& limit) {
  limit = node.as<int64_t>();
  if (limit >= 1 && limit <= kMaxPerMinute) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat("a limit is at least 1 and at most ", kMaxPerMinute));
}

absl::Status ReadWeight(const YAML::Node& node, double& weight) {
  weight = node.as<double>();
  return CheckWeight(weight);
}

absl::Status ReadExpiry(const YAML::Node& node, absl::Time& expires) {
  const auto text = node.as<std::string>();
  std::string error;
  if (absl::ParseTime("%Y-%m-%d", text, &expires, &error) ||
      absl::ParseTime(absl::RFC3339_full, text, &expires, &error))
    return absl::OkStatus();
  return absl::InvalidArgumentError("expires is a day (2030-01-31) or a time (2030-01-31T12:00:00Z)");
}

// Nullopt: not a field of limits.
std::optional<absl::Status> ReadLimitField(const std::string& name, const YAML::Node& node, RateLimits& limits) {
  if (name == "requests_per_minute") return ReadLimit(node, limits.requests_per_minute);
  if (name == "tokens_per_minute") return ReadLimit(node, limits.tokens_per_minute);
  if (name == "concurrent_requests") return ReadLimit(node, limits.concurrent_requests);
  return std::nullopt;
}

// A line that lacks its colon is a key's more often than a field's: only what looks like one of ours is repeated.
absl::Status UnknownField(const std::string& name) {
  const bool is_shown = name.size() <= 24 && std::all_of(name.begin(), name.end(), [](char c) {
                          return absl::ascii_islower(static_cast<unsigned char>(c)) || c == '_';
                        });
  return absl::InvalidArgumentError(is_shown ? absl::StrCat("unknown field '", name, "'") : "unknown field");
}

absl::Status ReadField(const std::string& name, const YAML::Node& node, KeyEntry& entry) {
  if (auto limit = ReadLimitField(name, node, entry.limits)) return *limit;
  if (name == "roles") return ReadRoles(node, entry.roles);
  if (name == "weight") return ReadWeight(node, entry.weight.emplace());
  if (name == "expires") return ReadExpiry(node, entry.expires);
  if (name == "key" || name == "sha256") {
    if (!entry.where.empty()) return absl::InvalidArgumentError("one of key and sha256, once");
    entry.where = "set";
    const std::string given_name = entry.name;
    const auto value = node.as<std::string>();
    absl::Status status = SetKey(name == "key" ? value : absl::StrCat(Absl(kDigestPrefix), value), entry);
    if (!given_name.empty()) entry.name = given_name;
    return status;
  }
  if (name == "tenant" || name == "name") {
    std::string& field = name == "name" ? entry.name : entry.tenant;
    field = node.as<std::string>();
    if (name == "name" && field.empty()) return absl::InvalidArgumentError("name is empty");
    return name == "name" ? CheckName("key", field) : CheckTenant(field);
  }
  return UnknownField(name);
}

absl::Status ReadField(const std::string& name, const YAML::Node& node, TenantEntry& entry) {
  if (auto limit = ReadLimitField(name, node, entry.limits)) return *limit;
  if (name == "weight") return ReadWeight(node, entry.weight);
  if (name == "name") {
    entry.name = node.as<std::string>();
    return CheckTenant(entry.name);
  }
  return UnknownField(name);
}

template <typename Entry>
absl::Status ReadEntry(const YAML::Node& node, std::string_view path, Entry& entry) {
  if (!node.IsMap()) {
    return absl::InvalidArgumentError(
        absl::StrCat(Absl(path), ":", node.Mark().line + 1, ": expected a map, such as {key: ..., tenant: ...}"));
  }
  std::vector<std::string> seen;
  for (const auto& field : node) {
    const std::string where = absl::StrCat(Absl(path), ":", field.first.Mark().line + 1);
    const auto name = field.first.as<std::string>();
    if (std::find(seen.begin(), seen.end(), name) != seen.end())
      return At(where, absl::InvalidArgumentError("a field twice"));
    seen.push_back(name);
    if (absl::Status status = ReadField(name, field.second, entry); !status.ok()) return At(where, status);
  }
  return absl::OkStatus();
}

using Names = absl::flat_hash_set<std::string>;

absl::Status ReadTenants(const YAML::Node& list, std::string_view path, KeyFile& file, Names& names) {
  if (!list.IsSequence()) return absl::InvalidArgumentError(absl::StrCat(Absl(path), ": tenants: expected a list"));
  for (const YAML::Node& node : list) {
    TenantEntry entry;
    const std::string where = absl::StrCat(Absl(path), ":", node.Mark().line + 1);
    if (absl::Status status = ReadEntry(node, path, entry); !status.ok()) return status;
    if (entry.name.empty()) return At(where, absl::InvalidArgumentError("a tenant needs a name"));
    if (!names.insert(entry.name).second) return At(where, absl::InvalidArgumentError("this tenant is there already"));
    file.tenants.push_back(std::move(entry));
  }
  return absl::OkStatus();
}

// `tenants`: those listed; none: any name will do.
absl::Status ReadKeys(const YAML::Node& list, std::string_view path, const Names& tenants, KeyFile& file) {
  if (!list || !list.IsSequence())
    return absl::InvalidArgumentError(absl::StrCat(Absl(path), ": expected a list of keys"));
  for (const YAML::Node& node : list) {
    KeyEntry entry;
    const std::string where = absl::StrCat(Absl(path), ":", node.Mark().line + 1);
    if (absl::Status status = ReadEntry(node, path, entry); !status.ok()) return status;
    if (entry.where.empty()) return At(where, absl::InvalidArgumentError("a key needs key or sha256"));
    entry.where = where;
    // Where tenants are listed, one that is not would have no limits: more likely a slip than a wish.
    if (!entry.tenant.empty() && !tenants.empty() && !tenants.contains(entry.tenant)) {
      return At(where, absl::InvalidArgumentError(absl::StrCat("tenants does not list '", entry.tenant, "'")));
    }
    file.keys.push_back(std::move(entry));
  }
  return absl::OkStatus();
}

absl::Status ReadYaml(std::string_view text, std::string_view path, KeyFile& file) {
  try {
    const YAML::Node root = YAML::Load(std::string(text));
    Names tenants;
    if (!root.IsMap()) return ReadKeys(root, path, tenants, file);
    for (const auto& section : root) {
      const auto name = section.first.as<std::string>();
      if (name == "keys" || name == "tenants") continue;
      return At(absl::StrCat(Absl(path), ":", section.first.Mark().line + 1), UnknownField(name));
    }
    if (root["tenants"]) {
      if (absl::Status status = ReadTenants(root["tenants"], path, file, tenants); !status.ok()) return status;
    }
    return ReadKeys(root["keys"], path, tenants, file);
  } catch (const YAML::Exception& error) {
    return absl::InvalidArgumentError(absl::StrCat(Absl(path), ":", error.mark.line + 1, ": ", error.msg));
  }
}

// ---- lines ----------------------------------------------------------------------------------------------------------

absl::Status ReadLine(absl::string_view line, KeyEntry& entry) {
  const std::vector<std::string> words = absl::StrSplit(line, absl::ByAnyChar(" \t,"), absl::SkipEmpty());
  double weight = 1.0;
  if (words.empty() || words.size() > 3 || (words.size() == 3 && !absl::SimpleAtod(words[2], &weight))) {
    return absl::InvalidArgumentError("expected KEY [TENANT [WEIGHT]]");
  }
  if (absl::Status status = SetKey(words[0], entry); !status.ok()) return status;
  if (words.size() > 1) entry.tenant = words[1];
  if (absl::Status status = CheckTenant(entry.tenant); !status.ok()) return status;
  if (words.size() < 3) return absl::OkStatus();
  entry.weight = weight;
  return CheckWeight(weight);
}

absl::Status ReadLines(std::string_view text, std::string_view path, KeyFile& file) {
  int number = 0;
  for (absl::string_view line : absl::StrSplit(Absl(text), '\n')) {
    ++number;
    line = absl::StripAsciiWhitespace(line.substr(0, line.find('#')));
    if (line.empty()) continue;
    KeyEntry entry;
    const std::string where = absl::StrCat(Absl(path), ":", number);
    if (absl::Status status = ReadLine(line, entry); !status.ok()) return At(where, status);
    entry.where = where;
    file.keys.push_back(std::move(entry));
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status SetKey(std::string_view key_or_digest, KeyEntry& entry) {
  if (absl::StartsWith(Absl(key_or_digest), Absl(kDigestPrefix))) {
    const std::string_view hex = key_or_digest.substr(kDigestPrefix.size());
    if (!IsHexDigest(hex)) return absl::InvalidArgumentError("sha256 needs 64 hex digits");
    const std::string bytes = absl::HexStringToBytes(Absl(hex));
    std::memcpy(entry.digest.data(), bytes.data(), entry.digest.size());
  } else {
    if (key_or_digest.empty()) return absl::InvalidArgumentError("empty key");
    entry.digest = Sha256(key_or_digest);
  }
  const absl::string_view first(reinterpret_cast<const char*>(entry.digest.data()), 4);
  entry.name = absl::StrCat("key-", absl::BytesToHexString(first));
  return absl::OkStatus();
}

absl::StatusOr<KeyFile> ParseKeyFile(std::string_view text, std::string_view path) {
  KeyFile file;
  for (absl::string_view line : absl::StrSplit(Absl(text), '\n')) {
    line = absl::StripAsciiWhitespace(line);
    if (line.empty() || line.front() == '#') continue;
    const bool is_yaml = line == "---" || absl::StartsWith(line, "keys:") || absl::StartsWith(line, "tenants:") ||
                         absl::StartsWith(line, "- ");
    absl::Status status = is_yaml ? ReadYaml(text, path, file) : ReadLines(text, path, file);
    if (!status.ok()) return status;
    break;
  }
  return file;
}

absl::StatusOr<KeyFile> ReadKeyFile(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) return absl::InvalidArgumentError(absl::StrCat("cannot read the API key file ", path));
  std::string text(kMaxFileBytes + 1, '\0');
  file.read(text.data(), static_cast<std::streamsize>(text.size()));
  text.resize(static_cast<size_t>(file.gcount()));
  if (text.size() > kMaxFileBytes) return absl::InvalidArgumentError(absl::StrCat(path, " is larger than 16 MiB"));
  auto parsed = ParseKeyFile(text, path);
  if (parsed.ok() && parsed->keys.empty()) return absl::InvalidArgumentError(absl::StrCat(path, ": no keys in it"));
  return parsed;
}

}  // namespace millrace
