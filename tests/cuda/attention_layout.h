// SPDX-License-Identifier: Apache-2.0
#pragma once
// Where the rows and pages of a test step's sequences lie.
#include <algorithm>
#include <cstdint>
#include <utility>
#include <vector>

#include "tests/cuda/kv_memory.h"

namespace millrace::cuda_test {

struct StepSequence {
  int num_rows = 1;
  int context_tokens = 0;
  uint32_t seed = 1;
};

struct StepOptions {
  KvShape kv;
  DType dtype = DType::kBF16;  // of q and out
  int window_tokens = 0;
  uint32_t layout_seed = 1;  // where pages lie
  int padding = 6;           // elements behind each row of q and out
  bool has_warpgroups = false;
};

class StepLayout {
 public:
  StepLayout(const StepOptions& options, std::vector<StepSequence> sequences)
      : options(options), sequences(std::move(sequences)) {}

  size_t width() const { return static_cast<size_t>(options.kv.num_heads * options.kv.head_dim); }
  size_t stride() const { return width() + static_cast<size_t>(options.padding); }
  // Row 0 belongs to nobody.
  int num_rows() const { return RowsBefore(sequences.size()) + 1; }
  int num_pages() const {
    int pages = 0;
    for (const StepSequence& sequence : sequences) pages += PagesOf(sequence);
    return pages;
  }
  int PagesOf(const StepSequence& sequence) const {
    if (sequence.num_rows == 0) return 0;
    return (sequence.context_tokens + sequence.num_rows + options.kv.page_tokens - 1) / options.kv.page_tokens;
  }
  int32_t most_tokens() const {
    int32_t most = 1;
    for (const StepSequence& s : sequences) most = std::max(most, s.context_tokens + s.num_rows);
    return most;
  }
  int FirstRow(size_t index) const { return 1 + RowsBefore(index); }
  size_t RowStart(size_t index, int row) const { return static_cast<size_t>(FirstRow(index) + row) * stride(); }

  const StepOptions options;
  const std::vector<StepSequence> sequences;

 private:
  int RowsBefore(size_t index) const {
    int rows = 0;
    for (size_t s = 0; s < index; ++s) rows += sequences[s].num_rows;
    return rows;
  }
};

}  // namespace millrace::cuda_test
