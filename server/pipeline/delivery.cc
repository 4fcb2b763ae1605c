// SPDX-License-Identifier: Apache-2.0
#include "server/pipeline/delivery.h"

#include "absl/time/clock.h"

namespace millrace {

DeliveryThread::DeliveryThread() : thread_([this] { Run(); }) {}

void DeliveryThread::Stop() {
  absl::flat_hash_map<uint64_t, std::shared_ptr<EventReceiver>> receivers;
  {
    absl::MutexLock lock(&mu_);
    is_stopping_ = true;
    receivers.swap(receivers_);
  }
  if (thread_.joinable()) thread_.join();
}

void DeliveryThread::Register(uint64_t key, std::shared_ptr<EventReceiver> receiver) {
  absl::MutexLock lock(&mu_);
  receivers_[key] = std::move(receiver);
}

void DeliveryThread::Unregister(uint64_t key) {
  std::shared_ptr<EventReceiver> receiver;  // dies after the lock is gone
  absl::MutexLock lock(&mu_);
  const auto found = receivers_.find(key);
  if (found == receivers_.end()) return;
  receiver = std::move(found->second);
  receivers_.erase(found);
}

void DeliveryThread::Push(Item item) {
  absl::MutexLock lock(&mu_);
  if (!is_stopping_) queue_.push_back(std::move(item));
}

void DeliveryThread::Post(uint64_t key, int32_t choice, TokenEvent&& event) {
  Push({.key = key, .choice = choice, .event = std::move(event), .when = absl::Now()});
}

void DeliveryThread::PostCancelled(uint64_t key) { Push({.key = key, .choice = -1, .event = {}, .when = absl::Now()}); }

void DeliveryThread::Run() {
  const auto has_work = [this]() ABSL_SHARED_LOCKS_REQUIRED(mu_) { return !queue_.empty() || is_stopping_; };
  std::vector<Item> items;
  while (true) {
    items.clear();
    {
      absl::MutexLock lock(&mu_);
      mu_.Await(absl::Condition(&has_work));
      if (is_stopping_) return;
      items.swap(queue_);
    }
    for (Item& item : items) {
      std::shared_ptr<EventReceiver> receiver;
      {
        absl::MutexLock lock(&mu_);
        const auto found = receivers_.find(item.key);
        if (found == receivers_.end()) continue;
        receiver = found->second;
      }
      if (item.choice < 0) {
        receiver->OnCancelled(item.when);
      } else {
        receiver->OnEvent(item.choice, std::move(item.event), item.when);
      }
      if (receiver->is_over()) Unregister(item.key);
    }
  }
}

}  // namespace millrace
