// SPDX-License-Identifier: Apache-2.0
#pragma once
// A small blocking HTTP client for the commands that talk to a server, and a reader of server-sent events. One thread.
#include <functional>
#include <memory>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace millrace {

struct HttpReply {
  long status = 0;
  std::string body;  // empty where `on_bytes` took it
};

// One request. `on_bytes` (may be null) gets a 200's body as it arrives; false from it ends the transfer early, which
// is no error. Unavailable: no connection; Cancelled never.
struct HttpCall {
  std::string url;
  std::string api_key;
  std::string body;  // empty: GET, else POST of JSON
  std::function<bool(std::string_view)> on_bytes;
  std::function<bool()> is_stopped;  // asked now and then; true ends the transfer early
};
absl::StatusOr<HttpReply> CallHttp(const HttpCall& call);

// The `message` of an OpenAI error body, or its beginning as it is.
std::string ErrorMessage(std::string_view body);

// Cuts a byte stream into the payloads of its "data: " lines.
class SseReader {
 public:
  explicit SseReader(std::function<void(std::string_view)> on_data) : on_data_(std::move(on_data)) {}
  void Push(std::string_view bytes);

 private:
  const std::function<void(std::string_view)> on_data_;
  std::string line_;
};

// What one chunk of a chat or completion stream says.
struct StreamChunk {
  std::string text;
  std::string error;                   // the server's message
  int64_t num_completion_tokens = -1;  // from usage, when it is there
  int64_t num_prompt_tokens = -1;
  bool has_choice = false;
};
StreamChunk ParseStreamChunk(std::string_view json_text);

// The id of a server's first model. Unavailable, or what the server says.
absl::StatusOr<std::string> FirstModel(const std::string& url, const std::string& api_key);

}  // namespace millrace
