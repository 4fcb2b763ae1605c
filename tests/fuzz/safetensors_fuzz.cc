// SPDX-License-Identifier: Apache-2.0
// Safetensors headers and shard indexes: any bytes give tensors that lie inside the bytes, or an error.
#include <cstdint>
#include <string_view>

#include "engine/load/hf_files.h"
#include "engine/load/safetensors.h"
#include "kernels/check.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t num_bytes) {
  const std::string_view bytes(reinterpret_cast<const char*>(data), num_bytes);
  if (const auto tensors = millrace::ParseSafetensors(bytes); tensors.ok()) {
    for (const auto& [name, view] : *tensors) {
      const char* begin = static_cast<const char*>(view.data);
      MILLRACE_CHECK(begin >= bytes.data() && begin + view.num_bytes <= bytes.data() + bytes.size(),
                     "a tensor lies outside the file");
    }
  }
  (void)millrace::ParseShardIndex(bytes);
  return 0;
}
