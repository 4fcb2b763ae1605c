// SPDX-License-Identifier: Apache-2.0
#pragma once
// What connections take from the common accounts, given back when dropped. Internal to server/http.
#include <cstdint>
#include <memory>
#include <utility>

#include "absl/synchronization/mutex.h"
#include "server/http/connection.h"

namespace millrace {

// Charges a body's announced bytes to the account of all connections. It travels with the request, so the bytes count
// while the body waits to be parsed and no longer: an answer may take minutes. Dropped on any thread.
class BodyCharge {
 public:
  explicit BodyCharge(std::shared_ptr<ConnectionShared> shared) : shared_(std::move(shared)) {}
  ~BodyCharge() { shared_->buffered_body_bytes -= bytes_; }
  BodyCharge(const BodyCharge&) = delete;
  BodyCharge& operator=(const BodyCharge&) = delete;
  bool Add(int64_t bytes) {
    bytes_ += bytes;
    return (shared_->buffered_body_bytes += bytes) <= shared_->limits.max_buffered_body_bytes;
  }

 private:
  const std::shared_ptr<ConnectionShared> shared_;
  int64_t bytes_ = 0;
};

class ActiveRequest {
 public:
  explicit ActiveRequest(ConnectionShared& shared) : shared_(shared) {
    absl::MutexLock lock(&shared_.mu);
    ++shared_.num_active_requests;
  }
  ~ActiveRequest() {
    absl::MutexLock lock(&shared_.mu);
    --shared_.num_active_requests;
  }

 private:
  ConnectionShared& shared_;
};

}  // namespace millrace
