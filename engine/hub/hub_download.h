// SPDX-License-Identifier: Apache-2.0
#pragma once
// One file of a repository into the cache's blobs: resumed where an earlier attempt broke, checked, then renamed.
// Internal to the hub client.
#include <cstdint>
#include <functional>
#include <string>

#include "absl/status/status.h"
#include "engine/hub/hub_api.h"
#include "engine/hub/hub_cache.h"

namespace millrace {

// Called with the bytes of this file that are there.
using HubBytesCallback = std::function<void(uint64_t)>;

// OK: the blob exists and its checksum was right when it was made. Another process at the same file is waited for.
absl::Status DownloadBlob(HubApi& api, const HubCache& cache, const std::string& commit, const HubFileInfo& file,
                          const HubBytesCallback& on_bytes);

}  // namespace millrace
