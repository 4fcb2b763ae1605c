// SPDX-License-Identifier: Apache-2.0
#pragma once
// The composition root: makes every part of a server, connects them, and takes them down in order. Main thread only.
#include "server/config/serve_options.h"

namespace millrace {

// Serves until SIGTERM or SIGINT: not ready at once, running streams finish within the drain time, then 0. A second
// signal ends at once. 1 with a message on standard error when it cannot serve (or the engine is lost).
int RunServe(const ServeOptions& options);

// "0.1.0": of this build.
const char* MillraceVersion();

}  // namespace millrace
