// SPDX-License-Identifier: Apache-2.0
#include "server/config/descriptor_limit.h"

#include <sys/resource.h>

#include <algorithm>
#include <cerrno>
#include <system_error>

#include "absl/strings/str_cat.h"

namespace millrace {
namespace {

// What is not an HTTP connection: shards of the model, listeners, pollers, logs, gRPC's connections.
constexpr int64_t kOtherDescriptors = 256;

int64_t ToCount(rlim_t limit) { return static_cast<int64_t>(std::min<rlim_t>(limit, rlim_t{1} << 40)); }

}  // namespace

absl::StatusOr<DescriptorLimit> RaiseDescriptorLimit(int num_connections) {
  rlimit limit{};
  if (getrlimit(RLIMIT_NOFILE, &limit) != 0) {
    return absl::InternalError(
        absl::StrCat("cannot read the limit on open files: ", std::generic_category().message(errno)));
  }
  const int64_t before = ToCount(limit.rlim_cur);
  const int64_t wanted = std::min(num_connections + kOtherDescriptors, ToCount(limit.rlim_max));
  if (wanted <= before) return DescriptorLimit{before, before};
  limit.rlim_cur = static_cast<rlim_t>(wanted);
  if (setrlimit(RLIMIT_NOFILE, &limit) != 0) {
    return absl::InternalError(
        absl::StrCat("cannot raise the limit on open files: ", std::generic_category().message(errno)));
  }
  return DescriptorLimit{before, wanted};
}

int FittingConnections(int num_wanted, int64_t max_descriptors) {
  // Under a very low limit both halves get something.
  const int64_t num_others = std::min(kOtherDescriptors, max_descriptors / 2);
  return static_cast<int>(std::clamp<int64_t>(max_descriptors - num_others, 1, num_wanted));
}

}  // namespace millrace
