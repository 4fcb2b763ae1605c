// SPDX-License-Identifier: Apache-2.0
#include "server/http/response_channel.h"

#include <algorithm>
#include <utility>

namespace millrace {

bool ResponseChannel::Signal() { return !std::exchange(is_signalled_, true); }

void ResponseChannel::Send(HttpResponse response) {
  {
    absl::MutexLock lock(&mu_);
    if (is_answered_ || is_finished_) return;
    is_answered_ = is_finished_ = true;
    batch_.whole = std::move(response);
    batch_.is_ended = true;
    if (!Signal()) return;
  }
  notify_();
}

void ResponseChannel::BeginStream(StreamOptions options) {
  {
    absl::MutexLock lock(&mu_);
    if (is_answered_ || is_finished_) return;
    is_answered_ = is_stream_ = true;
    max_frames_ *= std::max<int64_t>(1, options.num_choices);
    batch_.begin = std::move(options);
    if (!Signal()) return;
  }
  notify_();
}

bool ResponseChannel::Write(std::string_view bytes) {
  std::function<void()> forgotten;
  {
    absl::MutexLock lock(&mu_);
    if (is_closed_ || is_finished_ || !is_stream_) return false;
    if (num_frames_ >= max_frames_ || batch_.bytes.size() + bytes.size() > max_bytes_) {
      // A reader this slow would make us buffer without end: cut it off. The caller learns it from our answer.
      is_closed_ = is_slow_ = is_finished_ = true;
      batch_.is_abandoned = true;
      forgotten = std::exchange(on_close_, nullptr);
    } else {
      batch_.bytes.append(bytes);
      ++num_frames_;
      if (!Signal()) return true;
    }
  }
  notify_();
  return !forgotten && !is_closed();
}

void ResponseChannel::End() {
  {
    absl::MutexLock lock(&mu_);
    if (is_finished_) return;
    is_finished_ = true;
    batch_.is_ended = true;
    if (!Signal()) return;
  }
  notify_();
}

void ResponseChannel::Abandon() {
  bool is_unanswered = false;
  std::function<void()> forgotten;
  {
    absl::MutexLock lock(&mu_);
    forgotten = std::exchange(on_close_, nullptr);
    if (is_finished_) return;
    is_unanswered = !is_answered_;
    if (!is_unanswered) {
      is_finished_ = batch_.is_abandoned = true;
      if (!Signal()) return;
    }
  }
  if (is_unanswered) {
    Send(HttpResponse{.status = 500,
                      .content_type = "application/json",
                      .headers = {},
                      .body = R"({"error":{"message":"the request was dropped","type":"server_error","param":null,)"
                              R"("code":"internal_error"}})"});
    return;
  }
  notify_();
}

void ResponseChannel::OnClose(std::function<void()> callback) {
  std::function<void()> earlier;  // dies after the lock is gone
  {
    absl::MutexLock lock(&mu_);
    if (!is_closed_) {
      if (!is_finished_) earlier = std::exchange(on_close_, std::move(callback));
      return;
    }
  }
  if (callback) callback();
}

bool ResponseChannel::is_closed() const {
  absl::MutexLock lock(&mu_);
  return is_closed_;
}

ChannelBatch ResponseChannel::Take() {
  absl::MutexLock lock(&mu_);
  is_signalled_ = false;
  num_frames_ = 0;
  return std::exchange(batch_, ChannelBatch{});
}

void ResponseChannel::Close() {
  std::function<void()> on_close;
  {
    absl::MutexLock lock(&mu_);
    if (is_closed_) return;
    is_closed_ = true;
    on_close = std::exchange(on_close_, nullptr);
  }
  if (on_close) on_close();
}

void ResponseChannel::Complete() {
  std::function<void()> forgotten;  // destroyed after the lock is gone: it may own the writer
  absl::MutexLock lock(&mu_);
  is_finished_ = true;
  forgotten = std::exchange(on_close_, nullptr);
}

bool ResponseChannel::was_slow() const {
  absl::MutexLock lock(&mu_);
  return is_slow_;
}

}  // namespace millrace
