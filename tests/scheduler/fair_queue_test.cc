// SPDX-License-Identifier: Apache-2.0
#include "scheduler/fair_queue.h"

#include <catch2/catch.hpp>
#include <memory>
#include <random>
#include <vector>

namespace millrace {
namespace {

class Crowd {
 public:
  explicit Crowd(FairQueue* queue) : queue_(queue) {}
  Sequence* Add(const std::string& tenant, double weight = 1, int32_t priority = 0, bool is_long = false) {
    auto sequence = std::make_unique<Sequence>();
    sequence->arrival = all_.size();
    sequence->request.priority = priority;
    sequence->is_long = is_long;
    sequence->num_prompt_tokens = 5;
    sequence->tenant = queue_->Join({.name = tenant, .salt = 0, .weight = weight});
    queue_->Push(sequence.get());
    all_.push_back(std::move(sequence));
    return all_.back().get();
  }
  void Serve(Sequence* sequence, int32_t num_tokens) {
    queue_->Remove(sequence);
    queue_->Charge(sequence->tenant, num_tokens);
    queue_->Leave(sequence->tenant);
  }

 private:
  FairQueue* queue_;
  std::vector<std::unique_ptr<Sequence>> all_;
};

constexpr auto kAny = FairQueue::Which::kAny;

TEST_CASE("FairQueue: within a tenant lower priority goes first, then earlier arrival") {
  FairQueue queue;
  Crowd crowd(&queue);
  Sequence* late = crowd.Add("a", 1, 1);
  Sequence* second = crowd.Add("a", 1, 0);
  Sequence* third = crowd.Add("a", 1, 0);
  for (Sequence* expected : {second, third, late}) {
    REQUIRE(queue.Front(kAny) == expected);
    crowd.Serve(expected, 1);
    REQUIRE(queue.IsConsistent());
  }
  CHECK(queue.Front(kAny) == nullptr);
}

TEST_CASE("FairQueue: backlogged tenants are served in proportion to their weights") {
  FairQueue queue;
  Crowd crowd(&queue);
  std::map<std::string, double> weights = {{"a", 1}, {"b", 2}, {"c", 5}};
  std::map<std::string, int64_t> served;
  for (int i = 0; i < 2000; ++i) {
    for (const auto& [name, weight] : weights) crowd.Add(name, weight);
  }
  std::mt19937 random(3);
  for (int i = 0; i < 2000; ++i) {
    Sequence* next = queue.Front(kAny);
    const int32_t num_tokens = 1 + static_cast<int32_t>(random() % 50);
    served[next->tenant->name] += num_tokens;
    crowd.Serve(next, num_tokens);
  }
  // Start-time fair queueing: two backlogged tenants differ by at most one largest request each, per weight.
  for (const auto& [name, weight] : weights) {
    for (const auto& [other, other_weight] : weights) {
      CHECK(std::abs(served[name] / weight - served[other] / other_weight) <= 50 / weight + 50 / other_weight);
    }
  }
}

TEST_CASE("FairQueue: a tenant that was away starts at the least of the active ones") {
  FairQueue queue;
  Crowd crowd(&queue);
  for (int i = 0; i < 10; ++i) crowd.Add("busy");
  for (int i = 0; i < 5; ++i) crowd.Serve(queue.Front(kAny), 100);
  Sequence* newcomer = crowd.Add("new");
  CHECK(newcomer->tenant->served == 500);
  CHECK(queue.IsConsistent());
}

TEST_CASE("FairQueue: leaving for a moment sheds no debt while others are active") {
  FairQueue queue;
  Crowd crowd(&queue);
  crowd.Add("other");
  crowd.Serve(crowd.Add("greedy"), 1000);
  CHECK(crowd.Add("greedy")->tenant->served == 1000);
  CHECK(queue.Front(kAny)->tenant->name == "other");
}

TEST_CASE("FairQueue: short ones can be asked for past long ones") {
  FairQueue queue;
  Crowd crowd(&queue);
  Sequence* is_long = crowd.Add("a", 1, 0, /*is_long=*/true);
  Sequence* is_short = crowd.Add("a");
  CHECK(queue.Front(kAny) == is_long);
  CHECK(queue.Front(FairQueue::Which::kShort) == is_short);
  crowd.Serve(is_short, 1);
  CHECK(queue.Front(FairQueue::Which::kShort) == nullptr);
  CHECK(queue.Front(kAny) == is_long);
}

TEST_CASE("FairQueue: many tenants that come and go are forgotten") {
  FairQueue queue;
  Crowd crowd(&queue);
  crowd.Add("anchor");
  for (int i = 0; i < 10000; ++i) {
    crowd.Serve(crowd.Add("tenant" + std::to_string(i)), 3);
    if (i % 1000 == 0) REQUIRE(queue.IsConsistent());
  }
  CHECK(queue.WaitingByTenant() == std::vector<std::pair<std::string, int32_t>>{{"anchor", 1}});
}

}  // namespace
}  // namespace millrace
