// SPDX-License-Identifier: Apache-2.0
#pragma once
// What holds for a model's shape whatever file it came from. Plain functions, any thread.
#include "absl/status/status.h"
#include "engine/load/model_info.h"

namespace millrace {

// InvalidArgument names the numbers that do not go together.
absl::Status CheckShape(const ModelInfo& info);
int64_t CountParameters(const ModelInfo& info);

}  // namespace millrace
