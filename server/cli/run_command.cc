// SPDX-License-Identifier: Apache-2.0
// From a parsed command line to what it asks for.
#include <cstdio>

#include "server/app.h"
#include "server/cli/command_line.h"

namespace millrace {
namespace {

int Complain(const absl::Status& status) {
  std::fprintf(stderr, "millrace: %s\n", std::string(status.message()).c_str());
  return 2;
}

int Serve(CommandLine& line) {
  if (absl::Status status = CheckServeOptions(line.serve); !status.ok()) return Complain(status);
  if (line.serve.checks_only) {
    if (absl::Status status = CheckServeFiles(line.serve); !status.ok()) return Complain(status);
    std::puts("the configuration is valid");
    return 0;
  }
  return RunServe(line.serve);
}

}  // namespace

int RunCommandLine(int argc, char** argv) {
  auto line = ParseCommandLine(std::vector<std::string>(argv + 1, argv + argc));
  if (!line.ok()) return Complain(line.status());
  std::fputs(line->output.c_str(), stdout);
  ApplyEnvironment(line->serve.hub);
  switch (line->command) {
    case Command::kNone:
      return 0;
    case Command::kServe:
      return Serve(*line);
    case Command::kChat:
      return RunChat(line->serve, line->client);
    case Command::kComplete:
      return RunComplete(line->serve, line->client);
    case Command::kBenchThroughput:
      return RunBenchThroughput(line->serve, line->bench_offline);
    case Command::kBenchLatency:
      return RunBenchLatency(line->serve, line->bench_offline);
    case Command::kBenchServe:
      return RunBenchServe(line->bench_serve);
    case Command::kQuantize:
      return RunQuantize(line->quantize);
    case Command::kInspect:
      return RunInspect(line->serve);
    case Command::kNewKey:
      return RunNewKey(line->new_key);
  }
  return 0;
}

}  // namespace millrace
