// SPDX-License-Identifier: Apache-2.0
#pragma once
// The agents that this server offers, and to whom. Thread-safe; the file can be read again while runs go on.
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "server/agents/agent_file.h"
#include "server/pipeline/server_state.h"

namespace millrace {

// Who answers a request.
struct Answerer {
  std::string name;                    // as the client may know it: a model's, or the agent's
  std::shared_ptr<const Agent> agent;  // null: the model itself
};

class AgentCatalogue {
 public:
  // `path` empty: there are none. What the surroundings point to outlives the catalogue.
  AgentCatalogue(std::string path, AgentSurroundings surroundings)
      : path_(std::move(path)), surroundings_(std::move(surroundings)) {}

  // Reads the file. InvalidArgument names path and line: then nothing has changed.
  absl::Status Load();

  // Whom the name means: a model, or an agent that the tenant may use. NotFound: neither; an agent of others is told
  // like one that is not there.
  absl::StatusOr<Answerer> Resolve(const ServerState& state, const std::string& asked, const Tenant& tenant) const;
  // Null: there is none, or it is not the tenant's to use.
  std::shared_ptr<const Agent> Find(const std::string& name, const Tenant& tenant) const;
  AgentList ListFor(const Tenant& tenant) const;
  size_t num_agents() const { return all()->size(); }

 private:
  std::shared_ptr<const AgentList> all() const {
    absl::MutexLock lock(&mu_);
    return agents_;
  }

  const std::string path_;
  const AgentSurroundings surroundings_;
  mutable absl::Mutex mu_;
  std::shared_ptr<const AgentList> agents_ ABSL_GUARDED_BY(mu_) = std::make_shared<const AgentList>();
};

}  // namespace millrace
