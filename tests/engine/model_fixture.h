// SPDX-License-Identifier: Apache-2.0
#pragma once
// A model with its device and KV memory for tests: computes logits of token sequences in any chunking.
#include <algorithm>
#include <catch2/catch.hpp>
#include <functional>
#include <memory>
#include <numeric>
#include <string>
#include <vector>

#include "engine/load/model_weights.h"
#include "engine/run/host_rows.h"
#include "engine/run/model.h"
#include "engine/run/rank_group.h"
#include "kernels/device.h"

namespace millrace {

struct FixtureOptions {
  std::string dtype = "float32";
  std::string quantization;
  std::string load_format = "auto";
  DType kv_dtype = DType::kF32;
  CpuPath path = CpuPath::kAuto;
  int num_threads = 2;
  int page_tokens = 4;
  int max_tokens = 128;
  int num_ranks = 1;
  std::function<absl::StatusOr<std::unique_ptr<Device>>()> make_device;  // null: the CPU's, as above
};

class ModelFixture {
 public:
  explicit ModelFixture(const std::string& model_dir, const FixtureOptions& options = {}) : options_(options) {
    std::vector<std::unique_ptr<Device>> devices;
    for (int rank = 0; rank < options.num_ranks; ++rank) {
      auto device = options.make_device ? options.make_device()
                                        : MakeCpuDevice({.num_threads = options.num_threads, .path = options.path});
      REQUIRE(device.status().ToString() == "OK");
      devices.push_back(std::move(*device));
    }
    const LoadOptions load{
        .dtype = options.dtype, .load_format = options.load_format, .quantization = options.quantization};
    auto info = ReadModelInfo(model_dir, load);
    REQUIRE(info.status().ToString() == "OK");
    vocab_tokens_ = info->vocab_tokens;
    const int num_pages = (options.max_tokens + options.page_tokens - 1) / options.page_tokens + 3;
    auto ranks = ConnectRanks(std::move(devices));
    REQUIRE(ranks.status().ToString() == "OK");
    auto model = LoadModel(*info, load,
                           {.max_rows = options.max_tokens,
                            .max_logit_rows = options.max_tokens,
                            .max_positions = options.max_tokens,
                            .num_pages = num_pages,
                            .page_tokens = options.page_tokens,
                            .kv_dtype = options.kv_dtype},
                           *ranks);
    REQUIRE(model.status().ToString() == "OK");
    device_ = std::move(ranks->devices[0]);
    model_ = std::move(*model);
    // Pages in a scattered order: nothing may depend on their numbers.
    pages_.resize(static_cast<size_t>(num_pages));
    std::iota(pages_.begin(), pages_.end(), 0);
    std::reverse(pages_.begin(), pages_.end());
    std::swap(pages_[0], pages_[pages_.size() / 2]);
  }

  // Logits [tokens, V] of positions [first, first + count), computed as one chunk; earlier ones must be in pages.
  std::vector<float> Logits(const std::vector<int32_t>& tokens, int first, int count) {
    Forward(tokens, first, count);
    std::vector<int32_t> rows(static_cast<size_t>(count));
    std::iota(rows.begin(), rows.end(), 0);
    const Matrix logits = model_->Logits(rows);
    return ToHost(logits);
  }

  std::vector<float> LastHidden(const std::vector<int32_t>& tokens) {
    Forward(tokens, 0, static_cast<int>(tokens.size()));
    const int32_t last = static_cast<int32_t>(tokens.size()) - 1;
    const Matrix hidden = model_->FinalHidden(absl::MakeConstSpan(&last, 1));
    return ToHost(hidden);
  }

  std::vector<int32_t> Greedy(std::vector<int32_t> tokens, int num_new) {
    std::vector<int32_t> output;
    std::vector<float> logits = Logits(tokens, 0, static_cast<int>(tokens.size()));
    for (int i = 0; i < num_new; ++i) {
      const auto begin = logits.end() - vocab();
      output.push_back(static_cast<int32_t>(std::max_element(begin, logits.end()) - begin));
      tokens.push_back(output.back());
      logits = Logits(tokens, static_cast<int>(tokens.size()) - 1, 1);
    }
    return output;
  }

  int vocab() const { return vocab_tokens_; }
  absl::Status Wait() { return model_->Wait(); }
  const Model& model() const { return *model_; }

 private:
  std::vector<float> ToHost(const Matrix& matrix) {
    HostRows rows;
    REQUIRE(rows.Fetch(matrix, *device_).ok());
    return std::vector<float>(rows.row(0), rows.row(0) + matrix.rows * matrix.cols);
  }
  void Forward(const std::vector<int32_t>& tokens, int first, int count) {
    std::vector<int32_t> positions;
    std::vector<int64_t> slots;
    for (int position = first; position < first + count; ++position) {
      positions.push_back(position);
      const int64_t page = pages_[static_cast<size_t>(position / options_.page_tokens)];
      slots.push_back(page * options_.page_tokens + position % options_.page_tokens);
    }
    const AttentionSequence sequence{
        .first_row = 0, .num_rows = count, .context_tokens = first, .pages = pages_.data()};
    model_->Forward(
        {.tokens = absl::MakeConstSpan(tokens).subspan(static_cast<size_t>(first), static_cast<size_t>(count)),
         .positions = positions,
         .slots = slots,
         .sequences = absl::MakeConstSpan(&sequence, 1)});
  }

  const FixtureOptions options_;
  std::unique_ptr<Device> device_;
  std::unique_ptr<Model> model_;
  int vocab_tokens_ = 0;
  std::vector<int32_t> pages_;
};

}  // namespace millrace
