// SPDX-License-Identifier: Apache-2.0
// A YAML file of flags: entries with names that occur once and lines that exist, or a fault that says where.
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <set>
#include <string>
#include <string_view>

#include "server/config/config_file.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t num_bytes) {
  using namespace millrace;
  const std::string_view text(reinterpret_cast<const char*>(data), num_bytes);
  const auto entries = ParseConfig(text, "config.yaml");
  if (!entries.ok()) {
    if (entries.status().message().find("config.yaml:") != 0) std::abort();
    return 0;
  }
  // A line may end with any of \n and \r.
  const auto ends = std::count_if(text.begin(), text.end(), [](char c) { return c == '\n' || c == '\r'; });
  std::set<std::string> names;
  for (const ConfigEntry& entry : *entries) {
    if (!names.insert(entry.name).second) std::abort();
    if (entry.line < 1 || entry.line > ends + 1) std::abort();
    if (entry.name.size() <= 100) (void)NearestName(entry.name, {"port", "max-num-seqs", "served-model-name"});
  }
  return 0;
}
