// SPDX-License-Identifier: Apache-2.0
// A hub's answer about a repository: whatever it says, the files chosen from it have names that stay in the cache.
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <filesystem>
#include <string_view>

#include "engine/hub/hub_api.h"
#include "engine/hub/hub_cache.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t num_bytes) {
  using namespace millrace;
  const std::string_view input(reinterpret_cast<const char*>(data), num_bytes);
  (void)ParseModelName(input);
  (void)CheckRevision(input);
  const absl::StatusOr<HubRepoInfo> info = ParseRepoInfo(input);
  if (!info.ok()) return 0;
  if (!IsCommitId(info->commit)) std::abort();
  const auto selected = SelectFiles(info->files, "");
  if (!selected.ok()) return 0;
  for (const std::string& file : *selected) {
    const std::string inside = (std::filesystem::path("/cache/snapshot") / file).lexically_normal().string();
    if (!inside.starts_with("/cache/snapshot/")) std::abort();
  }
  return 0;
}
