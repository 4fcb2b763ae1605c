// SPDX-License-Identifier: Apache-2.0
#pragma once
// Cancels a run when its client leaves, which may be before the run is known. Thread-safe.
#include <memory>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "agent/cancellation.h"

namespace millrace {

class RunSwitch {
 public:
  void Connect(std::shared_ptr<Cancellation> cancellation) {
    absl::MutexLock lock(&mu_);
    cancellation_ = std::move(cancellation);
    if (is_pulled_) cancellation_->Cancel();
  }
  void Pull() {
    absl::MutexLock lock(&mu_);
    is_pulled_ = true;
    if (cancellation_ != nullptr) cancellation_->Cancel();
  }

 private:
  absl::Mutex mu_;
  std::shared_ptr<Cancellation> cancellation_ ABSL_GUARDED_BY(mu_);
  bool is_pulled_ ABSL_GUARDED_BY(mu_) = false;
};

}  // namespace millrace
