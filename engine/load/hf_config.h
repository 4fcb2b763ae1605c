// SPDX-License-Identifier: Apache-2.0
#pragma once
// config.json and generation_config.json of a Hugging Face directory, as ModelInfo. Plain functions, any thread.
#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "engine/load/model_info.h"

namespace millrace {

// InvalidArgument names the field and the fault; Unimplemented names what is supported.
absl::StatusOr<ModelInfo> ParseModelConfig(std::string_view config_json);
// Fills the defaults for requests and the end-of-sequence ids.
absl::Status ParseGenerationConfig(std::string_view generation_config_json, ModelInfo& info);

}  // namespace millrace
