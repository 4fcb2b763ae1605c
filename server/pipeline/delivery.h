// SPDX-License-Identifier: Apache-2.0
#pragma once
// The delivery threads: take token events from the engine's thread, turn them into text deltas, hand them to sinks.
// Each generation belongs to one of the threads, so its deltas never overlap.
#include <cstdint>
#include <memory>
#include <thread>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/container/flat_hash_map.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "engine/engine.h"

namespace millrace {

// One generation's share of the delivery work; all calls on its delivery thread.
class EventReceiver {
 public:
  virtual ~EventReceiver() = default;
  virtual void OnEvent(int32_t choice, TokenEvent&& event, absl::Time when) = 0;
  // The generation was dropped: nobody listens any more.
  virtual void OnCancelled(absl::Time when) = 0;
  // After either of the above: true means no more events are needed.
  virtual bool is_over() const = 0;
};

// One thread and its queue. Post is called by the engine's thread and must stay cheap; the receiver is found by key, so
// that what the engine holds (and may destroy under its locks) is only a number.
class DeliveryThread {
 public:
  DeliveryThread();
  ~DeliveryThread() { Stop(); }
  // Joins; undelivered events are dropped, later ones ignored. Its owner calls it, on another thread: the last
  // reference may well be dropped by a receiver, on this one.
  void Stop();
  void Register(uint64_t key, std::shared_ptr<EventReceiver> receiver);
  void Post(uint64_t key, int32_t choice, TokenEvent&& event);
  void PostCancelled(uint64_t key);
  // Forgets a receiver without another call to it (a submission that failed half-way).
  void Unregister(uint64_t key);

 private:
  struct Item {
    uint64_t key = 0;
    int32_t choice = -1;  // -1: cancelled
    TokenEvent event;
    absl::Time when;
  };
  void Run();
  void Push(Item item);

  absl::Mutex mu_;
  std::vector<Item> queue_ ABSL_GUARDED_BY(mu_);
  absl::flat_hash_map<uint64_t, std::shared_ptr<EventReceiver>> receivers_ ABSL_GUARDED_BY(mu_);
  bool is_stopping_ ABSL_GUARDED_BY(mu_) = false;
  std::thread thread_;
};

}  // namespace millrace
