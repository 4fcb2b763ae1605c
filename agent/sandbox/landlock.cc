// SPDX-License-Identifier: Apache-2.0
#include "agent/sandbox/landlock.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/syscall.h>

#include <cerrno>
#include <cstdint>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"

namespace millrace {
namespace {

// The kernel's interface as of ABI 6, spelled out: the distribution's headers may know an older one.
struct RulesetAttributes {
  uint64_t handled_access_fs = 0;
  uint64_t handled_access_net = 0;
  uint64_t scoped = 0;
};
struct [[gnu::packed]] PathBeneathAttributes {
  uint64_t allowed_access = 0;
  int32_t parent_fd = -1;
};
constexpr uint32_t kCreateRulesetVersion = 1;
constexpr int kRulePathBeneath = 1;

constexpr uint64_t kExecute = 1 << 0;
constexpr uint64_t kWriteFile = 1 << 1;
constexpr uint64_t kReadFile = 1 << 2;
constexpr uint64_t kReadFolder = 1 << 3;
constexpr uint64_t kRemoveFolder = 1 << 4;
constexpr uint64_t kRemoveFile = 1 << 5;
constexpr uint64_t kMakeFolder = 1 << 7;
constexpr uint64_t kMakeRegular = 1 << 8;
constexpr uint64_t kMakeSymlink = 1 << 12;
constexpr uint64_t kAllOfAbi1 = (1 << 13) - 1;
constexpr uint64_t kRefer = 1 << 13;        // ABI 2: rename and link between folders
constexpr uint64_t kTruncate = 1 << 14;     // ABI 3
constexpr uint64_t kIoctlDevice = 1 << 15;  // ABI 5
constexpr uint64_t kBindTcp = 1 << 0;       // ABI 4
constexpr uint64_t kConnectTcp = 1 << 1;
constexpr uint64_t kScopeAbstractSocket = 1 << 0;  // ABI 6
constexpr uint64_t kScopeSignal = 1 << 1;
// What a rule on something that is no folder may name.
constexpr uint64_t kRightsOfFiles = kExecute | kWriteFile | kReadFile | kTruncate | kIoctlDevice;

RulesetAttributes Handled(int abi) {
  RulesetAttributes handled{.handled_access_fs = kAllOfAbi1};
  if (abi >= 2) handled.handled_access_fs |= kRefer;
  if (abi >= 3) handled.handled_access_fs |= kTruncate;
  if (abi >= 4) handled.handled_access_net = kBindTcp | kConnectTcp;
  if (abi >= 5) handled.handled_access_fs |= kIoctlDevice;
  if (abi >= 6) handled.scoped = kScopeAbstractSocket | kScopeSignal;
  return handled;
}

enum class IfMissing { kFail, kLeaveOut };

class RulesetBuilder {
 public:
  RulesetBuilder(int fd, uint64_t handled) : fd_(fd), handled_(handled) {}

  void Allow(const std::string& path, uint64_t rights, IfMissing if_missing) {
    if (!status_.ok()) return;
    const UniqueFd file(open(path.c_str(), O_PATH | O_CLOEXEC));
    if (file.get() < 0 && errno == ENOENT && if_missing == IfMissing::kLeaveOut) return;
    struct stat info;
    if (file.get() < 0 || fstat(file.get(), &info) != 0) {
      status_ = absl::ErrnoToStatus(errno, absl::StrCat("the sandbox cannot see ", path));
      return;
    }
    if (!S_ISDIR(info.st_mode)) rights &= kRightsOfFiles;
    const PathBeneathAttributes rule{.allowed_access = rights & handled_, .parent_fd = file.get()};
    if (syscall(SYS_landlock_add_rule, fd_, kRulePathBeneath, &rule, 0) != 0) {
      status_ = absl::InternalError(absl::StrCat("landlock_add_rule failed for ", path, ", error ", errno));
    }
  }
  const absl::Status& status() const { return status_; }

 private:
  const int fd_;
  const uint64_t handled_;
  absl::Status status_;
};

}  // namespace

int LandlockAbi() {
  const long abi = syscall(SYS_landlock_create_ruleset, nullptr, 0, kCreateRulesetVersion);
  return abi > 0 ? static_cast<int>(abi) : 0;
}

absl::StatusOr<UniqueFd> MakeLandlockRuleset(int abi, const LandlockGrants& grants) {
  const RulesetAttributes handled = Handled(abi);
  UniqueFd ruleset(static_cast<int>(syscall(SYS_landlock_create_ruleset, &handled, sizeof(handled), 0)));
  if (ruleset.get() < 0) return absl::InternalError(absl::StrCat("landlock_create_ruleset failed, error ", errno));

  RulesetBuilder builder(ruleset.get(), handled.handled_access_fs);
  for (const std::string& path : grants.readable) builder.Allow(path, kReadFile | kReadFolder, IfMissing::kLeaveOut);
  for (const std::string& path : grants.executable) builder.Allow(path, kReadFile | kExecute, IfMissing::kFail);
  for (const std::string& path : grants.optional_executable) {
    builder.Allow(path, kReadFile | kExecute, IfMissing::kLeaveOut);
  }
  for (const std::string& path : grants.writable_devices) {
    builder.Allow(path, kReadFile | kWriteFile | kTruncate, IfMissing::kLeaveOut);
  }
  builder.Allow(grants.work_folder,
                kReadFile | kReadFolder | kWriteFile | kTruncate | kRemoveFile | kRemoveFolder | kMakeFolder |
                    kMakeRegular | kMakeSymlink | kRefer,
                IfMissing::kFail);
  if (!builder.status().ok()) return builder.status();
  return ruleset;
}

}  // namespace millrace
