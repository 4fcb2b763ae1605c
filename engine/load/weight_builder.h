// SPDX-License-Identifier: Apache-2.0
#pragma once
// Turns rows of a weight matrix, wherever they come from, into a packed weight of the chosen format: converts or
// quantises one matrix at a time, so that never two copies of a model exist. Loading thread (it starts helpers).
#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

#include "absl/status/statusor.h"
#include "engine/load/weight_formats.h"
#include "kernels/ops.h"

namespace millrace {

// Rows [0, n) of K float32 values each; `read` may be called from several threads at once.
struct MatrixRows {
  int64_t n = 0;
  int64_t k = 0;
  std::function<void(int64_t row, float* out)> read;
};

// Rows of several matrices of equal K, one after another.
MatrixRows ConcatRows(std::vector<MatrixRows> parts);

// The numbers of a quantised or converted matrix, in WeightSource's layout.
struct BuiltWeight {
  WeightSource source;  // points into the vectors below
  std::vector<uint8_t> values;
  std::vector<float> scales;
  std::vector<uint8_t> zeros;
};
// kInt8: symmetric, scale = largest/127 a row. kInt4: symmetric around 8, the group's scale chosen among a few below
// largest/7 for the least squared error. kDense: rounded to the dtype.
std::unique_ptr<BuiltWeight> BuildWeight(const MatrixRows& rows, const WeightKind& kind);

absl::StatusOr<std::unique_ptr<PackedWeight>> PackRows(const MatrixRows& rows, const WeightKind& kind, Ops& ops);

// Calls body(row) for every row, on all cores.
void ForEachRow(int64_t num_rows, const std::function<void(int64_t row)>& body);

}  // namespace millrace
