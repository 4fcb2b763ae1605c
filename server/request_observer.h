// SPDX-License-Identifier: Apache-2.0
#pragma once
// Turns what happens to requests into metrics, usage and one log line each. Thread-safe.
#include <memory>

#include "server/log/log.h"
#include "server/metrics/metrics.h"
#include "server/pipeline/generation.h"
#include "server/usage/usage_ledger.h"

namespace millrace {

// `log` null: no line per request; `usage` null: nobody counts. All outlive the observer.
std::unique_ptr<RequestObserver> MakeRequestObserver(Metrics& metrics, Log* log, UsageLedger* usage = nullptr);

}  // namespace millrace
