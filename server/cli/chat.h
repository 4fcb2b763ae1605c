// SPDX-License-Identifier: Apache-2.0
#pragma once
// `millrace chat` and `millrace complete`: a model in this process, or a server by its URL. Main thread.
#include <optional>
#include <string>

#include "server/config/serve_options.h"

namespace millrace {

struct ClientOptions {
  std::string url;  // empty: load serve.model in this process
  std::string api_key;
  std::string model;  // the name to ask a server for; empty: its first
  std::string system_prompt;
  std::string prompt;  // complete: the text; chat: one question, then stop. Empty: read standard input
  std::optional<float> temperature;
  std::optional<float> top_p;
  std::optional<uint64_t> seed;
  int max_tokens = 0;  // 0: as the server likes (complete: 128)
};

// Reads lines, streams answers; Ctrl-C stops an answer, then the program. Without a terminal each line of standard
// input is a question. Exit code.
int RunChat(const ServeOptions& serve, const ClientOptions& options);
// Prints the completion of one text. Exit code.
int RunComplete(const ServeOptions& serve, const ClientOptions& options);

}  // namespace millrace
