// SPDX-License-Identifier: Apache-2.0
#pragma once
// The mailbox between a ResponseWriter (any thread) and the connection that writes it out (its io thread).
// Thread-safe; coalesces everything that was queued since the io thread last looked.
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "server/http/http_server.h"

namespace millrace {

// What the io thread finds when it looks.
struct ChannelBatch {
  std::optional<HttpResponse> whole;
  std::optional<StreamOptions> begin;
  std::string bytes;
  bool is_ended = false;
  bool is_abandoned = false;  // the stream broke: cut the connection
};

class ResponseChannel {
 public:
  // `notify` wakes the io thread; called without a lock held, from any thread.
  ResponseChannel(const HttpLimits& limits, std::function<void()> notify)
      : max_bytes_(limits.max_queued_bytes), notify_(std::move(notify)), max_frames_(limits.max_queued_frames) {}

  // Writer's side.
  void Send(HttpResponse response);
  void BeginStream(StreamOptions options);
  bool Write(std::string_view bytes);
  void End();
  void Abandon();  // the writer was dropped
  void OnClose(std::function<void()> callback);
  bool is_closed() const;

  // Io side.
  ChannelBatch Take();
  void Close();     // the client is gone: later writes fail, the callback runs
  void Complete();  // everything was written: the callback is forgotten
  bool was_slow() const;

 private:
  bool Signal() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);

  const size_t max_bytes_;
  const std::function<void()> notify_;
  mutable absl::Mutex mu_;
  int64_t max_frames_ ABSL_GUARDED_BY(mu_);  // constant once the stream has begun
  ChannelBatch batch_ ABSL_GUARDED_BY(mu_);
  int64_t num_frames_ ABSL_GUARDED_BY(mu_) = 0;
  bool is_answered_ ABSL_GUARDED_BY(mu_) = false;  // Send or BeginStream happened
  bool is_stream_ ABSL_GUARDED_BY(mu_) = false;
  bool is_finished_ ABSL_GUARDED_BY(mu_) = false;  // the writer is done
  bool is_closed_ ABSL_GUARDED_BY(mu_) = false;
  bool is_slow_ ABSL_GUARDED_BY(mu_) = false;
  bool is_signalled_ ABSL_GUARDED_BY(mu_) = false;
  std::function<void()> on_close_ ABSL_GUARDED_BY(mu_);
};

// The writer handed to handlers; abandons the channel when dropped unfinished.
class ChannelWriter : public ResponseWriter {
 public:
  explicit ChannelWriter(std::shared_ptr<ResponseChannel> channel) : channel_(std::move(channel)) {}
  ~ChannelWriter() override { channel_->Abandon(); }
  void Send(HttpResponse response) override { channel_->Send(std::move(response)); }
  void BeginStream(StreamOptions options) override { channel_->BeginStream(std::move(options)); }
  bool Write(std::string_view bytes) override { return channel_->Write(bytes); }
  void End() override { channel_->End(); }
  void OnClose(std::function<void()> callback) override { channel_->OnClose(std::move(callback)); }
  bool is_closed() const override { return channel_->is_closed(); }

 private:
  const std::shared_ptr<ResponseChannel> channel_;
};

}  // namespace millrace
