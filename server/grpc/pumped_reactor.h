// SPDX-License-Identifier: Apache-2.0
#pragma once
// A streaming reactor that any thread may push messages into: at most one write is under way, the rest wait in a
// bounded queue, the end comes after them. Thread-safe. It lives as long as gRPC and its shared owners need it.
//
// gRPC may run a callback inside StartWrite or Finish, so neither is called under the lock.
#include <grpcpp/grpcpp.h>

#include <deque>
#include <memory>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "server/grpc/grpc_backend.h"

namespace millrace {

// `Base`: grpc::ServerWriteReactor<Response> or grpc::ServerBidiReactor<Request, Response>.
template <typename Base, typename Response>
class PumpedReactor : public Base {
 public:
  static constexpr size_t kMaxQueuedMessages = 8192;
  static constexpr size_t kMaxQueuedBytes = 8 << 20;  // as they will be on the wire

  explicit PumpedReactor(grpc::CallbackServerContext* context) : context_(context) {}

  // Queues a message. False: the client is gone, or reads so slowly that the queue is full (then the call is
  // cancelled).
  bool Push(Response response) {
    const Response* next = nullptr;
    bool is_slow = false;
    const size_t num_bytes = response.ByteSizeLong();
    {
      absl::MutexLock lock(&mu_);
      if (is_ending_ || is_gone_) return false;
      is_slow = queue_.size() >= kMaxQueuedMessages || num_queued_bytes_ > kMaxQueuedBytes;
      if (is_slow) {
        is_gone_ = true;
      } else {
        num_queued_bytes_ += num_bytes;
        queue_.push_back(std::move(response));
        if (!is_writing_) next = BeginWrite();
      }
    }
    if (is_slow) context_->TryCancel();
    if (next != nullptr) this->StartWrite(next);
    return !is_slow;
  }

  // Before the end; afterwards the call may be gone.
  void NoteCache(const CacheReport& report) {
    absl::MutexLock lock(&mu_);
    if (!is_ending_) AddCacheMetadata(report, context_);
  }

  // After what is queued. Only the first call counts.
  void End(const absl::Status& status) {
    {
      absl::MutexLock lock(&mu_);
      if (is_ending_) return;
      is_ending_ = true;
      status_ = ToGrpcStatus(status, context_);
      if (is_writing_) return;
    }
    this->Finish(status_);
  }

  void OnWriteDone(bool ok) final {
    const Response* next = nullptr;
    bool must_finish = false;
    {
      absl::MutexLock lock(&mu_);
      is_writing_ = false;
      num_queued_bytes_ -= queue_.front().ByteSizeLong();
      queue_.pop_front();
      if (!ok) {
        is_gone_ = true;
        queue_.clear();
      }
      if (!queue_.empty()) next = BeginWrite();
      must_finish = is_ending_ && next == nullptr;
    }
    if (next != nullptr) return this->StartWrite(next);
    if (must_finish) return this->Finish(status_);
    if (!ok) OnGone();
  }

  void OnCancel() final {
    {
      absl::MutexLock lock(&mu_);
      is_gone_ = true;
    }
    OnGone();
  }

  void OnDone() final {
    std::shared_ptr<PumpedReactor> last;  // may drop this object, after the hook
    {
      absl::MutexLock lock(&mu_);
      last = std::move(self_);
    }
    OnOver();
  }

 protected:
  // The client went away (cancelled, or a write failed); may come twice. The default ends the call.
  virtual void OnGone() { End(absl::CancelledError("the client went away")); }
  // gRPC is done with this object.
  virtual void OnOver() {}
  // gRPC's own share in the object; call last before gRPC gets it. What was written until now is seen by its callbacks:
  // gRPC promises that too, and the lock shows it to sanitizers, which cannot look into gRPC.
  void Own(std::shared_ptr<PumpedReactor> self) {
    absl::MutexLock lock(&mu_);
    self_ = std::move(self);
  }
  grpc::CallbackServerContext* context() const { return context_; }

 private:
  const Response* BeginWrite() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) {
    is_writing_ = true;
    return &queue_.front();  // stays in place: a deque's ends grow without moving it
  }

  grpc::CallbackServerContext* const context_;
  absl::Mutex mu_;
  std::shared_ptr<PumpedReactor> self_ ABSL_GUARDED_BY(mu_);
  std::deque<Response> queue_ ABSL_GUARDED_BY(mu_);
  size_t num_queued_bytes_ ABSL_GUARDED_BY(mu_) = 0;
  bool is_writing_ ABSL_GUARDED_BY(mu_) = false;
  bool is_gone_ ABSL_GUARDED_BY(mu_) = false;
  bool is_ending_ ABSL_GUARDED_BY(mu_) = false;
  grpc::Status status_;  // written once, before is_ending_ lets anyone read it
};

}  // namespace millrace
