// SPDX-License-Identifier: Apache-2.0
#include "server/agents/agent_catalogue.h"

#include <algorithm>

namespace millrace {

absl::Status AgentCatalogue::Load() {
  if (path_.empty()) return absl::OkStatus();
  auto read = ReadAgents(path_, surroundings_);
  if (!read.ok()) return read.status();
  auto agents = std::make_shared<const AgentList>(*std::move(read));
  absl::MutexLock lock(&mu_);
  agents_.swap(agents);
  return absl::OkStatus();
}

std::shared_ptr<const Agent> AgentCatalogue::Find(const std::string& name, const Tenant& tenant) const {
  const auto agents = all();
  const auto is_it = [&](const auto& agent) { return agent->name == name; };
  const auto found = std::find_if(agents->begin(), agents->end(), is_it);
  return found != agents->end() && (*found)->Allows(tenant) ? *found : nullptr;
}

AgentList AgentCatalogue::ListFor(const Tenant& tenant) const {
  AgentList allowed;
  for (const auto& agent : *all()) {
    if (agent->Allows(tenant)) allowed.push_back(agent);
  }
  return allowed;
}

absl::StatusOr<Answerer> AgentCatalogue::Resolve(const ServerState& state, const std::string& asked,
                                                 const Tenant& tenant) const {
  if (auto agent = Find(asked, tenant)) return Answerer{.name = agent->name, .agent = std::move(agent)};
  auto model = state.ResolveModel(asked);
  if (!model.ok()) return model.status();
  return Answerer{.name = *std::move(model), .agent = nullptr};
}

}  // namespace millrace
