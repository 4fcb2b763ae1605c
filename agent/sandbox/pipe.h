// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

#include "absl/status/statusor.h"
#include "agent/sandbox/unique_fd.h"

namespace millrace {

// Between us and a child.
struct Pipe {
  UniqueFd reader;
  UniqueFd writer;
};

enum class OurEnd : uint8_t { kReader, kWriter };

// Our end never blocks. Both are above the standard three, and closed in children. Internal: no descriptor is left.
absl::StatusOr<Pipe> MakePipe(OurEnd ours);

// The same file above the standard three, which a child will overwrite: a server may have been started with one of them
// closed.
UniqueFd AboveStandard(UniqueFd fd);

}  // namespace millrace
