// SPDX-License-Identifier: Apache-2.0
#include "engine/inspect.h"

#include <memory>
#include <utility>
#include <vector>

#include "engine/choose_device.h"
#include "engine/load/memory_plan.h"
#include "engine/load/model_part.h"
#include "engine/load/model_weights.h"
#include "engine/load/weight_formats.h"
#include "kernels/device.h"
#include "kernels/status_macros.h"

namespace millrace {

absl::StatusOr<ModelReport> InspectModel(const EngineOptions& options) {
  LoadOptions load{.dtype = options.dtype,
                   .load_format = options.load_format,
                   .quantization = options.quantization,
                   .dummy_seed = options.dummy_seed};
  ModelReport report;
  ASSIGN_OR_RETURN(report.info, ReadModelInfo(options.model_dir, load));
  ASSIGN_OR_RETURN(const ModelInfo part, PartOf(report.info, 0, options.tensor_parallel_size));
  ASSIGN_OR_RETURN(const RankDevices ranks,
                   ChooseDevices(options.device, options.num_threads, options.tensor_parallel_size,
                                 DeviceActivations(report.info, load)));
  load = OptionsFor(std::move(load), ranks.devices[0]->ops().activation_dtype());
  const auto plan = PlanMemory(part, load,
                               {.available_bytes = BytesForEach(ranks),
                                .utilization = options.memory_utilization,
                                .kv_cache_bytes = options.kv_cache_bytes,
                                .kv_cache_dtype = options.kv_cache_dtype,
                                .page_tokens = options.scheduler.page_tokens,
                                .max_model_tokens = options.max_model_tokens,
                                .max_sequences = options.scheduler.max_sequences,
                                .max_step_tokens = options.scheduler.max_step_tokens},
                               ranks.devices[0]->ops());
  if (plan.ok()) {
    report.memory_plan = FormatMemoryPlan(*plan);
  } else {
    report.memory_status = plan.status();
  }
  return report;
}

}  // namespace millrace
