// SPDX-License-Identifier: Apache-2.0
#pragma once
// A step of attention for kernel tests: sequences with random queries, keys and values, scattered over one pool of
// pages; what a sequence holds depends on its own seed only, so that steps can be compared bit for bit.
#include <numeric>
#include <string>
#include <utility>
#include <vector>

#include "kernels/cuda/attention.h"
#include "tests/cuda/attention_layout.h"
#include "tests/cuda/attention_reference.h"
#include "tests/cuda/kv_memory.h"

namespace millrace::cuda_test {

class AttentionStep {
 public:
  static constexpr uint16_t kUnwritten = 0xfffe;  // a NaN in both types

  AttentionStep(const StepOptions& options, std::vector<StepSequence> sequences)
      : layout_(options, std::move(sequences)),
        kv_(options.kv, 1 + layout_.num_pages()),
        q_(static_cast<size_t>(layout_.num_rows()) * layout_.stride()),
        out_(q_.count()),
        device_sequences_(sequences_.size()),
        pages_(static_cast<size_t>(layout_.num_pages())),
        plan_(cuda::AttentionPlanBytes(shape(), num_sequences())),
        workspace_(cuda::AttentionWorkspaceBytes(shape(), num_sequences(), layout_.most_tokens())) {
    LayOut();
  }

  cuda::AttentionShape shape() const {
    return {.num_heads = options_.kv.num_heads,
            .num_kv_heads = options_.kv.num_kv_heads,
            .head_dim = options_.kv.head_dim,
            .window_tokens = options_.window_tokens};
  }
  cuda::AttentionPlanLaunch plan_launch() {
    return {.shape = shape(),
            .sequences = device_sequences_.data(),
            .num_sequences = num_sequences(),
            .plan = plan_.data()};
  }
  cuda::AttentionLaunch launch(int num_multiprocessors = 3) {
    return {.q = View(q_),
            .num_heads = options_.kv.num_heads,
            .kv = kv_.layer(),
            .sequences = device_sequences_.data(),
            .num_sequences = num_sequences(),
            .pages = pages_.data(),
            .plan = plan_.data(),
            .workspace = workspace_.data(),
            .scale = scale(),
            .window_tokens = options_.window_tokens,
            .out = View(out_),
            .num_multiprocessors = num_multiprocessors,
            .has_warpgroups = options_.has_warpgroups};
  }
  // Plans and attends; returns all of out, padding included.
  std::vector<uint16_t> Attend(int num_multiprocessors = 3) {
    EXPECT(cuda::LaunchAttentionPlan(plan_launch(), nullptr) == cudaSuccess);
    return Run(cuda::LaunchAttention, launch(num_multiprocessors));
  }
  std::vector<uint16_t> AttendPlainly() { return Run(cuda::LaunchAttentionPlainly, launch()); }
  // One launch into an untouched out.
  std::vector<uint16_t> Run(cudaError_t (*attention)(const cuda::AttentionLaunch&, cudaStream_t),
                            const cuda::AttentionLaunch& launch) {
    ClearOut();
    EXPECT(attention(launch, nullptr) == cudaSuccess) << Describe();
    return out_.Download();
  }

  void ClearOut() { out_.Upload(std::vector<uint16_t>(out_.count(), kUnwritten)); }
  std::vector<uint16_t> out() { return out_.Download(); }

  // Every `row_step`-th row of every sequence, the last one too, against double; and that nothing else was written.
  void ExpectAgrees(const std::vector<uint16_t>& out, int row_step = 1) {
    std::vector<bool> is_owned(out.size());
    for (size_t s = 0; s < sequences_.size(); ++s) {
      for (int row = 0; row < sequences_[s].num_rows; ++row) {
        for (size_t c = 0; c < layout_.width(); ++c) is_owned[layout_.RowStart(s, row) + c] = true;
        if (row % row_step == 0 || row + 1 == sequences_[s].num_rows) ExpectRowAgrees(out, s, row);
      }
    }
    for (size_t i = 0; i < out.size(); ++i) {
      EXPECT(is_owned[i] || out[i] == kUnwritten) << Describe() << "written outside its rows at" << i;
    }
  }
  // The rows of sequence `index` as bits.
  std::vector<uint16_t> RowsOf(const std::vector<uint16_t>& out, size_t index) const {
    std::vector<uint16_t> rows;
    for (int row = 0; row < sequences_[index].num_rows; ++row) {
      const auto from = out.begin() + static_cast<ptrdiff_t>(layout_.RowStart(index, row));
      rows.insert(rows.end(), from, from + static_cast<ptrdiff_t>(layout_.width()));
    }
    return rows;
  }

  std::string Describe() const {
    return std::string(NameOf(options_.kv.dtype)) + " KV, " + NameOf(options_.dtype) + ", D " +
           std::to_string(options_.kv.head_dim) + ", heads " + std::to_string(options_.kv.num_heads) + "/" +
           std::to_string(options_.kv.num_kv_heads) + ", pages of " + std::to_string(options_.kv.page_tokens) +
           ", window " + std::to_string(options_.window_tokens);
  }
  int num_sequences() const { return static_cast<int>(sequences_.size()); }

 private:
  float scale() const { return 1.0f / std::sqrt(static_cast<float>(options_.kv.head_dim)); }
  Matrix View(DeviceArray<uint16_t>& array) {
    return {.data = array.data(),
            .dtype = options_.dtype,
            .rows = layout_.num_rows(),
            .cols = static_cast<int64_t>(layout_.width()),
            .stride = static_cast<int64_t>(layout_.stride())};
  }

  void LayOut() {
    std::vector<int32_t> pool(static_cast<size_t>(layout_.num_pages()));
    std::iota(pool.begin(), pool.end(), 1);  // page 0 stays NaN
    std::shuffle(pool.begin(), pool.end(), std::mt19937(options_.layout_seed));
    std::vector<uint16_t> q(q_.count(), kUnwritten);
    std::vector<cuda::DeviceSequence> device;
    std::vector<int32_t> table;
    for (size_t s = 0; s < sequences_.size(); ++s) {
      const StepSequence& sequence = sequences_[s];
      const auto from = pool.begin() + static_cast<ptrdiff_t>(table.size());
      pages_of_.emplace_back(from, from + layout_.PagesOf(sequence));
      device.push_back(
          {layout_.FirstRow(s), sequence.num_rows, sequence.context_tokens, static_cast<int32_t>(table.size())});
      if (sequence.num_rows == 0) device.back() = {-7, 0, -7, -7};
      FillSequence(s, q);
      // Pages before every window are gone: the table names one whose slots are NaN.
      const int first_seen = options_.window_tokens > 0 ? sequence.context_tokens + 1 - options_.window_tokens : 0;
      for (int page = 0; page < layout_.PagesOf(sequence); ++page) {
        const bool is_gone = (page + 1) * options_.kv.page_tokens <= first_seen;
        table.push_back(is_gone ? 0 : pages_of_.back()[static_cast<size_t>(page)]);
      }
    }
    kv_.Upload();
    q_.Upload(q);
    device_sequences_.Upload(device);
    pages_.Upload(table);
  }
  void FillSequence(size_t s, std::vector<uint16_t>& q) {
    const StepSequence& sequence = sequences_[s];
    if (sequence.num_rows == 0) return;
    for (int t = 0; t < sequence.context_tokens + sequence.num_rows; ++t) kv_.Fill(pages_of_[s], t, sequence.seed);
    for (int row = 0; row < sequence.num_rows; ++row) {
      Random random(sequence.seed * 104729u + static_cast<uint32_t>(sequence.context_tokens + row));
      for (size_t c = 0; c < layout_.width(); ++c) {
        q[layout_.RowStart(s, row) + c] = BitsFromFloat(options_.dtype, random.Float(-2.5f, 2.5f));
      }
    }
    host_q_ = q;
  }

  void ExpectRowAgrees(const std::vector<uint16_t>& out, size_t s, int row) {
    const int dim = options_.kv.head_dim, seen = sequences_[s].context_tokens + row + 1;
    const int first = options_.window_tokens > 0 ? std::max(0, seen - options_.window_tokens) : 0;
    for (int head = 0; head < options_.kv.num_heads; ++head) {
      const size_t at = layout_.RowStart(s, row) + static_cast<size_t>(head * dim);
      std::vector<float> q;
      for (int d = 0; d < dim; ++d) q.push_back(FloatFromBits(options_.dtype, host_q_[at + static_cast<size_t>(d)]));
      const HeadReference want =
          ReferenceHead(kv_, pages_of_[s], q, head / (options_.kv.num_heads / options_.kv.num_kv_heads), first, seen,
                        scale(), options_.dtype);
      for (size_t d = 0; d < static_cast<size_t>(dim); ++d) {
        EXPECT_NEAR(FloatFromBits(options_.dtype, out[at + d]), want.out[d], want.tolerance[d],
                    Describe() + ", sequence " + std::to_string(s) + " row " + std::to_string(row) + " of context " +
                        std::to_string(sequences_[s].context_tokens) + " head " + std::to_string(head) + " element " +
                        std::to_string(d));
      }
    }
  }

  const StepLayout layout_;
  const StepOptions& options_ = layout_.options;
  const std::vector<StepSequence>& sequences_ = layout_.sequences;
  KvMemory kv_;
  DeviceArray<uint16_t> q_, out_;
  DeviceArray<cuda::DeviceSequence> device_sequences_;
  DeviceArray<int32_t> pages_;
  DeviceArray<uint8_t> plan_, workspace_;
  std::vector<std::vector<int32_t>> pages_of_;
  std::vector<uint16_t> host_q_;
};

}  // namespace millrace::cuda_test
