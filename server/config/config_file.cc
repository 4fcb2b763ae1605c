// SPDX-License-Identifier: Apache-2.0
#include "server/config/config_file.h"

#include <yaml-cpp/yaml.h>

#include <algorithm>
#include <fstream>
#include <numeric>
#include <set>

#include "absl/strings/str_cat.h"

namespace millrace {
namespace {

constexpr size_t kMaxFileBytes = 1 << 20;

// Levenshtein's distance, two rows at a time.
size_t EditDistance(std::string_view a, std::string_view b) {
  std::vector<size_t> row(b.size() + 1), next(b.size() + 1);
  std::iota(row.begin(), row.end(), size_t{0});
  for (size_t i = 0; i < a.size(); ++i) {
    next[0] = i + 1;
    for (size_t j = 0; j < b.size(); ++j) {
      next[j + 1] = std::min({row[j + 1] + 1, next[j] + 1, row[j] + (a[i] == b[j] ? 0 : 1)});
    }
    row.swap(next);
  }
  return row.back();
}

absl::Status Fault(const std::string& path, int line, std::string_view what) {
  return absl::InvalidArgumentError(absl::StrCat(path, ":", line, ": ", absl::string_view(what.data(), what.size())));
}

}  // namespace

absl::StatusOr<std::vector<ConfigEntry>> ParseConfig(std::string_view text, const std::string& path) {
  std::vector<ConfigEntry> entries;
  std::set<std::string> seen;
  try {
    const YAML::Node root = YAML::Load(std::string(text));
    if (root.IsNull()) return entries;
    if (!root.IsMap()) return Fault(path, 1, "expected 'flag: value' lines");
    for (const auto& field : root) {
      ConfigEntry entry{.line = field.first.Mark().line + 1};
      entry.name = field.first.as<std::string>();
      std::replace(entry.name.begin(), entry.name.end(), '_', '-');
      if (!seen.insert(entry.name).second) return Fault(path, entry.line, absl::StrCat("'", entry.name, "' again"));
      if (entry.name == "mcp-servers" && field.second.IsMap()) {
        entry.name = "mcp-config";  // which reads them from this file
        if (!seen.insert(entry.name).second) return Fault(path, entry.line, "'mcp-servers' beside 'mcp-config'");
        entry.values.push_back(path);
      } else if (field.second.IsScalar()) {
        entry.values.push_back(field.second.as<std::string>());
      } else if (field.second.IsSequence()) {
        for (const YAML::Node& item : field.second) {
          if (!item.IsScalar()) return Fault(path, item.Mark().line + 1, absl::StrCat("'", entry.name, "' nests"));
          entry.values.push_back(item.as<std::string>());
        }
      } else {
        return Fault(path, entry.line, absl::StrCat("'", entry.name, "' needs a value"));
      }
      entries.push_back(std::move(entry));
    }
  } catch (const YAML::Exception& error) {
    return Fault(path, error.mark.line + 1, error.msg);
  }
  return entries;
}

absl::StatusOr<std::vector<ConfigEntry>> ReadConfigFile(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) return absl::NotFoundError(absl::StrCat("cannot read the config file ", path));
  std::string text(kMaxFileBytes + 1, '\0');
  file.read(text.data(), static_cast<std::streamsize>(text.size()));
  text.resize(static_cast<size_t>(file.gcount()));
  if (text.size() > kMaxFileBytes) return absl::InvalidArgumentError(absl::StrCat(path, " is larger than 1 MiB"));
  return ParseConfig(text, path);
}

std::string NearestName(std::string_view name, const std::vector<std::string>& candidates) {
  std::string best;
  size_t best_distance = std::max<size_t>(2, name.size() / 3) + 1;
  for (const std::string& candidate : candidates) {
    const size_t distance = EditDistance(name, candidate);
    if (distance < best_distance) {
      best_distance = distance;
      best = candidate;
    }
  }
  return best;
}

}  // namespace millrace
