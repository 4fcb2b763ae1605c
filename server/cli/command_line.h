// SPDX-License-Identifier: Apache-2.0
#pragma once
// The `millrace` program: its commands, their flags and help. Everything of the command-line library stays in the .cc.
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "server/cli/bench_offline.h"
#include "server/cli/bench_serve.h"
#include "server/cli/chat.h"
#include "server/cli/inspect.h"
#include "server/cli/new_key.h"
#include "server/config/serve_options.h"

namespace millrace {

enum class Command : uint8_t {
  kNone,  // help or version was printed
  kServe,
  kChat,
  kComplete,
  kBenchThroughput,
  kBenchLatency,
  kBenchServe,
  kQuantize,
  kInspect,
  kNewKey,
};

struct CommandLine {
  Command command = Command::kNone;
  ServeOptions serve;    // kServe; its engine part also for the other commands that load a model
  ClientOptions client;  // kChat, kComplete
  BenchOfflineOptions bench_offline;
  BenchServeOptions bench_serve;
  QuantizeOptions quantize;
  NewKeyOptions new_key;
  std::string output;  // what --help, --version or --check-config say
};

// `arguments` without the program's name. InvalidArgument: a message for the user, with the nearest flag where a flag
// or a config key is unknown; faults of a config file name its path and line.
absl::StatusOr<CommandLine> ParseCommandLine(const std::vector<std::string>& arguments);

// The whole program; returns its exit code.
int RunCommandLine(int argc, char** argv);

}  // namespace millrace
