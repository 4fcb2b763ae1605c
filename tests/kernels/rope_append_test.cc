// SPDX-License-Identifier: Apache-2.0
// QK-norm, rotation and the append into pages, against double precision.
#include <algorithm>
#include <catch2/catch.hpp>
#include <cmath>
#include <cstring>
#include <numeric>
#include <random>
#include <vector>

#include "kernels/cpu/cpu_features.h"
#include "kernels/cpu/kv_slot.h"
#include "kernels/cpu/op_functions.h"
#include "kernels/ops.h"
#include "tests/support/reference_attention.h"

namespace millrace {
namespace {

using testing::RandomFloats;
using testing::ScatteredPages;
using testing::TestKv;

constexpr DType kKvTypes[] = {DType::kF32, DType::kF16, DType::kBF16, DType::kI8};
constexpr int64_t kMaxPositions = 300;
constexpr int64_t kNumPages = 40;

std::vector<CpuPath> Paths() {
  std::vector<CpuPath> paths = {CpuPath::kReference};
  for (const CpuPath path : {CpuPath::kAvx2, CpuPath::kAvx512}) {
    if (cpu::HasCpuPath(path)) paths.push_back(path);
  }
  return paths;
}

struct Shape {
  DType dtype = DType::kF32;
  int num_heads = 4;
  int num_kv_heads = 2;
  int head_dim = 16;
  int rotary_dim = 16;
  int page_tokens = 16;
  bool is_interleaved = false;
  bool has_norm = false;

  int64_t width() const { return int64_t{num_heads + 2 * num_kv_heads} * head_dim; }
};

// What a run over some rows reads; the same for every path, batch and thread count.
struct Inputs {
  Inputs(const Shape& shape, int64_t num_rows, uint32_t seed)
      : qkv(RandomFloats(num_rows * shape.width(), seed)),
        q_norm(RandomFloats(shape.head_dim, seed + 1)),
        k_norm(RandomFloats(shape.head_dim, seed + 2)) {
    const int64_t half = shape.rotary_dim / 2;
    for (int64_t position = 0; position < kMaxPositions; ++position) {
      for (int64_t i = 0; i < half; ++i) {
        const double angle = static_cast<double>(position) * std::pow(10000.0, -static_cast<double>(i) / half);
        cos.push_back(static_cast<float>(std::cos(angle)));
        sin.push_back(static_cast<float>(std::sin(angle)));
      }
    }
    // Every row a slot of its own, anywhere; each fourth stores nothing. Positions in no order, some equal.
    const auto shuffled = ScatteredPages(num_rows, kNumPages * shape.page_tokens, seed + 3);
    std::mt19937 noise(seed + 4);
    for (int64_t r = 0; r < num_rows; ++r) {
      slots.push_back(r % 4 == 3 ? -1 - r : shuffled[static_cast<size_t>(r)]);
      positions.push_back(r == 0 ? 0 : static_cast<int32_t>(noise() % kMaxPositions));
    }
    if (num_rows > 1) positions[1] = kMaxPositions - 1;
  }

  std::vector<float> qkv, q_norm, k_norm, cos, sin;
  std::vector<int32_t> positions;
  std::vector<int64_t> slots;
};

// Runs rows [begin, begin + count); returns the rewritten qkv rows. `padding` floats follow each row.
std::vector<float> Run(const Shape& shape, const Inputs& inputs, int64_t begin, int64_t count, const TestKv& kv,
                       CpuPath path, int num_threads, int64_t padding = 0) {
  const int64_t stride = shape.width() + padding;
  std::vector<float> qkv(static_cast<size_t>(count * stride), -77.0f);
  for (int64_t r = 0; r < count; ++r) {
    std::copy_n(inputs.qkv.data() + (begin + r) * shape.width(), shape.width(), qkv.data() + r * stride);
  }
  cpu::ThreadPool pool(num_threads);
  const auto first = static_cast<size_t>(begin), size = static_cast<size_t>(count);
  cpu::RopeAppend({.qkv = {.data = qkv.data(), .rows = count, .cols = shape.width(), .stride = stride},
                   .num_heads = shape.num_heads,
                   .q_norm = shape.has_norm ? inputs.q_norm.data() : nullptr,
                   .k_norm = shape.has_norm ? inputs.k_norm.data() : nullptr,
                   .norm_eps = 1e-5f,
                   .rope = {.cos = inputs.cos.data(),
                            .sin = inputs.sin.data(),
                            .rotary_dim = shape.rotary_dim,
                            .interleaved = shape.is_interleaved},
                   .positions = absl::MakeConstSpan(inputs.positions).subspan(first, size),
                   .slots = absl::MakeConstSpan(inputs.slots).subspan(first, size),
                   .kv = kv.layer()},
                  {pool, path});
  for (int64_t r = 0; r < count; ++r) {
    for (int64_t c = shape.width(); c < stride; ++c) CHECK(qkv[static_cast<size_t>(r * stride + c)] == -77.0f);
  }
  return qkv;
}

struct HeadReference {
  std::vector<double> values;
  std::vector<double> magnitude;  // the sum of what was added, for the tolerance
};

// One head normed (weight may be null) and rotated, in double; the pairing written out apart from the kernel's.
HeadReference Rotated(const Shape& shape, const Inputs& inputs, const float* head, const float* weight,
                      int64_t position) {
  const auto dim = static_cast<size_t>(shape.head_dim);
  std::vector<double> normed(head, head + dim);
  if (weight != nullptr) {
    double squares = 0;
    for (const double value : normed) squares += value * value;
    for (size_t i = 0; i < dim; ++i) normed[i] *= weight[i] / std::sqrt(squares / shape.head_dim + 1e-5f);
  }
  HeadReference result{.values = normed, .magnitude = normed};
  for (double& value : result.magnitude) value = std::abs(value);
  const size_t half = static_cast<size_t>(shape.rotary_dim) / 2;
  for (size_t i = 0; i < 2 * half; ++i) {
    const size_t pair = shape.is_interleaved ? i / 2 : i % half;
    const bool is_second = shape.is_interleaved ? i % 2 == 1 : i >= half;
    const size_t partner = shape.is_interleaved ? i ^ 1 : (i + half) % (2 * half);
    const double cos = inputs.cos[static_cast<size_t>(position) * half + pair];
    const double sin = inputs.sin[static_cast<size_t>(position) * half + pair] * (is_second ? 1.0 : -1.0);
    result.values[i] = normed[i] * cos + normed[partner] * sin;
    result.magnitude[i] = std::abs(normed[i] * cos) + std::abs(normed[partner] * sin);
  }
  return result;
}

// How far a stored number may lie from what was to be stored.
double StorageError(DType dtype, double value, double largest) {
  switch (dtype) {
    case DType::kF32:
      return 0;
    case DType::kF16:
      return std::max(0x1p-11 * std::abs(value), 0x1p-25);  // half a step; subnormal below 2^-14
    case DType::kI8:
      return (0.5 + 1e-4) * largest / 127;  // half a step; the rest is the float scale's and its inverse's rounding
    default:
      return 0x1p-8 * std::abs(value);  // half a step: eight significant bits
  }
}

void CheckHead(const HeadReference& want, const float* got, double relative, DType dtype) {
  double largest = 0;
  for (const double magnitude : want.magnitude) largest = std::max(largest, magnitude * (1 + relative));
  for (size_t i = 0; i < want.values.size(); ++i) {
    const double arithmetic = relative * want.magnitude[i];
    const double stored = StorageError(dtype, std::abs(want.values[i]) + arithmetic, largest);
    if (std::abs(got[i] - want.values[i]) <= arithmetic + stored) continue;
    CAPTURE(i, got[i], want.values[i], arithmetic, stored);
    FAIL_CHECK("differs from the reference");
  }
}

void CheckAgainstDouble(const Shape& shape, CpuPath path, uint32_t seed) {
  constexpr int64_t kRows = 21;
  CAPTURE(static_cast<int>(path), DTypeName(shape.dtype), shape.num_heads, shape.num_kv_heads, shape.head_dim,
          shape.rotary_dim, shape.page_tokens, shape.is_interleaved, shape.has_norm);
  const Inputs inputs(shape, kRows, seed);
  const TestKv kv(shape.dtype, shape.num_kv_heads, shape.head_dim, shape.page_tokens, kNumPages);
  const auto qkv = Run(shape, inputs, 0, kRows, kv, path, 2, 5);
  // A rotation is two products and a sum: 2 eps of the magnitude; the norm's chain of D squares errs by (D + 2) eps,
  // halved by the root, plus five roundings of scale and products. eps = 2^-24.
  const double relative = 0x1p-24 * (3 + (shape.has_norm ? 0.5 * (shape.head_dim + 2) + 5 : 0));
  std::vector<float> stored(static_cast<size_t>(shape.head_dim));
  for (int64_t r = 0; r < kRows; ++r) {
    CAPTURE(r);
    const float* raw = inputs.qkv.data() + r * shape.width();
    const int64_t position = inputs.positions[static_cast<size_t>(r)];
    const int64_t slot = inputs.slots[static_cast<size_t>(r)];
    for (int64_t h = 0; h < shape.num_heads; ++h) {
      const auto want =
          Rotated(shape, inputs, raw + h * shape.head_dim, shape.has_norm ? inputs.q_norm.data() : nullptr, position);
      CheckHead(want, qkv.data() + r * (shape.width() + 5) + h * shape.head_dim, relative, DType::kF32);
    }
    for (int64_t g = 0; g < shape.num_kv_heads && slot >= 0; ++g) {
      const float* key = raw + (shape.num_heads + g) * shape.head_dim;
      const float* value = key + shape.num_kv_heads * shape.head_dim;
      const KvLayer& layer = kv.layer();
      const int64_t at = ((slot / shape.page_tokens) * shape.num_kv_heads + g) * shape.page_tokens +
                         slot % shape.page_tokens;  // [P, G, page_tokens]
      cpu::LoadKvVector(layer, layer.keys, layer.key_scales, at, stored.data());
      CheckHead(Rotated(shape, inputs, key, shape.has_norm ? inputs.k_norm.data() : nullptr, position), stored.data(),
                relative, shape.dtype);
      cpu::LoadKvVector(layer, layer.values, layer.value_scales, at, stored.data());
      HeadReference as_is{.values = std::vector<double>(value, value + shape.head_dim)};
      for (const double number : as_is.values) as_is.magnitude.push_back(std::abs(number));
      CheckHead(as_is, stored.data(), 0, shape.dtype);
    }
  }
}

// The bytes of a layer's keys, values and scales, one string of them per slot and head.
std::vector<std::vector<uint8_t>> Vectors(const KvLayer& kv) {
  const size_t bytes = static_cast<size_t>(kv.head_dim) * DTypeBytes(kv.dtype);
  std::vector<std::vector<uint8_t>> vectors;
  const auto count = static_cast<size_t>(kv.num_pages) * static_cast<size_t>(kv.num_kv_heads * kv.page_tokens);
  for (size_t i = 0; i < count; ++i) {
    std::vector<uint8_t> vector;
    const auto append = [&](const void* from, size_t size) {
      const uint8_t* first = static_cast<const uint8_t*>(from);
      vector.insert(vector.end(), first, first + size);
    };
    append(static_cast<const uint8_t*>(kv.keys) + i * bytes, bytes);
    append(static_cast<const uint8_t*>(kv.values) + i * bytes, bytes);
    append(kv.key_scales + i, sizeof(float));
    append(kv.value_scales + i, sizeof(float));
    vectors.push_back(vector);
  }
  return vectors;
}

}  // namespace

TEST_CASE("RopeAppend: both pairings, with and without QK-norm, agree with double in every KV type",
          "[kernels][rope_append]") {
  uint32_t seed = 1;
  for (const CpuPath path : Paths()) {
    for (const DType dtype : kKvTypes) {
      for (const bool is_interleaved : {false, true}) {
        for (const bool has_norm : {false, true}) {
          for (const int head_dim : {2, 10, 64, 80, 128}) {
            const Shape shape{.dtype = dtype,
                              .head_dim = head_dim,
                              .rotary_dim = head_dim,
                              .is_interleaved = is_interleaved,
                              .has_norm = has_norm};
            CheckAgainstDouble(shape, path, seed += 10);
          }
        }
      }
    }
  }
}

TEST_CASE("RopeAppend: partial rotation, head groupings and page sizes agree with double", "[kernels][rope_append]") {
  uint32_t seed = 7;
  for (const CpuPath path : Paths()) {
    for (const bool is_interleaved : {false, true}) {
      for (const int rotary_dim : {2, 6, 20, 32}) {
        CheckAgainstDouble({.num_heads = 3,
                            .num_kv_heads = 3,
                            .head_dim = 80,
                            .rotary_dim = rotary_dim,
                            .page_tokens = 1,
                            .is_interleaved = is_interleaved,
                            .has_norm = true},
                           path, seed += 10);
        CheckAgainstDouble({.dtype = DType::kBF16,
                            .num_heads = 7,
                            .num_kv_heads = 1,
                            .head_dim = 34,
                            .rotary_dim = rotary_dim,
                            .page_tokens = 7,
                            .is_interleaved = is_interleaved},
                           path, seed += 10);
      }
    }
  }
}

TEST_CASE("RopeAppend: a negative slot stores nothing, and no slot but a row's own is written",
          "[kernels][rope_append]") {
  constexpr int64_t kRows = 24;
  for (const CpuPath path : Paths()) {
    for (const DType dtype : kKvTypes) {
      CAPTURE(static_cast<int>(path), DTypeName(dtype));
      const Shape shape{.dtype = dtype};
      Inputs inputs(shape, kRows, 5);
      const TestKv kv(dtype, shape.num_kv_heads, shape.head_dim, shape.page_tokens, kNumPages);
      const auto before = Vectors(kv.layer());
      Run(shape, inputs, 0, kRows, kv, path, 3);
      const auto after = Vectors(kv.layer());
      for (int64_t i = 0; i < static_cast<int64_t>(after.size()); ++i) {
        const int64_t page = i / (shape.num_kv_heads * shape.page_tokens);
        const int64_t slot = page * shape.page_tokens + i % shape.page_tokens;
        const bool is_own = std::find(inputs.slots.begin(), inputs.slots.end(), slot) != inputs.slots.end();
        CHECK((after[static_cast<size_t>(i)] != before[static_cast<size_t>(i)]) == is_own);
      }
      // With every slot negative the queries are rewritten as ever and the pages stay as they are.
      const auto stored = Run(shape, inputs, 0, kRows, kv, path, 2);
      std::fill(inputs.slots.begin(), inputs.slots.end(), -1);
      const auto skipped = Run(shape, inputs, 0, kRows, kv, path, 2);
      CHECK(Vectors(kv.layer()) == after);
      for (int64_t r = 0; r < kRows; ++r) {
        const size_t at = static_cast<size_t>(r * shape.width());
        CHECK(std::memcmp(stored.data() + at, skipped.data() + at, sizeof(float) * 4 * 16) == 0);
      }
    }
  }
}

TEST_CASE("RopeAppend: position zero rotates nothing and a zero key is stored as zero", "[kernels][rope_append]") {
  for (const CpuPath path : Paths()) {
    for (const DType dtype : kKvTypes) {
      const Shape shape{.dtype = dtype};
      Inputs inputs(shape, 1, 6);
      const auto zeros = static_cast<ptrdiff_t>(shape.num_heads * shape.head_dim);
      std::fill(inputs.qkv.begin() + zeros, inputs.qkv.end(), 0.0f);
      const TestKv kv(dtype, shape.num_kv_heads, shape.head_dim, shape.page_tokens, kNumPages);
      const auto qkv = Run(shape, inputs, 0, 1, kv, path, 1);
      CHECK(std::equal(qkv.begin(), qkv.begin() + zeros, inputs.qkv.begin()));
      const KvLayer& layer = kv.layer();
      const int64_t at = cpu::KvVectorIndex(layer, inputs.slots[0] / 16, 1, inputs.slots[0] % 16);
      std::vector<float> stored(16);
      cpu::LoadKvVector(layer, layer.keys, layer.key_scales, at, stored.data());
      CHECK(stored == std::vector<float>(16, 0.0f));
    }
  }
}

TEST_CASE("RopeAppend: a row's bits do not depend on the other rows or the threads", "[kernels][rope_append]") {
  constexpr int64_t kRows = 13;
  for (const CpuPath path : Paths()) {
    for (const DType dtype : kKvTypes) {
      const Shape shape{.dtype = dtype, .head_dim = 40, .rotary_dim = 40, .has_norm = true};
      const Inputs inputs(shape, kRows, 9);
      const TestKv alone(dtype, shape.num_kv_heads, shape.head_dim, shape.page_tokens, kNumPages);
      std::vector<float> rows;
      for (int64_t r = 0; r < kRows; ++r) {
        const auto row = Run(shape, inputs, r, 1, alone, path, 1);
        rows.insert(rows.end(), row.begin(), row.end());
      }
      for (const int num_threads : {1, 2, 3, 8}) {
        CAPTURE(static_cast<int>(path), DTypeName(dtype), num_threads);
        const TestKv together(dtype, shape.num_kv_heads, shape.head_dim, shape.page_tokens, kNumPages);
        const auto batch = Run(shape, inputs, 0, kRows, together, path, num_threads);
        CHECK(std::memcmp(rows.data(), batch.data(), rows.size() * sizeof(float)) == 0);
        CHECK(Vectors(alone.layer()) == Vectors(together.layer()));
      }
    }
  }
}

}  // namespace millrace
