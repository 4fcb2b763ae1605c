// SPDX-License-Identifier: Apache-2.0
// A file of API keys: whatever is in it, a key that was there stays, nobody gets in without one, a file at fault
// changes nothing, and every name can be printed in metrics and logs.
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string_view>

#include "server/auth/api_keys.h"

namespace {

bool IsPrintable(std::string_view name) { return name.find_first_of("\"\\\n{} ") == name.npos; }

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t num_bytes) {
  using namespace millrace;
  const std::string_view text(reinterpret_cast<const char*>(data), num_bytes);
  ApiKeys keys;
  if (!keys.AddKey("known").ok()) std::abort();
  const absl::Status status = keys.AddText(text, "keys");
  if (!status.ok() && (status.message().empty() || keys.num_keys() != 1)) std::abort();
  if (!keys.is_required() || !keys.Authorize("Bearer known", "", Access::kInfer).ok()) std::abort();
  if (keys.Authorize("", "", Access::kAnyKey).ok()) std::abort();
  for (const KeyInfo& key : keys.List()) {
    if (key.name.empty() || !IsPrintable(key.name) || !IsPrintable(key.tenant)) std::abort();
    if (key.limits.tokens_per_minute < 0 ||
        key.state.tokens.remaining > key.limits.tokens_per_minute + key.tenant_limits.tokens_per_minute)
      std::abort();
  }
  // The first word of a file of plain lines is a key.
  const std::string_view word = text.substr(0, text.find_first_of(" \t,\r\n#"));
  if (const auto identity = keys.Authorize("", word, Access::kAnyKey); identity.ok()) {
    if (!(identity->tenant.weight > 0) || !std::isfinite(identity->tenant.weight)) std::abort();
    if (identity->quota != nullptr && identity->quota->max_tokens() < 1) std::abort();
  }
  return 0;
}
