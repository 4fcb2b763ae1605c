// SPDX-License-Identifier: Apache-2.0
#pragma once
// What connections take from the common account, given back when dropped. Internal to server/http; io threads.
#include <cstdint>

#include "absl/synchronization/mutex.h"
#include "server/http/connection.h"

namespace millrace {

// Charges a body's announced bytes to the account of all connections.
class BodyCharge {
 public:
  explicit BodyCharge(ConnectionShared& shared) : shared_(shared) {}
  ~BodyCharge() { shared_.buffered_body_bytes -= bytes_; }
  bool Add(int64_t bytes) {
    bytes_ += bytes;
    return (shared_.buffered_body_bytes += bytes) <= shared_.limits.max_buffered_body_bytes;
  }

 private:
  ConnectionShared& shared_;
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
