// SPDX-License-Identifier: Apache-2.0
#pragma once
// From a model's name to a running engine, with progress for a person to see. Blocks for as long as loading takes.
#include <functional>
#include <memory>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"
#include "engine/engine.h"
#include "server/config/serve_options.h"
#include "server/log/log.h"

namespace millrace {

// A directory or file as it is; org/name is fetched from the hub into its cache. Progress goes to standard error: a bar
// on a terminal, else lines of `log` (null: nothing). It is also told to `on_progress` (null: nobody); LoadModel tells
// `options.on_progress`, of fetching and loading alike.
using OnProgress = std::function<void(std::string_view stage, double fraction)>;
absl::StatusOr<std::string> FindModel(const std::string& model, const HubOptions& hub, Log* log,
                                      const OnProgress& on_progress = nullptr);
absl::StatusOr<std::unique_ptr<Engine>> LoadModel(const std::string& model, const HubOptions& hub,
                                                  EngineOptions options, Log* log);

}  // namespace millrace
