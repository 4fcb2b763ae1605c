// SPDX-License-Identifier: Apache-2.0
#include "engine/inspect.h"

#include <memory>
#include <utility>

#include "engine/choose_device.h"
#include "engine/load/memory_plan.h"
#include "engine/load/model_weights.h"
#include "kernels/device.h"
#include "kernels/status_macros.h"

namespace millrace {

absl::StatusOr<ModelReport> InspectModel(const EngineOptions& options) {
  const LoadOptions load{.dtype = options.dtype,
                         .load_format = options.load_format,
                         .quantization = options.quantization,
                         .dummy_seed = options.dummy_seed};
  ModelReport report;
  ASSIGN_OR_RETURN(report.info, ReadModelInfo(options.model_dir, load));
  ASSIGN_OR_RETURN(const std::unique_ptr<Device> device, ChooseDevice(options.device, options.num_threads));
  const auto plan = PlanMemory(report.info, load,
                               {.available_bytes = device->available_bytes(),
                                .utilization = options.memory_utilization,
                                .kv_cache_bytes = options.kv_cache_bytes,
                                .kv_cache_dtype = options.kv_cache_dtype,
                                .page_tokens = options.scheduler.page_tokens,
                                .max_model_tokens = options.max_model_tokens,
                                .max_sequences = options.scheduler.max_sequences,
                                .max_step_tokens = options.scheduler.max_step_tokens},
                               device->ops());
  if (plan.ok()) {
    report.memory_plan = FormatMemoryPlan(*plan);
  } else {
    report.memory_status = plan.status();
  }
  return report;
}

}  // namespace millrace
