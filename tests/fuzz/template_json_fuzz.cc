// SPDX-License-Identifier: Apache-2.0
// JSON to a template value and back: what parses is written, and what was written parses to an equal value.
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string_view>

#include "engine/text/template_json.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t num_bytes) {
  using namespace millrace;
  const absl::StatusOr<TemplateValue> value =
      ParseJsonValue(std::string_view(reinterpret_cast<const char*>(data), num_bytes));
  if (!value.ok()) return 0;
  for (const bool ensure_ascii : {false, true}) {
    TemplateJsonStyle style;
    style.ensure_ascii = ensure_ascii;
    TemplateStringBuilder builder;
    if (!AppendJson(*value, style, builder).ok()) std::abort();
    const TemplateString text = builder.Build();
    const absl::StatusOr<TemplateValue> again = ParseJsonValue(text.view());
    if (!again.ok()) std::abort();
    int64_t budget = 1 << 24;
    // A byte that is no UTF-8 becomes U+FFFD where only ASCII may be written.
    if (!ensure_ascii && !ValuesEqual(*value, *again, budget)) std::abort();
  }
  return 0;
}
