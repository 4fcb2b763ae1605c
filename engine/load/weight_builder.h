// SPDX-License-Identifier: Apache-2.0
#pragma once
// Turns rows of a weight matrix, wherever they come from, into a packed weight of the chosen format: converts or
// quantises one matrix at a time, so that never two copies of a model exist. Loading thread (it starts helpers).
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "engine/load/weight_formats.h"
#include "kernels/ops.h"

namespace millrace {

// Rows [0, n) of K float32 values each; `read` may be called from several threads at once.
struct MatrixRows {
  // Where the numbers lie in memory as [n, k] row-major of a float format; data is null when they do not.
  struct StoredFloats {
    const void* data = nullptr;
    DType dtype = DType::kF32;
  };
  int64_t n = 0;
  int64_t k = 0;
  std::function<void(int64_t row, float* out)> read;
  StoredFloats stored;
  // Set where these are inputs [first_input, first_input + k) of longer rows, which decide the scales of quantisation.
  std::shared_ptr<const MatrixRows> whole;
  int64_t first_input = 0;
};

// Rows of several matrices of equal K, one after another. REQUIRES: whole rows, unless it is one matrix.
MatrixRows ConcatRows(std::vector<MatrixRows> parts);

// The numbers of a quantised or converted matrix, in WeightSource's layout.
struct BuiltWeight {
  WeightSource source;  // points into the vectors below
  std::vector<uint8_t> values;
  std::vector<float> scales;
  std::vector<uint8_t> zeros;
  void PointSource();  // after the vectors moved or grew
};

// kInt8: symmetric, scale = largest/127 a row. kInt4: symmetric around 8, the group's scale chosen for the least
// squared error (quantize_rows.h). kDense: rounded to the dtype. InvalidArgument: a value to be quantised is not
// finite.
absl::StatusOr<std::unique_ptr<BuiltWeight>> BuildWeight(const MatrixRows& rows, const WeightKind& kind);

// BuildWeight and Ops::Pack; rows that already lie there in the wanted format are packed without a copy.
absl::StatusOr<std::unique_ptr<PackedWeight>> PackRows(const MatrixRows& rows, const WeightKind& kind, Ops& ops);

// One matrix of the rows of several. REQUIRES: equal formats, groups and K. Zero points are filled in where some have
// them and others not.
std::unique_ptr<BuiltWeight> JoinWeights(std::vector<std::unique_ptr<BuiltWeight>> parts);

// Calls body(row) for every row, on all cores.
void ForEachRow(int64_t num_rows, const std::function<void(int64_t row)>& body);
// Calls body(begin, end) for chunks of at most `chunk_rows` rows, on all cores.
void ForEachChunk(int64_t num_rows, int64_t chunk_rows, const std::function<void(int64_t begin, int64_t end)>& body);

}  // namespace millrace
