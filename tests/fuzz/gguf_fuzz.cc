// SPDX-License-Identifier: Apache-2.0
// GGUF files: any bytes give tensors that lie inside the bytes, a model and a vocabulary, or an error.
#include <cstdint>
#include <string_view>

#include "engine/load/gguf.h"
#include "engine/load/gguf_model.h"
#include "kernels/check.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t num_bytes) {
  const std::string_view bytes(reinterpret_cast<const char*>(data), num_bytes);
  const auto file = millrace::ParseGguf(bytes);
  if (!file.ok()) return 0;
  for (const auto& [name, tensor] : file->tensors) {
    const char* begin = static_cast<const char*>(tensor.data);
    MILLRACE_CHECK(begin >= bytes.data() && begin + tensor.num_bytes <= bytes.data() + bytes.size(),
                   "a tensor lies outside the file");
  }
  for (const auto& [key, value] : file->metadata) {
    (void)file->Int(key);
    (void)file->Number(key);
    (void)file->Bool(key);
    (void)file->String(key);
    (void)file->Strings(key);
    (void)file->Floats(key);
    (void)file->Ints(key);
  }
  (void)millrace::GgufModelInfo(*file);
  (void)millrace::GgufTextOf(*file);
  return 0;
}
