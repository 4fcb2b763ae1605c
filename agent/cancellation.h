// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <sys/eventfd.h>
#include <unistd.h>

#include <atomic>
#include <cstdint>

namespace millrace {

// Says once, to whoever waits, that a result is no longer wanted. Any thread may ask or cancel; the giver keeps it
// alive until the call that got it has returned.
class Cancellation {
 public:
  Cancellation() : fd_(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)) {}
  ~Cancellation() {
    if (fd_ >= 0) close(fd_);
  }
  Cancellation(const Cancellation&) = delete;
  Cancellation& operator=(const Cancellation&) = delete;

  void Cancel() {
    is_cancelled_ = true;
    const uint64_t one = 1;
    if (fd_ >= 0 && write(fd_, &one, sizeof(one)) < 0) return;  // full: it says "cancelled" already
  }
  bool is_cancelled() const { return is_cancelled_; }

  // Readable from Cancel() on, for poll(). -1 where the process had no descriptor left; poll ignores that.
  int fd() const { return fd_; }

 private:
  std::atomic<bool> is_cancelled_{false};
  const int fd_;
};

}  // namespace millrace
