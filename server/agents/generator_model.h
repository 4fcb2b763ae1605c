// SPDX-License-Identifier: Apache-2.0
#pragma once
// The model of an agent run, over the pipeline that every request takes: each turn is a request of the run's caller, so
// that queue, limits, metrics and logs see it as one. A turn's prompt goes on from the tokens of the turn before, whose
// KV pages are kept meanwhile. Made for one run, used by its thread.
#include <functional>
#include <memory>

#include "agent/session.h"
#include "agent/turn_model.h"
#include "server/pipeline/generation.h"
#include "server/pipeline/requests.h"

namespace millrace {

struct GeneratorModelArgs {
  std::shared_ptr<Generator> generator;
  Caller caller;
  GenerationParams params;  // of every turn, but for max_tokens, which the run tells. One choice, no log-probabilities
  std::function<void(const absl::Status&)> on_refused;  // hears why a turn may not run
};

class GeneratorModel : public TurnModel {
 public:
  explicit GeneratorModel(GeneratorModelArgs args);
  ~GeneratorModel() override;

  Turn Run(const TurnRequest& request, const std::function<void(TurnDelta&&)>& sink,
           const Cancellation& cancellation) override;

 private:
  class Inbox;
  ChatRequest Prepare(const TurnRequest& request) const;

  const std::shared_ptr<Generator> generator_;
  const Caller caller_;
  const GenerationParams params_;
  const std::function<void(const absl::Status&)> on_refused_;
  const int64_t made_at_;  // nanoseconds; for the calls' ids
  const uint64_t engine_session_;
  const std::shared_ptr<Inbox> inbox_;
  Session session_;
  int32_t num_turns_ = 0;
};

}  // namespace millrace
