// SPDX-License-Identifier: Apache-2.0
#pragma once
// How many open files the process may have, and so how many connections. The limit belongs to the whole process: set
// once, before the first connection.
#include <cstdint>

#include "absl/status/statusor.h"

namespace millrace {

struct DescriptorLimit {
  int64_t before = 0;
  int64_t after = 0;
};

// Raises the soft limit, towards the hard one, until `num_connections` fit beside everything else. Internal: the system
// refuses.
absl::StatusOr<DescriptorLimit> RaiseDescriptorLimit(int num_connections);

// As many of the wanted connections as fit: at least one.
int FittingConnections(int num_wanted, int64_t max_descriptors);

}  // namespace millrace
