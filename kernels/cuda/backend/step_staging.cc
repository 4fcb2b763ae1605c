// SPDX-License-Identifier: Apache-2.0
#include "kernels/cuda/backend/step_staging.h"

#include <algorithm>

#include "kernels/check.h"

namespace millrace::cuda {

StepStaging::Layout::Layout(const StepLimits& limits) {
  ArrayLayout arrays;
  max_gathered = static_cast<size_t>(std::max(limits.max_rows, limits.max_logit_rows));
  gathered = arrays.Add<int32_t>(static_cast<int64_t>(max_gathered));
  tokens = arrays.Add<int32_t>(limits.max_rows);
  positions = arrays.Add<int32_t>(limits.max_rows);
  slots = arrays.Add<int64_t>(limits.max_rows);
  sequences = arrays.Add<DeviceSequence>(limits.max_sequences);
  // Last, so that the copy ends where a step's pages do.
  pages = arrays.Add<int32_t>(limits.max_sequences * limits.max_sequence_pages);
  num_bytes = arrays.num_bytes();
}

size_t StepStaging::NumBytes(const StepLimits& limits) { return Layout(limits).num_bytes; }

absl::Status StepStaging::Reserve(const StepLimits& limits, CudaStream& stream) {
  limits_ = limits;
  layout_ = Layout(limits);
  return memory_.Reserve(layout_.num_bytes, stream);
}

void StepStaging::BeginStep(int side) {
  memory_.Choose(side);
  num_gathered_ = 0;
}

void StepStaging::Upload(const StepInputs& inputs, int64_t num_rows, CudaStream& stream) {
  const int64_t given_rows = static_cast<int64_t>(inputs.tokens.size());
  const int64_t given_sequences = static_cast<int64_t>(inputs.sequences.size());
  MILLRACE_CHECK(given_rows <= num_rows && num_rows <= limits_.max_rows && given_sequences <= limits_.max_sequences,
                 "a step is larger than what was reserved");
  int32_t* tokens = memory_.host<int32_t>(layout_.tokens);
  int32_t* positions = memory_.host<int32_t>(layout_.positions);
  int64_t* slots = memory_.host<int64_t>(layout_.slots);
  std::fill(std::copy(inputs.tokens.begin(), inputs.tokens.end(), tokens), tokens + num_rows, 0);
  std::fill(std::copy(inputs.positions.begin(), inputs.positions.end(), positions), positions + num_rows, 0);
  std::fill(std::copy(inputs.slots.begin(), inputs.slots.end(), slots), slots + num_rows, -1);
  const int64_t num_pages = LayOutSequences(inputs.sequences, num_rows - given_rows);
  memory_.Upload(layout_.tokens, layout_.pages + static_cast<size_t>(num_pages) * sizeof(int32_t), stream);
}

int64_t StepStaging::LayOutSequences(absl::Span<const AttentionSequence> sequences, int64_t num_padded) {
  DeviceSequence* out = memory_.host<DeviceSequence>(layout_.sequences);
  int32_t* pages = memory_.host<int32_t>(layout_.pages);
  int32_t next_page = 0;
  for (const AttentionSequence& sequence : sequences) {
    const int32_t num_tokens = sequence.context_tokens + sequence.num_rows;
    const int32_t num_pages = (num_tokens + limits_.page_tokens - 1) / limits_.page_tokens;
    MILLRACE_CHECK(num_pages <= limits_.max_sequence_pages, "a sequence is longer than what was reserved");
    std::copy(sequence.pages, sequence.pages + num_pages, pages + next_page);
    *out++ = {.first_row = sequence.first_row,
              .num_rows = sequence.num_rows,
              .context_tokens = sequence.context_tokens,
              .first_page = next_page};
    next_page += num_pages;
  }
  std::fill(out, out + num_padded, DeviceSequence{});
  return next_page;
}

const int32_t* StepStaging::UploadRows(absl::Span<const int32_t> rows, CudaStream& stream) {
  MILLRACE_CHECK(static_cast<int64_t>(rows.size()) <= limits_.max_logit_rows, "more rows than were reserved");
  if (num_gathered_ + rows.size() > layout_.max_gathered) {
    static_cast<void>(stream.Synchronize());  // those before may still be on their way
    num_gathered_ = 0;
  }
  const size_t begin = layout_.gathered + num_gathered_ * sizeof(int32_t);
  num_gathered_ += rows.size();
  std::copy(rows.begin(), rows.end(), memory_.host<int32_t>(begin));
  memory_.Upload(begin, begin + rows.size() * sizeof(int32_t), stream);
  return memory_.device<int32_t>(begin);
}

}  // namespace millrace::cuda
