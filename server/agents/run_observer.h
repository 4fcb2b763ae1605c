// SPDX-License-Identifier: Apache-2.0
#pragma once
// Turns what happens to agent runs into metrics and one log line each. Thread-safe.
#include <memory>

#include "server/agents/agent_runs.h"
#include "server/log/log.h"
#include "server/metrics/metrics.h"

namespace millrace {

// `requests` hears of turns that were refused, as of any request; `log` null: no line per run. All outlive the
// observer.
std::unique_ptr<RunObserver> MakeRunObserver(Metrics& metrics, RequestObserver& requests, Log* log);

}  // namespace millrace
