// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "agent/sandbox/unique_fd.h"

namespace millrace {

// The version of Landlock's interface that the kernel speaks; 0 where it has none or does not switch it on.
int LandlockAbi();

// Paths, with links followed. Nothing else can be opened, made, removed, renamed or executed.
struct LandlockGrants {
  std::vector<std::string> readable;    // a file, or a folder and all below; a missing one is left out
  std::vector<std::string> executable;  // files, readable too; must exist, but for those that are named `optional`
  std::vector<std::string> optional_executable;
  std::vector<std::string> writable_devices;  // files: read and write
  std::string work_folder;                    // everything in it, but no execution, devices, sockets or pipes
};

// The rules as a descriptor for landlock_restrict_self. Beside files: no TCP from ABI 4 on, no signals and no abstract
// Unix sockets to the outside from ABI 6 on. REQUIRES: LandlockAbi() > 0.
absl::StatusOr<UniqueFd> MakeLandlockRuleset(int abi, const LandlockGrants& grants);

}  // namespace millrace
