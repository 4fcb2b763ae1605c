// SPDX-License-Identifier: Apache-2.0
// config.json and generation_config.json: any bytes give a model whose numbers go together, or an error.
#include <cstdint>
#include <string_view>

#include "engine/load/hf_config.h"
#include "engine/run/rope_table.h"
#include "kernels/check.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t num_bytes) {
  const std::string_view bytes(reinterpret_cast<const char*>(data), num_bytes);
  const auto info = millrace::ParseModelConfig(bytes);
  if (info.ok()) {
    MILLRACE_CHECK(info->num_heads % info->num_kv_heads == 0 && info->head_dim % 2 == 0 && info->max_positions > 0,
                   "the shape does not go together");
    const millrace::RopeTables tables(info->rope, info->head_dim, 4);
  }
  millrace::ModelInfo defaults;
  (void)millrace::ParseGenerationConfig(bytes, defaults);
  return 0;
}
