// SPDX-License-Identifier: Apache-2.0
#pragma once
// A unary reactor that other threads may answer: it ends once, whoever comes first, and lives as long as gRPC and its
// shared owners need it. Thread-safe.
#include <grpcpp/grpcpp.h>

#include <memory>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "server/grpc/grpc_backend.h"

namespace millrace {

class UnaryCall : public grpc::ServerUnaryReactor {
 public:
  explicit UnaryCall(grpc::CallbackServerContext* context) : context_(context) {}

  // Runs `fill` (which writes the response) and ends the call, unless it is over: then the response is gone.
  template <typename Fill>
  void Answer(Fill fill) {
    {
      absl::MutexLock lock(&mu_);
      if (is_over_) return;
      is_over_ = true;
    }
    Finish(ToGrpcStatus(fill(), context_));
  }
  void End(const absl::Status& status) {
    Answer([&status] { return status; });
  }

  void OnCancel() final {
    End(absl::CancelledError("the client went away"));
    OnGone();
  }
  void OnDone() final {
    std::shared_ptr<UnaryCall> last;  // may drop this object, after the hook
    {
      absl::MutexLock lock(&mu_);
      last = std::move(self_);
    }
    OnOver();
  }

 protected:
  virtual void OnGone() {}
  virtual void OnOver() {}
  // As PumpedReactor::Own.
  void Own(std::shared_ptr<UnaryCall> self) {
    absl::MutexLock lock(&mu_);
    self_ = std::move(self);
  }
  grpc::CallbackServerContext* context() const { return context_; }

 private:
  grpc::CallbackServerContext* const context_;
  absl::Mutex mu_;
  std::shared_ptr<UnaryCall> self_ ABSL_GUARDED_BY(mu_);
  bool is_over_ ABSL_GUARDED_BY(mu_) = false;
};

}  // namespace millrace
