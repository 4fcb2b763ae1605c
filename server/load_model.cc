// SPDX-License-Identifier: Apache-2.0
#include "server/load_model.h"

#include <filesystem>
#include <utility>

#include "absl/strings/str_cat.h"
#include "server/cli/progress.h"

namespace millrace {

absl::StatusOr<std::string> FindModel(const std::string& model, const HubOptions& hub, Log* log) {
  std::error_code error;
  if (std::filesystem::exists(model, error)) return model;
  return absl::NotFoundError(absl::StrCat("there is no file or directory ", model));
}

absl::StatusOr<std::unique_ptr<Engine>> LoadModel(const std::string& model, const HubOptions& hub,
                                                  EngineOptions options, Log* log) {
  auto path = FindModel(model, hub, log);
  if (!path.ok()) return path.status();
  options.model_dir = *std::move(path);
  ProgressBar bar(log);
  options.on_progress = [&bar](std::string_view stage, double fraction) { bar.Show(stage, fraction); };
  options.on_memory_plan = [&bar](std::string_view table) { bar.Print("memory plan", table); };
  auto engine = Engine::Create(options);
  bar.Clear();
  return engine;
}

}  // namespace millrace
