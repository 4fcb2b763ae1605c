// SPDX-License-Identifier: Apache-2.0
#pragma once
// An agent that the server's operator has defined: what a client asks by its name instead of a model's. Constant once
// made; any thread.
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/time/time.h"
#include "agent/run.h"
#include "agent/tool.h"
#include "server/pipeline/requests.h"

namespace millrace {

struct Agent {
  std::string name;         // a model id that no model has
  std::string description;  // for people
  std::string instructions;
  std::string model;                         // by its served name
  std::vector<std::shared_ptr<Tool>> tools;  // run here
  // What a request leaves out.
  std::optional<float> temperature, top_p, min_p, repetition_penalty;
  std::optional<int32_t> top_k;
  std::optional<uint64_t> seed;
  RunLimits limits;  // but for the deadline
  absl::Duration time = absl::InfiniteDuration();
  std::vector<std::string> tenants;  // who may use it ("anonymous" has no name); empty: everyone

  bool Allows(const Tenant& tenant) const;
};

// Puts the agent's instructions before the client's, and its sampling where the request has none.
void ApplyAgent(const Agent& agent, ChatRequest& request);

// The limits of a run that begins now, which a request may tighten.
RunLimits LimitsOf(const Agent& agent, absl::Time now);

// The smaller of two limits, of which 0 is none.
int64_t TighterLimit(int64_t one, int64_t other);

}  // namespace millrace
