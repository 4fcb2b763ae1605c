// SPDX-License-Identifier: Apache-2.0
#pragma once
// Turns a StepPlan into a StepResult: lays out the rows, runs the model, samples. In two halves, so that a step can be
// launched while the one before it is computed. Engine thread only.
#include <array>
#include <memory>
#include <vector>

#include "absl/status/status.h"
#include "engine/run/grammar_masks.h"
#include "engine/run/host_rows.h"
#include "engine/run/model.h"
#include "scheduler/plan.h"

namespace millrace {

class Runner {
 public:
  // `vocabulary` outlives it; null: no request has a grammar.
  Runner(std::unique_ptr<Model> model, Device& device, const TokenVocabulary* vocabulary = nullptr);

  // Begins to compute the plan, which is not read after that. Waits for nothing, except for embeddings. REQUIRES: at
  // most one step is launched and not collected. An error means the device is lost.
  absl::Status Launch(const StepPlan& plan);
  // Waits for the oldest step launched. `result` is overwritten, its memory reused. An error means the device is lost.
  absl::Status Collect(StepResult* result);
  absl::Status Run(const StepPlan& plan, StepResult* result);
  const Model& model() const { return *model_; }

 private:
  // A row whose logits (or hidden state) somebody wants.
  struct WantedRow {
    int32_t row;       // of the step
    int32_t sequence;  // index into the plan
    int32_t target;    // >= 0: prompt log-probability of this token; -1: sample; -2: embedding
    int32_t num_top;   // log-probabilities wanted beside its own
  };
  // A launched step, until it is collected.
  struct Flight {
    StepResult result;  // embeddings are there at once
    std::vector<WantedRow> wanted;
    std::vector<SampleResult> results;       // one per wanted row
    std::vector<TokenLogprob> top;           // what `results` have room in
    std::vector<int32_t> drawn_by_sequence;  // which of the sampled rows, by index into the plan; -1: none
  };
  void LayOut(const StepPlan& plan, const Flight& before);
  static void CollectWanted(const StepPlan& plan, Flight& flight);
  static void MakeRoom(Flight& flight);
  absl::Status LaunchChunk(const StepPlan& plan, size_t begin, Flight& flight);
  absl::Status Embeddings(absl::Span<const WantedRow> wanted, StepResult* result);
  void PromptLogprobs(absl::Span<const WantedRow> wanted, Matrix logits, absl::Span<SampleResult> results);
  void SampleRows(const StepPlan& plan, absl::Span<const WantedRow> wanted, Matrix logits,
                  absl::Span<SampleResult> results);
  SampleRow MakeSampleRow(const PlannedSequence& planned, int32_t logit_row);

  std::unique_ptr<Model> model_;
  Device& device_;
  std::unique_ptr<GrammarMasks> grammar_masks_;
  std::array<Flight, 2> flights_;  // of step s: s % 2
  uint64_t num_launched_ = 0;
  uint64_t num_collected_ = 0;
  // Scratch, reused from step to step.
  std::vector<int32_t> tokens_;
  std::vector<int32_t> positions_;
  std::vector<int64_t> slots_;
  std::vector<AttentionSequence> sequences_;
  std::vector<int32_t> chunk_rows_;
  std::vector<int32_t> targets_;
  std::vector<SampleRow> sample_rows_;
  std::vector<std::vector<TokenLogprob>> bias_storage_;
  HostRows hidden_;
};

}  // namespace millrace
