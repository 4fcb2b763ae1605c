// SPDX-License-Identifier: Apache-2.0
#include "server/load_model.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "engine/hub/hub_client.h"
#include "server/cli/progress.h"

namespace millrace {

absl::StatusOr<std::string> FindModel(const std::string& model, const HubOptions& hub, Log* log,
                                      const OnProgress& on_progress) {
  ProgressBar bar(log);
  auto path = ResolveModel(model, hub, [&](const HubProgress& progress) {
    if (progress.total_bytes == 0) return;
    const double fraction = static_cast<double>(progress.done_bytes) / static_cast<double>(progress.total_bytes);
    bar.Show(absl::StrCat("fetching ", model), fraction);
    if (on_progress) on_progress("fetching", fraction);
  });
  bar.Clear();
  return path;
}

absl::StatusOr<std::unique_ptr<Engine>> LoadModel(const std::string& model, const HubOptions& hub,
                                                  EngineOptions options, Log* log) {
  auto path = FindModel(model, hub, log, options.on_progress);
  if (!path.ok()) return path.status();
  options.model_dir = *std::move(path);
  ProgressBar bar(log);
  options.on_progress = [&bar, told = options.on_progress](std::string_view stage, double fraction) {
    bar.Show(stage, fraction);
    if (told) told(stage, fraction);
  };
  options.on_memory_plan = [&bar](std::string_view table) { bar.Print("memory plan", table); };
  auto engine = Engine::Create(options);
  bar.Clear();
  return engine;
}

}  // namespace millrace
