// SPDX-License-Identifier: Apache-2.0
#pragma once
// What the gRPC services serve with, and what every call passes on its way in: the gate (drain, number of calls), the
// key, the model's name, the caller's identity. Thread-safe.
#include <grpcpp/grpcpp.h>

#include <string>
#include <string_view>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "server/auth/api_keys.h"
#include "server/pipeline/generation.h"
#include "server/pipeline/server_state.h"
#include "server/pipeline/worker_pool.h"

namespace millrace {

// All outlive the services and every job.
struct GrpcBackend {
  const ServerState& state;
  const ApiKeys& keys;
  WorkerPool& workers;        // tokenising happens there
  std::string version;        // of the server
  RequestObserver* observer;  // hears of what is refused; may be null
};

// Counts the calls under way. Closed: no new ones.
class CallGate {
 public:
  explicit CallGate(int max_calls) : max_calls_(max_calls) {}
  // ResourceExhausted: too many calls; Unavailable: closed. Every OK is followed by one Leave.
  absl::Status Enter();
  void Leave();
  void Close();
  // Blocks until the last call has left.
  void AwaitEmpty() const;
  int num_calls() const;

 private:
  const int max_calls_;
  mutable absl::Mutex mu_;
  int num_calls_ ABSL_GUARDED_BY(mu_) = 0;
  bool is_closed_ ABSL_GUARDED_BY(mu_) = false;
};

// One call's place behind the gate; leaves when dropped.
class CallTicket {
 public:
  CallTicket() = default;
  explicit CallTicket(CallGate* gate) : gate_(gate) {}
  CallTicket(CallTicket&& other) noexcept : gate_(std::exchange(other.gate_, nullptr)) {}
  CallTicket& operator=(CallTicket&& other) noexcept {
    std::swap(gate_, other.gate_);
    return *this;
  }
  ~CallTicket() {
    if (gate_ != nullptr) gate_->Leave();
  }

 private:
  CallGate* gate_ = nullptr;
};

// Who calls, but for the tenant: deadline, request id (which is put into the initial metadata).
// REQUIRES: nothing was sent yet.
Caller MakeCaller(grpc::CallbackServerContext* context, std::string_view endpoint);
// By the key in `authorization` or `x-api-key`; fills in whose it is. Unauthenticated: no or an unknown key;
// PermissionDenied: not for this.
absl::Status Authorize(const grpc::CallbackServerContext& context, const ApiKeys& api_keys, Access access,
                       Caller& caller);
// The name the model goes by. NotFound: it is not served.
absl::StatusOr<std::string> ResolveModel(const ServerState& state, const std::string& asked);

// The same code and message; the field at fault, OpenAI's code and when to try again go into the trailing metadata.
grpc::Status ToGrpcStatus(const absl::Status& status, grpc::CallbackServerContext* context);
grpc::Status ToGrpcStatus(const absl::Status& status);

// What the response cache did goes into the trailing metadata. REQUIRES: the call has not ended.
void AddCacheMetadata(const CacheReport& report, grpc::CallbackServerContext* context);

// Tells the observer that a request will not run.
void NoteRefusal(const GrpcBackend& backend, const Caller& caller, const absl::Status& status);

}  // namespace millrace
