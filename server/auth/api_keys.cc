// SPDX-License-Identifier: Apache-2.0
#include "server/auth/api_keys.h"

#include <openssl/crypto.h>
#include <openssl/sha.h>
#include <yaml-cpp/yaml.h>

#include <cmath>
#include <cstring>
#include <fstream>
#include <sstream>

#include "absl/strings/ascii.h"
#include "absl/strings/escaping.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"

namespace millrace {
namespace {

constexpr size_t kMaxFileBytes = 16 << 20;
constexpr std::string_view kDigestPrefix = "sha256:";

absl::string_view Absl(std::string_view text) { return {text.data(), text.size()}; }

KeyDigest Digest(std::string_view key) {
  KeyDigest digest;
  SHA256(reinterpret_cast<const unsigned char*>(key.data()), key.size(), digest.data());
  return digest;
}

bool IsHexDigest(std::string_view text) {
  if (text.size() != 64) return false;
  for (const char c : text) {
    if (!absl::ascii_isxdigit(static_cast<unsigned char>(c))) return false;
  }
  return true;
}

// Names appear in metrics and logs.
bool IsTenantName(std::string_view name) {
  if (name.size() > 64) return false;
  for (const char c : name) {
    if (!absl::ascii_isalnum(static_cast<unsigned char>(c)) && c != '-' && c != '_' && c != '.') return false;
  }
  return true;
}

}  // namespace

uint64_t TenantSalt(std::string_view tenant_name) {
  if (tenant_name.empty()) return 0;
  const KeyDigest digest = Digest(tenant_name);
  uint64_t salt = 0;
  std::memcpy(&salt, digest.data(), sizeof(salt));
  return salt | 1;  // never the anonymous tenant's
}

absl::Status ApiKeys::Add(std::string_view key, std::string_view tenant, double weight, std::string_view where) {
  Entry entry;
  if (absl::StartsWith(Absl(key), Absl(kDigestPrefix))) {
    const std::string_view hex = key.substr(kDigestPrefix.size());
    if (!IsHexDigest(hex))
      return absl::InvalidArgumentError(absl::StrCat(Absl(where), ": sha256: needs 64 hex digits"));
    const std::string bytes = absl::HexStringToBytes(Absl(hex));
    std::memcpy(entry.digest.data(), bytes.data(), entry.digest.size());
  } else {
    if (key.empty()) return absl::InvalidArgumentError(absl::StrCat(Absl(where), ": empty key"));
    entry.digest = Digest(key);
  }
  if (!IsTenantName(tenant)) {
    return absl::InvalidArgumentError(
        absl::StrCat(Absl(where), ": tenant names have letters, digits, '-', '_', '.' and at most 64 of them"));
  }
  if (!(weight > 0) || !std::isfinite(weight)) {
    return absl::InvalidArgumentError(absl::StrCat(Absl(where), ": weight must be a positive number"));
  }
  entry.tenant = {.name = std::string(tenant), .salt = TenantSalt(tenant), .weight = weight};
  entries_.push_back(std::move(entry));
  return absl::OkStatus();
}

absl::Status ApiKeys::AddKey(std::string_view key) { return Add(key, "", 1.0, "--api-key"); }

absl::Status ApiKeys::AddFile(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) return absl::InvalidArgumentError(absl::StrCat("cannot read the API key file ", path));
  std::string text(kMaxFileBytes + 1, '\0');
  file.read(text.data(), static_cast<std::streamsize>(text.size()));
  text.resize(static_cast<size_t>(file.gcount()));
  if (text.size() > kMaxFileBytes) return absl::InvalidArgumentError(absl::StrCat(path, " is larger than 16 MiB"));
  const size_t before = entries_.size();
  if (absl::Status status = AddText(text, path); !status.ok()) return status;
  // An empty file must not open the server to everyone.
  if (entries_.size() == before) return absl::InvalidArgumentError(absl::StrCat(path, ": no keys in it"));
  return absl::OkStatus();
}

absl::Status ApiKeys::AddText(std::string_view text, std::string_view path) {
  for (absl::string_view line : absl::StrSplit(Absl(text), '\n')) {
    line = absl::StripAsciiWhitespace(line);
    if (line.empty() || line.front() == '#') continue;
    const bool is_yaml = line == "---" || line == "keys:" || absl::StartsWith(line, "- ");
    return is_yaml ? AddYaml(text, path) : AddLines(text, path);
  }
  return absl::OkStatus();
}

absl::Status ApiKeys::AddLines(std::string_view text, std::string_view path) {
  int number = 0;
  for (absl::string_view line : absl::StrSplit(Absl(text), '\n')) {
    ++number;
    line = absl::StripAsciiWhitespace(line.substr(0, line.find('#')));
    if (line.empty()) continue;
    const std::string where = absl::StrCat(Absl(path), ":", number);
    const std::vector<std::string> words = absl::StrSplit(line, absl::ByAnyChar(" \t,"), absl::SkipEmpty());
    double weight = 1.0;
    if (words.empty() || words.size() > 3 || (words.size() == 3 && !absl::SimpleAtod(words[2], &weight))) {
      return absl::InvalidArgumentError(absl::StrCat(where, ": expected KEY [TENANT [WEIGHT]]"));
    }
    if (absl::Status status = Add(words[0], words.size() > 1 ? words[1] : "", weight, where); !status.ok()) {
      return status;
    }
  }
  return absl::OkStatus();
}

absl::Status ApiKeys::AddYaml(std::string_view text, std::string_view path) {
  try {
    YAML::Node root = YAML::Load(std::string(text));
    if (root.IsMap()) root = root["keys"];
    if (!root || !root.IsSequence())
      return absl::InvalidArgumentError(absl::StrCat(Absl(path), ": expected a list of keys"));
    for (const YAML::Node& item : root) {
      const std::string where = absl::StrCat(Absl(path), ":", item.Mark().line + 1);
      if (!item.IsMap()) return absl::InvalidArgumentError(absl::StrCat(where, ": expected {key, tenant, weight}"));
      std::string key, tenant;
      double weight = 1.0;
      for (const auto& field : item) {
        const std::string name = field.first.as<std::string>();
        if (name == "key") {
          key = field.second.as<std::string>();
        } else if (name == "sha256") {
          key = absl::StrCat(Absl(kDigestPrefix), field.second.as<std::string>());
        } else if (name == "tenant") {
          tenant = field.second.as<std::string>();
        } else if (name == "weight") {
          weight = field.second.as<double>();
        } else {
          return absl::InvalidArgumentError(
              absl::StrCat(Absl(path), ":", field.first.Mark().line + 1, ": unknown field '", name, "'"));
        }
      }
      if (absl::Status status = Add(key, tenant, weight, where); !status.ok()) return status;
    }
  } catch (const YAML::Exception& error) {
    return absl::InvalidArgumentError(absl::StrCat(Absl(path), ":", error.mark.line + 1, ": ", error.msg));
  }
  return absl::OkStatus();
}

std::optional<Tenant> ApiKeys::Find(std::string_view key) const {
  const KeyDigest digest = Digest(key);
  const Entry* found = nullptr;
  for (const Entry& entry : entries_) {
    if (CRYPTO_memcmp(entry.digest.data(), digest.data(), digest.size()) == 0) found = &entry;
  }
  if (found == nullptr) return std::nullopt;
  return found->tenant;
}

absl::StatusOr<Tenant> ApiKeys::Authenticate(std::string_view authorization, std::string_view x_api_key) const {
  if (!is_required()) return Tenant{};
  std::string_view key = x_api_key;
  constexpr std::string_view kBearer = "bearer ";
  if (absl::StartsWithIgnoreCase(Absl(authorization), Absl(kBearer))) key = authorization.substr(kBearer.size());
  while (!key.empty() && key.front() == ' ') key.remove_prefix(1);
  if (key.empty()) {
    return absl::UnauthenticatedError("no API key given; send it as 'Authorization: Bearer KEY'");
  }
  if (std::optional<Tenant> tenant = Find(key)) return *std::move(tenant);
  return absl::UnauthenticatedError("incorrect API key provided");
}

}  // namespace millrace
