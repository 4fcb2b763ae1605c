// SPDX-License-Identifier: Apache-2.0
// A file of API keys: whatever is in it, a key that was there stays, nobody gets in without one, and every tenant's
// name can be printed in metrics.
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string_view>

#include "server/auth/api_keys.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t num_bytes) {
  using namespace millrace;
  const std::string_view text(reinterpret_cast<const char*>(data), num_bytes);
  ApiKeys keys;
  if (!keys.AddKey("known").ok()) std::abort();
  const absl::Status status = keys.AddText(text, "keys");
  if (!status.ok() && status.message().empty()) std::abort();
  if (!keys.is_required() || !keys.Authenticate("Bearer known", "").ok()) std::abort();
  if (keys.Authenticate("", "").ok()) std::abort();
  // The first word of a file of plain lines is a key; its tenant must be fit to be shown.
  const std::string_view word = text.substr(0, text.find_first_of(" \t,\r\n#"));
  if (const auto tenant = keys.Find(word); tenant.has_value()) {
    if (tenant->name.find_first_of("\"\\\n{} ") != tenant->name.npos) std::abort();
    if (!(tenant->weight > 0) || !std::isfinite(tenant->weight)) std::abort();
  }
  return 0;
}
