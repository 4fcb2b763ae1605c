// SPDX-License-Identifier: Apache-2.0
#include "server/cli/chat.h"

#include <signal.h>
#include <unistd.h>

#include <atomic>
#include <cstdio>
#include <iostream>
#include <iterator>

#include "server/cli/answer_source.h"

namespace millrace {
namespace {

// Set by Ctrl-C; a signal handler can reach nothing else.
std::atomic<bool> interrupted{false};

void OnInterrupt(int) { interrupted = true; }

void CatchInterrupts() {
  struct sigaction action = {};
  action.sa_handler = &OnInterrupt;  // without SA_RESTART, so that reading a line ends too
  sigaction(SIGINT, &action, nullptr);
  signal(SIGPIPE, SIG_IGN);
}

int Complain(const absl::Status& status) {
  std::fprintf(stderr, "millrace: %s\n", std::string(status.message()).c_str());
  return 1;
}

absl::StatusOr<std::unique_ptr<AnswerSource>> MakeSource(const ServeOptions& serve, const ClientOptions& options) {
  return options.url.empty() ? MakeLocalSource(serve, options) : MakeRemoteSource(options);
}

void PrintText(std::string_view text) {
  std::fwrite(text.data(), 1, text.size(), stdout);
  std::fflush(stdout);
}

// One question and its answer; the answer (or what came of it) joins the lines.
absl::Status Ask(AnswerSource& source, std::string question, std::vector<ChatLine>& lines) {
  lines.push_back({"user", std::move(question)});
  std::string answer;
  interrupted = false;
  const absl::Status status = source.Chat(
      lines,
      [&](std::string_view text) {
        PrintText(text);
        answer += text;
      },
      [] { return interrupted.load(); });
  std::puts(interrupted ? " [stopped]" : "");
  interrupted = false;
  if (!status.ok()) {
    lines.pop_back();
    return status;
  }
  lines.push_back({"assistant", std::move(answer)});
  return status;
}

}  // namespace

int RunChat(const ServeOptions& serve, const ClientOptions& options) {
  CatchInterrupts();
  auto source = MakeSource(serve, options);
  if (!source.ok()) return Complain(source.status());
  std::vector<ChatLine> lines;
  const auto restart = [&] {
    lines.clear();
    if (!options.system_prompt.empty()) lines.push_back({"system", options.system_prompt});
  };
  restart();
  if (!options.prompt.empty()) {
    const absl::Status status = Ask(**source, options.prompt, lines);
    return status.ok() ? 0 : Complain(status);
  }
  const bool is_terminal = isatty(STDIN_FILENO) == 1;
  if (is_terminal) std::puts("Ctrl-C stops an answer; /clear forgets the conversation; /exit or Ctrl-D ends.");
  int code = 0;
  std::string line;
  while (true) {
    if (is_terminal) PrintText("> ");
    if (!std::getline(std::cin, line)) break;
    if (line.empty()) continue;
    if (line == "/exit" || line == "/quit") break;
    if (line == "/clear") {
      restart();
      continue;
    }
    if (absl::Status status = Ask(**source, line, lines); !status.ok()) {
      code = Complain(status);
      if (!is_terminal) break;
    }
  }
  if (is_terminal) std::puts("");
  return is_terminal ? 0 : code;
}

int RunComplete(const ServeOptions& serve, const ClientOptions& given) {
  CatchInterrupts();
  ClientOptions options = given;
  if (options.prompt.empty()) {
    options.prompt.assign(std::istreambuf_iterator<char>(std::cin), std::istreambuf_iterator<char>());
    while (!options.prompt.empty() && options.prompt.back() == '\n') options.prompt.pop_back();
  }
  if (options.prompt.empty()) return Complain(absl::InvalidArgumentError("no text: give --prompt or standard input"));
  if (options.max_tokens == 0) options.max_tokens = 128;
  auto source = MakeSource(serve, options);
  if (!source.ok()) return Complain(source.status());
  const absl::Status status = (*source)->Complete(options.prompt, PrintText, [] { return interrupted.load(); });
  std::puts("");
  return status.ok() ? 0 : Complain(status);
}

}  // namespace millrace
