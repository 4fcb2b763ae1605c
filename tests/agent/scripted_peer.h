// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <unistd.h>

#include <algorithm>
#include <csignal>
#include <functional>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "agent/mcp/channel.h"
#include "agent/mcp/json_rpc.h"
#include "agent/sandbox/pipe.h"
#include "engine/text/template_json.h"

namespace millrace {

// The other side of a channel: a thread that reads lines and does with each what the script says. Its owner keeps it
// until the channel is gone.
class ScriptedPeer {
 public:
  struct Line {
    std::string method;  // empty: an answer
    std::string id;      // JSON; empty: none
    TemplateValue params;
    std::string text;
  };
  using Script = std::function<void(ScriptedPeer& peer, const Line& line)>;

  explicit ScriptedPeer(Script script) : script_(std::move(script)) {}
  ~ScriptedPeer() {
    if (thread_.joinable()) thread_.join();
  }

  // For McpChannel::Open; once.
  absl::StatusOr<McpPeer> Launch() {
    absl::StatusOr<Pipe> input = MakePipe(OurEnd::kWriter);
    absl::StatusOr<Pipe> output = MakePipe(OurEnd::kReader);
    absl::StatusOr<Pipe> errors = MakePipe(OurEnd::kReader);
    if (!input.ok() || !output.ok() || !errors.ok()) return absl::InternalError("no pipe");
    reader_ = std::move(input->reader);
    writer_ = std::move(output->writer);
    error_writer_ = std::move(errors->writer);
    thread_ = std::thread([this] { Work(); });
    return McpPeer{.input = std::move(input->writer),
                   .output = std::move(output->reader),
                   .errors = std::move(errors->reader),
                   .process = {}};
  }

  // Of the script's thread. False: nobody reads it any more.
  bool Write(std::string_view bytes) { return WriteTo(writer_.get(), bytes); }
  bool WriteError(std::string_view bytes) { return WriteTo(error_writer_.get(), bytes); }
  // `result` may be written in several lines.
  void Result(const Line& line, std::string result) {
    std::replace(result.begin(), result.end(), '\n', ' ');
    Write(absl::StrCat(R"({"jsonrpc":"2.0","id":)", line.id, R"(,"result":)", result, "}\n"));
  }
  void Failure(const Line& line, int64_t code, std::string_view message) {
    Write(RpcFailureLine(line.id, code, message));
  }
  void Close() { writer_.Close(); }

  // Everything that was sent, as it was sent.
  std::vector<std::string> lines() const {
    absl::MutexLock lock(&mu_);
    return lines_;
  }
  // Until a line holds this text, or 30 s have gone.
  bool WaitFor(std::string_view text) const {
    const auto is_there = [&]() ABSL_SHARED_LOCKS_REQUIRED(mu_) {
      for (const std::string& line : lines_) {
        if (line.find(text) != line.npos) return true;
      }
      return false;
    };
    absl::MutexLock lock(&mu_);
    return mu_.AwaitWithTimeout(absl::Condition(&is_there), absl::Seconds(30));
  }

 private:
  static bool WriteTo(int fd, std::string_view bytes) {
    while (!bytes.empty()) {
      const ssize_t written = write(fd, bytes.data(), bytes.size());
      if (written <= 0) return false;
      bytes.remove_prefix(static_cast<size_t>(written));
    }
    return true;
  }

  void Work() {
    // Whoever writes to a closed pipe shall see an error here, and no more.
    sigset_t broken_pipe;
    sigemptyset(&broken_pipe);
    sigaddset(&broken_pipe, SIGPIPE);
    pthread_sigmask(SIG_BLOCK, &broken_pipe, nullptr);
    LineSplitter splitter(kMaxRpcLineBytes);
    char piece[4096];
    for (ssize_t bytes = 0; (bytes = read(reader_.get(), piece, sizeof(piece))) > 0;) {
      std::vector<std::string> lines;
      if (!splitter.Push({piece, static_cast<size_t>(bytes)}, lines).ok()) break;
      for (const std::string& text : lines) {
        {
          absl::MutexLock lock(&mu_);
          lines_.push_back(text);
        }
        script_(*this, Read(text));
      }
    }
    writer_.Close();
    error_writer_.Close();
  }

  static Line Read(const std::string& text) {
    Line line{.text = text};
    const auto value = ParseJsonValue(text);
    if (!value.ok() || !value->is_dict()) return line;
    if (const TemplateValue* method = value->as_dict().Find("method"); method != nullptr) line.method = method->text();
    if (const TemplateValue* id = value->as_dict().Find("id"); id != nullptr) line.id = *CompactJson(*id);
    if (const TemplateValue* params = value->as_dict().Find("params"); params != nullptr) line.params = *params;
    return line;
  }

  const Script script_;
  UniqueFd reader_, writer_, error_writer_;
  mutable absl::Mutex mu_;
  std::vector<std::string> lines_ ABSL_GUARDED_BY(mu_);
  std::thread thread_;
};

// What a well-behaved server of the given tools does: answers of tools/call apart, which `on_call` gives.
struct PoliteScript {
  std::string tools = R"([{"name":"echo","description":"Says it again.","inputSchema":{"type":"object"}}])";
  bool is_old = false;  // knows the handshake alone
  std::function<void(ScriptedPeer& peer, const ScriptedPeer::Line& line)> on_call;

  void operator()(ScriptedPeer& peer, const ScriptedPeer::Line& line) const {
    if (line.method == "server/discover") {
      if (is_old) return peer.Failure(line, -32601, "Method not found");
      return peer.Result(line, R"({"supportedVersions":["2026-07-28"],"capabilities":{"tools":{}},"ttlMs":0,)"
                               R"("cacheScope":"private","resultType":"complete"})");
    }
    if (line.method == "initialize") {
      return peer.Result(line, R"({"protocolVersion":"2025-11-25","capabilities":{},"serverInfo":{}})");
    }
    if (line.method == "tools/list") return peer.Result(line, absl::StrCat(R"({"tools":)", tools, "}"));
    if (line.method != "tools/call") return;
    if (on_call) return on_call(peer, line);
    const auto text = CompactJson(*line.params.as_dict().Find("arguments"));
    peer.Result(line,
                absl::StrCat(R"({"content":[{"type":"text","text":)", *CompactJson(TemplateValue::Text(*text)), "}]}"));
  }
};

}  // namespace millrace
