// SPDX-License-Identifier: Apache-2.0
#pragma once
// The frame around a stored answer: version, time of storing, and a checksum that also binds it to its key, so that
// what was cut, changed, or put under another key is nothing. Pure functions.
#include <optional>
#include <string>
#include <string_view>

#include "absl/time/time.h"
#include "cache/cache_key.h"

namespace millrace {

struct OpenedValue {
  std::string_view payload;  // within the sealed bytes
  absl::Time stored;
};

std::string SealValue(const CacheKey& key, absl::Time stored, std::string_view payload);
// Nothing when the bytes are not such a value of this key.
std::optional<OpenedValue> OpenValue(const CacheKey& key, std::string_view sealed);

}  // namespace millrace
