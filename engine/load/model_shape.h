// SPDX-License-Identifier: Apache-2.0
#pragma once
// What holds for a model's shape whatever file it came from. Plain functions, any thread.
#include "absl/status/status.h"
#include "engine/load/model_info.h"

namespace millrace {

// InvalidArgument names the numbers that do not go together, Unimplemented those that are too large.
absl::Status CheckShape(const ModelInfo& info);
int64_t CountParameters(const ModelInfo& info);
bool HasExperts(const ModelInfo& info, int32_t layer);
// F of the layers without experts; 0 when there are none.
int32_t DenseFfnDim(const ModelInfo& info);

}  // namespace millrace
