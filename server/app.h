// SPDX-License-Identifier: Apache-2.0
#pragma once
// The composition root: makes every part of a server, connects them, and takes them down in order. Main thread only.
#include <functional>
#include <memory>

#include "absl/status/statusor.h"
#include "server/config/serve_options.h"
#include "server/log/log.h"

namespace millrace {

// Makes a server's engine: called once, on a thread of its own, when the server listens. Blocks as long as it takes.
using EngineLoader = std::function<absl::StatusOr<std::unique_ptr<Engine>>(EngineOptions options, Log& log)>;

// Serves until SIGTERM or SIGINT: not ready at once, running streams finish within the drain time, then 0. A second
// signal ends at once, whatever is being waited for. 1 with a message on standard error when it cannot serve, and when
// the engine is lost or stuck: a step that never ends cannot keep the process.
int RunServe(const ServeOptions& options);
int RunServe(const ServeOptions& options, const EngineLoader& load);

// "0.1.0": of this build.
const char* MillraceVersion();

}  // namespace millrace
