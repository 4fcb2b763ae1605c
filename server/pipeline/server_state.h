// SPDX-License-Identifier: Apache-2.0
#pragma once
// What the front doors (HTTP, gRPC) share and the composition root fills in: the generator once the model is loaded,
// and whether we are alive, ready, draining. Thread-safe.
#include <atomic>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "engine/engine.h"
#include "server/pipeline/generation.h"

namespace millrace {

class ServerState {
 public:
  // `model_names`: what clients may call the model, the first is what we call it. Not empty.
  explicit ServerState(std::vector<std::string> model_names)
      : model_names_(std::move(model_names)), created_(absl::ToUnixSeconds(absl::Now())) {}

  const std::vector<std::string>& model_names() const { return model_names_; }
  int64_t created() const { return created_; }  // Unix seconds

  // The model is loaded and has produced a token. Null takes it away again (shutting down).
  void SetGenerator(std::shared_ptr<Generator> generator) {
    std::shared_ptr<Generator> old;
    absl::MutexLock lock(&mu_);
    old = std::exchange(generator_, std::move(generator));
  }
  void SetHealth(EngineHealth health) { health_ = health; }
  void BeginDrain() { is_draining_ = true; }
  bool is_draining() const { return is_draining_; }
  EngineHealth health() const { return health_; }
  bool is_alive() const { return health_ != EngineHealth::kStuck && health_ != EngineHealth::kFailed; }
  bool is_ready() const { return health_ == EngineHealth::kReady && !is_draining_; }

  // Null while the model loads; for looking only (metrics, model facts).
  std::shared_ptr<Generator> generator() const {
    absl::MutexLock lock(&mu_);
    return generator_;
  }
  // For new work. Unavailable: loading, draining, stuck.
  absl::StatusOr<std::shared_ptr<Generator>> Admit() const {
    if (is_draining_) return absl::UnavailableError("the server is shutting down");
    if (!is_alive()) return absl::UnavailableError("the engine does not answer");
    std::shared_ptr<Generator> found = generator();
    if (found == nullptr) return absl::UnavailableError("the model is still loading");
    return found;
  }
  // The name to answer with. NotFound: a model that is not served.
  absl::StatusOr<std::string> ResolveModel(const std::string& asked) const {
    if (asked.empty()) return model_names_.front();
    for (const std::string& name : model_names_) {
      if (name == asked) return name;
    }
    return absl::NotFoundError(absl::StrCat("the model '", asked.substr(0, 200), "' does not exist"));
  }

 private:
  const std::vector<std::string> model_names_;
  const int64_t created_;
  std::atomic<EngineHealth> health_{EngineHealth::kStarting};
  std::atomic<bool> is_draining_{false};
  mutable absl::Mutex mu_;
  std::shared_ptr<Generator> generator_ ABSL_GUARDED_BY(mu_);
};

}  // namespace millrace
