// SPDX-License-Identifier: Apache-2.0
#pragma once
// Where the chat and complete commands get their answers: a model in this process or a server. Main thread.
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "server/cli/chat.h"

namespace millrace {

struct ChatLine {
  std::string role;
  std::string text;
};

class AnswerSource {
 public:
  using OnText = std::function<void(std::string_view)>;
  using IsStopped = std::function<bool()>;
  virtual ~AnswerSource() = default;
  // Streams the answer's text; returns when it is complete or `is_stopped` says so.
  virtual absl::Status Chat(const std::vector<ChatLine>& lines, const OnText& on_text, const IsStopped& is_stopped) = 0;
  virtual absl::Status Complete(const std::string& prompt, const OnText& on_text, const IsStopped& is_stopped) = 0;
};

absl::StatusOr<std::unique_ptr<AnswerSource>> MakeRemoteSource(const ClientOptions& options);
// Loads the model.
absl::StatusOr<std::unique_ptr<AnswerSource>> MakeLocalSource(const ServeOptions& serve, const ClientOptions& options);

}  // namespace millrace
