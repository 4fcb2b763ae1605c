// SPDX-License-Identifier: Apache-2.0
#pragma once
// How the served model's chats call tools: what constrains the answer while it is drawn, and what takes it apart.
#include <cstdint>
#include <list>
#include <memory>
#include <span>
#include <string>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "engine/engine.h"
#include "engine/text/answer_parser.h"
#include "server/pipeline/requests.h"

namespace millrace {

// For an answer to `prompt`, the tokens of the rendered conversation.
AnswerParserOptions ParserOptions(const Engine& engine, const ChatRequest& request, std::span<const int32_t> prompt);

// Makes the grammars of requests with tools. Remembers the newest, since conversations come back with the same tools.
// Thread-safe.
class CallGrammars {
 public:
  // Lets the answer call, or makes it call, what the request says: sets the grammar, and keeps the format's markers in
  // the text. A request with a grammar of its own and no required call keeps it. InvalidArgument names "tools" or
  // "tool_choice".
  absl::Status Constrain(const Engine& engine, std::span<const int32_t> prompt, const ChatRequest& request,
                         GenerationParams& params);

 private:
  using Entry = std::pair<std::string, std::shared_ptr<const Grammar>>;
  static constexpr size_t kMaxEntries = 32;
  static constexpr size_t kMaxKeyBytes = 256 << 10;

  std::shared_ptr<const Grammar> Find(const std::string& key);
  void Keep(std::string key, std::shared_ptr<const Grammar> grammar);

  absl::Mutex mu_;
  std::list<Entry> entries_ ABSL_GUARDED_BY(mu_);  // newest first
};

}  // namespace millrace
