// SPDX-License-Identifier: Apache-2.0
#pragma once
// What a model is and what it would take of memory, without loading its weights. A plain function, any thread.
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "engine/engine.h"
#include "engine/load/model_info.h"

namespace millrace {

struct ModelReport {
  ModelInfo info;
  std::string memory_plan;     // a table; empty when the plan does not fit
  absl::Status memory_status;  // why it does not fit, with the numbers
};

// Errors as of Engine::Create for the model's files; a memory plan that does not fit is part of the report.
absl::StatusOr<ModelReport> InspectModel(const EngineOptions& options);

}  // namespace millrace
