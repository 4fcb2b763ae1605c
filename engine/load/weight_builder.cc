// SPDX-License-Identifier: Apache-2.0
#include "engine/load/weight_builder.h"

#include <algorithm>
#include <atomic>
#include <cstring>
#include <thread>
#include <utility>

#include "absl/strings/str_cat.h"
#include "engine/load/float_bits.h"
#include "engine/load/quantize_rows.h"
#include "kernels/check.h"
#include "kernels/status_macros.h"

namespace millrace {
namespace {

constexpr int64_t kChunkRows = 16;

void ConvertRow(const float* values, int64_t count, DType dtype, uint8_t* out) {
  if (dtype == DType::kF32) {
    std::memcpy(out, values, static_cast<size_t>(count) * sizeof(float));
    return;
  }
  // One loop a format, so that the compiler may use vectors.
  if (dtype == DType::kBF16) {
    for (int64_t i = 0; i < count; ++i) {
      const uint16_t bits = BFloat16Bits(values[i]);
      std::memcpy(out + 2 * i, &bits, sizeof(bits));
    }
    return;
  }
  for (int64_t i = 0; i < count; ++i) {
    const uint16_t bits = Float16Bits(values[i]);
    std::memcpy(out + 2 * i, &bits, sizeof(bits));
  }
}

size_t RowBytes(const WeightKind& kind, int64_t k) {
  switch (kind.format) {
    case WeightFormat::kDense:
      return static_cast<size_t>(k) * DTypeBytes(kind.dtype);
    case WeightFormat::kInt8:
      return static_cast<size_t>(k);
    case WeightFormat::kInt4:
      return static_cast<size_t>(k) / 2;
  }
  return 0;
}

// Where a row's numbers go.
struct BuiltRow {
  uint8_t* values;
  float* scales;
};

// Quantises `values`, a whole row, and keeps what of it belongs to `rows`, whose groups may be fractions of the row's.
void QuantizeRow(const std::vector<float>& values, const MatrixRows& rows, const WeightKind& kind, BuiltRow out) {
  const int64_t whole_k = static_cast<int64_t>(values.size()), end = rows.first_input + rows.k;
  const int64_t whole_group = kind.GroupFor(whole_k) > 0 ? kind.GroupFor(whole_k) : whole_k;
  const int64_t group = kind.GroupFor(rows.k) > 0 ? kind.GroupFor(rows.k) : rows.k;
  const int64_t values_a_byte = kind.format == WeightFormat::kInt4 ? 2 : 1;
  thread_local std::vector<uint8_t> quantized;
  quantized.resize(static_cast<size_t>(whole_group));
  for (int64_t first = rows.first_input / whole_group * whole_group; first < end; first += whole_group) {
    const float scale = kind.format == WeightFormat::kInt8
                            ? QuantizeInt8(&values[static_cast<size_t>(first)], whole_group,
                                           reinterpret_cast<int8_t*>(quantized.data()))
                            : QuantizeInt4(&values[static_cast<size_t>(first)], whole_group, quantized.data());
    const int64_t kept = std::max(first, rows.first_input), kept_end = std::min(first + whole_group, end);
    std::memcpy(out.values + (kept - rows.first_input) / values_a_byte, &quantized[(kept - first) / values_a_byte],
                static_cast<size_t>((kept_end - kept) / values_a_byte));
    for (int64_t input = kept; input < kept_end; input += group) out.scales[(input - rows.first_input) / group] = scale;
  }
}

}  // namespace

void ForEachChunk(int64_t num_rows, int64_t chunk_rows, const std::function<void(int64_t begin, int64_t end)>& body) {
  const int64_t num_chunks = (num_rows + chunk_rows - 1) / chunk_rows;
  const int64_t num_threads =
      std::clamp<int64_t>(std::thread::hardware_concurrency(), 1, std::max<int64_t>(num_chunks, 1));
  std::atomic<int64_t> next{0};
  const auto work = [&] {
    for (int64_t begin = next.fetch_add(chunk_rows); begin < num_rows; begin = next.fetch_add(chunk_rows)) {
      body(begin, std::min(begin + chunk_rows, num_rows));
    }
  };
  std::vector<std::thread> threads;
  for (int64_t i = 1; i < num_threads; ++i) threads.emplace_back(work);
  work();
  for (std::thread& thread : threads) thread.join();
}

void ForEachRow(int64_t num_rows, const std::function<void(int64_t row)>& body) {
  ForEachChunk(num_rows, kChunkRows, [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) body(row);
  });
}

MatrixRows ConcatRows(std::vector<MatrixRows> parts) {
  if (parts.size() == 1) return std::move(parts.front());
  MatrixRows all{.n = 0, .k = parts.front().k, .read = nullptr, .stored = parts.front().stored};
  for (const MatrixRows& part : parts) {
    MILLRACE_CHECK(part.k == all.k && part.whole == nullptr, "matrices to be joined differ in their inputs");
    // Still one block when each part follows the one before it.
    const char* expected = static_cast<const char*>(all.stored.data);
    if (expected != nullptr) expected += all.n * all.k * static_cast<int64_t>(DTypeBytes(all.stored.dtype));
    if (part.stored.data != expected || part.stored.dtype != all.stored.dtype) all.stored = {};
    all.n += part.n;
  }
  all.read = [parts = std::move(parts)](int64_t row, float* out) {
    for (const MatrixRows& part : parts) {
      if (row < part.n) return part.read(row, out);
      row -= part.n;
    }
  };
  return all;
}

void BuiltWeight::PointSource() {
  source.values = values.data();
  source.scales = scales.empty() ? nullptr : scales.data();
  source.zeros = zeros.empty() ? nullptr : zeros.data();
}

absl::StatusOr<std::unique_ptr<BuiltWeight>> BuildWeight(const MatrixRows& rows, const WeightKind& kind) {
  auto built = std::make_unique<BuiltWeight>();
  const int64_t n = rows.n, k = rows.k;
  const bool is_dense = kind.format == WeightFormat::kDense;
  const int64_t groups_a_row = is_dense ? 0 : kind.GroupFor(k) > 0 ? k / kind.GroupFor(k) : 1;
  const size_t row_bytes = RowBytes(kind, k);
  built->values.resize(static_cast<size_t>(n) * row_bytes);
  built->scales.resize(static_cast<size_t>(n * groups_a_row));
  const bool is_copy = is_dense && rows.stored.data != nullptr && rows.stored.dtype == kind.dtype;
  std::atomic<int64_t> bad_row{-1};
  ForEachRow(n, [&](int64_t row) {
    uint8_t* out = built->values.data() + static_cast<size_t>(row) * row_bytes;
    if (is_copy) {
      std::memcpy(out, static_cast<const char*>(rows.stored.data) + static_cast<size_t>(row) * row_bytes, row_bytes);
      return;
    }
    const MatrixRows& read = is_dense || rows.whole == nullptr ? rows : *rows.whole;
    thread_local std::vector<float> values;
    values.resize(static_cast<size_t>(read.k));
    read.read(row, values.data());
    if (is_dense) return ConvertRow(values.data(), k, kind.dtype, out);
    if (!AreFinite(values.data(), read.k)) {
      bad_row = row;
      return;
    }
    QuantizeRow(values, rows, kind, {.values = out, .scales = built->scales.data() + row * groups_a_row});
  });
  if (bad_row >= 0) {
    return absl::InvalidArgumentError(absl::StrCat("row ", bad_row.load(), " holds a value that is not finite"));
  }
  built->source = {
      .format = kind.format, .n = n, .k = k, .dtype = kind.dtype, .group_size = is_dense ? 0 : kind.GroupFor(k)};
  built->PointSource();
  return built;
}

absl::StatusOr<std::unique_ptr<PackedWeight>> PackRows(const MatrixRows& rows, const WeightKind& kind, Ops& ops) {
  if (kind.format == WeightFormat::kDense && rows.stored.data != nullptr && rows.stored.dtype == kind.dtype) {
    return ops.Pack(
        {.format = WeightFormat::kDense, .n = rows.n, .k = rows.k, .dtype = kind.dtype, .values = rows.stored.data});
  }
  ASSIGN_OR_RETURN(const std::unique_ptr<BuiltWeight> built, BuildWeight(rows, kind));
  return ops.Pack(built->source);
}

std::unique_ptr<BuiltWeight> JoinWeights(std::vector<std::unique_ptr<BuiltWeight>> parts) {
  bool has_zeros = false;
  for (const auto& part : parts) has_zeros |= !part->zeros.empty();
  std::unique_ptr<BuiltWeight> joined;
  for (std::unique_ptr<BuiltWeight>& part : parts) {
    if (has_zeros && part->zeros.empty()) part->zeros.assign(part->scales.size(), 8);
    if (joined == nullptr) {
      joined = std::move(part);
      continue;
    }
    MILLRACE_CHECK(part->source.format == joined->source.format && part->source.k == joined->source.k &&
                       part->source.group_size == joined->source.group_size,
                   "weights to be joined differ in format");
    joined->values.insert(joined->values.end(), part->values.begin(), part->values.end());
    joined->scales.insert(joined->scales.end(), part->scales.begin(), part->scales.end());
    joined->zeros.insert(joined->zeros.end(), part->zeros.begin(), part->zeros.end());
    joined->source.n += part->source.n;
    part.reset();
  }
  joined->PointSource();
  return joined;
}

}  // namespace millrace
