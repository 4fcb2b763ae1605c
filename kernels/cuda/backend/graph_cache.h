// SPDX-License-Identifier: Apache-2.0
#pragma once
// Launch sequences of decode steps, recorded once per rounded number of rows and replayed as CUDA graphs: a step of a
// small model is mostly launches. Owned by CudaOps; engine thread.
#include <cuda_runtime_api.h>

#include <array>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/types/span.h"
#include "kernels/cuda/backend/cuda_stream.h"

namespace millrace::cuda {

class GraphCache {
 public:
  // Steps of up to max_rows rows; 0: nothing is recorded.
  explicit GraphCache(int64_t max_rows) : max_rows_(max_rows) {}
  ~GraphCache();
  GraphCache(const GraphCache&) = delete;
  GraphCache& operator=(const GraphCache&) = delete;

  // What the memory plan counts for the graphs of steps of up to max_rows rows; CudaOps::RecordSteps measures it.
  static size_t NumBytes(int64_t max_rows, int num_layers);

  // The rows a decode step of `rows` is padded to; 0: it is launched as it is.
  int64_t RoundedRows(int64_t rows) const;
  // All that RoundedRows gives.
  std::vector<int64_t> RecordedRows() const;
  // Launches body's work on the stream. For a number of rows: called the first time (which also loads its kernels),
  // recorded the second, replayed from then on. What cannot be recorded is called from then on.
  void Run(int64_t rounded_rows, CudaStream& stream, absl::FunctionRef<void()> body);
  int num_replays() const { return num_replays_; }
  // Why steps are no longer recorded; OK while they are.
  const absl::Status& fault() const { return fault_; }

 private:
  struct Entry {
    bool was_called = false;
    cudaGraphExec_t graph = nullptr;
  };
  static constexpr std::array<int64_t, 25> kRows = {1,  2,   4,   8,   12,  16,  24,  32,  40,  48,  56,  64, 80,
                                                    96, 112, 128, 144, 160, 176, 192, 208, 224, 240, 256, 512};
  static size_t IndexOf(int64_t rows);
  cudaGraphExec_t Record(CudaStream& stream, absl::FunctionRef<void()> body);

  int64_t max_rows_;
  std::array<Entry, kRows.size()> entries_;
  int num_replays_ = 0;
  absl::Status fault_;
};

}  // namespace millrace::cuda
