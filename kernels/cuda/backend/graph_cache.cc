// SPDX-License-Identifier: Apache-2.0
#include "kernels/cuda/backend/graph_cache.h"

#include <algorithm>

#include "kernels/cuda/backend/graph_bytes.h"

namespace millrace::cuda {

GraphCache::~GraphCache() {
  for (const Entry& entry : entries_) {
    if (entry.graph != nullptr) static_cast<void>(cudaGraphExecDestroy(entry.graph));
  }
}

size_t GraphCache::NumBytes(int64_t max_rows, int num_layers) {
  if (max_rows <= 0) return 0;
  return GraphBytes(num_layers) * std::min(IndexOf(max_rows) + 1, kRows.size());
}

size_t GraphCache::IndexOf(int64_t rows) {
  return static_cast<size_t>(std::lower_bound(kRows.begin(), kRows.end(), rows) - kRows.begin());
}

int64_t GraphCache::RoundedRows(int64_t rows) const {
  const size_t index = IndexOf(rows);
  if (rows > max_rows_ || index == kRows.size()) return 0;
  return std::min(kRows[index], max_rows_);
}

std::vector<int64_t> GraphCache::RecordedRows() const {
  std::vector<int64_t> rows;
  for (size_t i = 0; i < kRows.size() && (i == 0 || kRows[i - 1] < max_rows_); ++i) {
    if (max_rows_ > 0) rows.push_back(std::min(kRows[i], max_rows_));
  }
  return rows;
}

void GraphCache::Run(int64_t rounded_rows, CudaStream& stream, absl::FunctionRef<void()> body) {
  Entry& entry = entries_[IndexOf(rounded_rows)];
  if (entry.was_called && entry.graph == nullptr) {
    entry.graph = Record(stream, body);
    // Rounded numbers are asked for before a step, so the step at hand still runs on padded rows.
    if (entry.graph == nullptr) max_rows_ = 0;
  }
  entry.was_called = true;
  if (entry.graph == nullptr) return body();
  ++num_replays_;
  stream.Keep(cudaGraphLaunch(entry.graph, stream.get()), "a recorded step");
}

// Null when something in it cannot be recorded; errors of the attempt are forgotten, as nothing has run.
cudaGraphExec_t GraphCache::Record(CudaStream& stream, absl::FunctionRef<void()> body) {
  const absl::Status before = stream.first_error();
  cudaGraph_t graph = nullptr;
  cudaGraphExec_t executable = nullptr;
  cudaError_t error = cudaStreamBeginCapture(stream.get(), cudaStreamCaptureModeThreadLocal);
  if (error == cudaSuccess) {
    body();
    error = cudaStreamEndCapture(stream.get(), &graph);
  }
  if (error == cudaSuccess && stream.first_error().ok()) error = cudaGraphInstantiate(&executable, graph, 0);
  if (graph != nullptr) static_cast<void>(cudaGraphDestroy(graph));
  if (executable == nullptr) {
    static_cast<void>(cudaGetLastError());
    fault_ = stream.first_error().ok() ? ToStatus(error, "recording a step") : stream.first_error();
    stream.set_first_error(before);
  }
  return executable;
}

}  // namespace millrace::cuda
