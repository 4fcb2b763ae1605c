// SPDX-License-Identifier: Apache-2.0
#pragma once
// Waiting requests, shared fairly between tenants: the tenant with the least tokens served per weight goes first
// (start-time fair queueing after Goyal, Vin and Cheng, 1996); within a tenant lower priority, then earlier arrival.
// A tenant that comes back starts no lower than the least of the active ones: idleness saves nothing up.
// Owned by the scheduler; engine thread only.
#include <array>
#include <cstdint>
#include <memory>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "scheduler/sequence.h"

namespace millrace {

// One tenant's books. Only FairQueue changes them, but for `num_leaving`.
struct TenantAccount {
  std::string name;
  double weight = 1;
  double served = 0;        // virtual time: tokens per weight
  uint64_t serial = 0;      // order of first appearance, breaks ties
  int32_t num_live = 0;     // requests waiting or running
  int32_t num_leaving = 0;  // running, and about to be displaced
  std::set<Sequence*, BetterSequence> waiting;
  std::set<Sequence*, BetterSequence> short_waiting;  // those of `waiting` that are not long
  std::array<bool, 3> is_listed = {};                 // in which of the queue's heaps
  int32_t num_running() const { return num_live - static_cast<int32_t>(waiting.size()) - num_leaving; }
};

class FairQueue {
 public:
  enum class Which { kAny, kShort };

  // A request of this tenant begins to live; Leave ends it. The account stays valid in between.
  TenantAccount* Join(const Tenant& tenant);
  void Leave(TenantAccount* account);

  void Push(Sequence* sequence);
  void Remove(Sequence* sequence);
  // The next to admit (kShort: among those that are not long), or null. Amortised O(log tenants).
  Sequence* Front(Which which);
  // The tenant was served `num_tokens`. O(1).
  void Charge(TenantAccount* account, int32_t num_tokens) { account->served += num_tokens / account->weight; }

  int32_t num_waiting() const { return num_waiting_; }
  int64_t num_waiting_tokens() const { return num_waiting_tokens_; }
  std::vector<std::pair<std::string, int32_t>> WaitingByTenant() const;  // ordered by name
  bool IsConsistent() const;

 private:
  // Accounts ordered by what they were served when listed. It only grows, so a stale entry is found at the top and
  // put back lower: charging costs nothing until someone asks for the least.
  enum List : uint8_t { kActive, kWaiting, kShortWaiting };
  struct Entry {
    double served;
    uint64_t serial;
    TenantAccount* account;
  };
  struct Later {
    bool operator()(const Entry& a, const Entry& b) const {
      return a.served != b.served ? a.served > b.served : a.serial > b.serial;
    }
  };
  static bool Belongs(const TenantAccount& account, List list);
  void Enlist(TenantAccount* account, List list);
  TenantAccount* Least(List list);
  void ForgetIdleTenants();

  absl::flat_hash_map<std::string, std::unique_ptr<TenantAccount>> accounts_;
  std::array<std::vector<Entry>, 3> heaps_;
  uint64_t next_serial_ = 0;
  int32_t num_active_ = 0;
  int32_t num_waiting_ = 0;
  int64_t num_waiting_tokens_ = 0;
};

}  // namespace millrace
