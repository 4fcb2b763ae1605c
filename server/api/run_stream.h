// SPDX-License-Identifier: Apache-2.0
#pragma once
// The answer of an agent run on its way to one client, whole or as a stream, and what cancels the run when the client
// leaves. Used by the run's thread; CancelOnClose by the one that started it.
#include <memory>
#include <string>
#include <string_view>

#include "agent/cancellation.h"
#include "server/agents/run_switch.h"
#include "server/http/http_server.h"

namespace millrace {

class RunStream {
 public:
  // `options`: of the stream, if it comes to one.
  RunStream(std::shared_ptr<ResponseWriter> writer, StreamOptions options)
      : writer_(std::move(writer)), options_(std::move(options)), switch_(std::make_shared<RunSwitch>()) {}

  // The first call begins the stream.
  void Write(std::string_view bytes);
  void End() { writer_->End(); }
  // The whole answer. REQUIRES: nothing was written.
  void Send(HttpResponse response) { writer_->Send(std::move(response)); }
  bool has_begun() const { return has_begun_; }

  // Whenever the client leaves, or has left already.
  void CancelOnClose(std::shared_ptr<Cancellation> cancellation);

 private:
  const std::shared_ptr<ResponseWriter> writer_;
  const StreamOptions options_;
  const std::shared_ptr<RunSwitch> switch_;
  bool has_begun_ = false;
};

}  // namespace millrace
