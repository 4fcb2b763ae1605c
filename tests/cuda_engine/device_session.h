// SPDX-License-Identifier: Apache-2.0
#pragma once
// A model on a device, driven step by step through the runner as the scheduler would: some sequences, each with pages
// of its own, fed with tokens and asked for the next one.
#include <algorithm>
#include <catch2/catch.hpp>
#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "engine/load/model_weights.h"
#include "engine/run/model.h"
#include "engine/run/rank_group.h"
#include "engine/run/runner.h"
#include "kernels/device.h"
#include "scheduler/plan.h"

namespace millrace::testing {

struct SessionOptions {
  std::string dtype = "bfloat16";
  std::string quantization;
  std::string load_format = "auto";
  DType kv_dtype = DType::kBF16;
  int32_t max_rows = 64;
  int32_t max_tokens = 64;  // of a sequence
  int32_t max_sequences = 8;
  int32_t page_tokens = 16;
};

// One sequence: what is known of it and how much of that lies in pages.
struct SessionSequence {
  Request request;
  std::vector<int32_t> tokens;
  std::vector<PageId> pages;
  int32_t num_computed = 0;
};

class DeviceSession {
 public:
  DeviceSession(const std::string& model_dir, std::unique_ptr<Device> device, const SessionOptions& options)
      : DeviceSession(model_dir, Only(std::move(device)), options) {}
  // A rank on each device.
  DeviceSession(const std::string& model_dir, std::vector<std::unique_ptr<Device>> devices,
                const SessionOptions& options)
      : options_(options) {
    const LoadOptions load{
        .dtype = options.dtype, .load_format = options.load_format, .quantization = options.quantization};
    auto info = ReadModelInfo(model_dir, load);
    REQUIRE(info.status().ToString() == "OK");
    auto ranks = ConnectRanks(std::move(devices));
    REQUIRE(ranks.status().ToString() == "OK");
    auto model = LoadModel(*info, load,
                           {.max_rows = options.max_rows,
                            .max_logit_rows = options.max_sequences,
                            .max_sequences = options.max_sequences,
                            .max_positions = options.max_tokens,
                            .num_pages = PagesOfOne() * options.max_sequences,
                            .page_tokens = options.page_tokens,
                            .kv_dtype = options.kv_dtype},
                           *ranks);
    REQUIRE(model.status().ToString() == "OK");
    device_ = std::move(ranks->devices[0]);
    runner_ = std::make_unique<Runner>(std::move(*model), *device_);
  }

  // Sequence `index`'s pages lie apart and in falling order.
  SessionSequence NewSequence(int32_t index, std::vector<int32_t> prompt) const {
    SessionSequence sequence;
    sequence.request.prompt_tokens = prompt;
    sequence.request.sampling.temperature = 0;
    sequence.request.sampling.num_top_logprobs = 5;
    sequence.tokens = std::move(prompt);
    for (int32_t i = PagesOfOne(); i-- > 0;) sequence.pages.push_back(i * options_.max_sequences + index);
    return sequence;
  }

  // Computes each sequence's tokens that are not computed yet, at most `chunk` of them (0: all), and returns a token
  // for each; -1 while there are more to compute.
  std::vector<TokenResult> Step(absl::Span<SessionSequence* const> sequences, int32_t chunk = 0) {
    std::vector<TokenResult> tokens;
    for (SequenceResult& sequence : Run(sequences, chunk).sequences) tokens.push_back(std::move(sequence.sampled));
    return tokens;
  }
  std::vector<float> Embed(SessionSequence& sequence) { return Run({&sequence}, 0).sequences[0].embedding; }

  // Greedy tokens after a prompt, alone in its steps.
  std::vector<int32_t> Greedy(const std::vector<int32_t>& prompt, int num_new, int32_t chunk = 0) {
    SessionSequence sequence = NewSequence(0, prompt);
    std::vector<int32_t> output;
    while (static_cast<int>(output.size()) < num_new) {
      const int32_t token = Step({&sequence}, chunk)[0].token;
      if (token < 0) continue;
      output.push_back(token);
      sequence.tokens.push_back(token);
    }
    return output;
  }

  Device& device() { return *device_; }
  const ModelInfo& info() const { return runner_->model().info(); }

 private:
  StepResult Run(absl::Span<SessionSequence* const> sequences, int32_t chunk) {
    StepPlan plan;
    for (SessionSequence* sequence : sequences) {
      const int32_t left = static_cast<int32_t>(sequence->tokens.size()) - sequence->num_computed;
      const int32_t num_tokens = chunk > 0 ? std::min(chunk, left) : left;
      plan.sequences.push_back({.request = &sequence->request,
                                .first_position = sequence->num_computed,
                                .num_tokens = num_tokens,
                                .tokens = sequence->tokens,
                                .num_prompt_tokens = static_cast<int32_t>(sequence->request.prompt_tokens.size()),
                                .pages = sequence->pages,
                                .samples = num_tokens == left});
      plan.num_rows += num_tokens;
      sequence->num_computed += num_tokens;
    }
    StepResult result;
    const absl::Status status = runner_->Run(plan, &result);
    REQUIRE(status.ToString() == "OK");
    for (const SequenceResult& sequence : result.sequences) CHECK_FALSE(sequence.is_failed);
    return result;
  }
  static std::vector<std::unique_ptr<Device>> Only(std::unique_ptr<Device> device) {
    std::vector<std::unique_ptr<Device>> devices;
    devices.push_back(std::move(device));
    return devices;
  }
  int32_t PagesOfOne() const { return (options_.max_tokens + options_.page_tokens - 1) / options_.page_tokens; }

  const SessionOptions options_;
  std::unique_ptr<Device> device_;
  std::unique_ptr<Runner> runner_;
};

}  // namespace millrace::testing
