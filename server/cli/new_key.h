// SPDX-License-Identifier: Apache-2.0
#pragma once
// `millrace keys new`: a fresh key and its entry for the key file.
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"

namespace millrace {

struct NewKeyOptions {
  std::string tenant, name, expires;  // empty: left out
  std::vector<std::string> roles;     // empty: infer
};

struct NewKey {
  std::string key;    // 256 random bits
  std::string entry;  // "- {name: ..., sha256: ...}": a line of YAML; the key is not in it
};

// InvalidArgument: what the key file would not take.
absl::StatusOr<NewKey> MakeNewKey(const NewKeyOptions& options);
// The entry goes to standard output, to be appended to a file; the key to standard error, where it is seen once.
int RunNewKey(const NewKeyOptions& options);

}  // namespace millrace
