// SPDX-License-Identifier: Apache-2.0
#pragma once
// Turns a StepPlan into a StepResult: lays out the rows, runs the model, samples. Engine thread only.
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

  // Computes the plan. `result` is overwritten, its memory reused. An error means the device is lost.
  absl::Status Run(const StepPlan& plan, StepResult* result);
  const Model& model() const { return *model_; }

 private:
  // A row whose logits (or hidden state) somebody wants.
  struct WantedRow {
    int32_t row;       // of the step
    int32_t sequence;  // index into the plan
    int32_t target;    // >= 0: prompt log-probability of this token; -1: sample; -2: embedding
  };
  void LayOut(const StepPlan& plan);
  void CollectWanted(const StepPlan& plan);
  absl::Status RunChunk(const StepPlan& plan, absl::Span<const WantedRow> wanted, StepResult* result);
  absl::Status Embeddings(absl::Span<const WantedRow> wanted, StepResult* result);
  void PromptLogprobs(const StepPlan& plan, absl::Span<const WantedRow> wanted, Matrix logits, StepResult* result);
  void SampleRows(const StepPlan& plan, absl::Span<const WantedRow> wanted, Matrix logits, StepResult* result);
  SampleRow MakeSampleRow(const PlannedSequence& planned, int32_t logit_row);

  std::unique_ptr<Model> model_;
  Device& device_;
  std::unique_ptr<GrammarMasks> grammar_masks_;
  // Scratch, reused from step to step.
  std::vector<int32_t> tokens_;
  std::vector<int32_t> positions_;
  std::vector<int64_t> slots_;
  std::vector<AttentionSequence> sequences_;
  std::vector<WantedRow> wanted_;
  std::vector<int32_t> chunk_rows_;
  std::vector<int32_t> targets_;
  std::vector<SampleRow> sample_rows_;
  std::vector<SampleResult> sample_results_;
  std::vector<TokenLogprob> top_storage_;
  std::vector<std::vector<TokenLogprob>> bias_storage_;
  HostRows hidden_;
};

}  // namespace millrace
