// SPDX-License-Identifier: Apache-2.0
#include "kernels/cpu/matmul.h"

#include <algorithm>
#include <catch2/catch.hpp>
#include <cstring>
#include <string>
#include <vector>

#include "kernels/cpu/cpu_features.h"
#include "kernels/device.h"
#include "kernels/ops.h"
#include "tests/support/reference.h"

namespace millrace {
namespace {

using testing::FillWeight;
using testing::RandomFloats;
using testing::ReferenceDot;
using testing::ReferenceSum;
using testing::TestWeight;
using testing::WeightKind;

constexpr WeightKind kKinds[] = {
    {WeightFormat::kDense, DType::kBF16},        {WeightFormat::kDense, DType::kF16},
    {WeightFormat::kDense, DType::kF32},         {WeightFormat::kInt8, DType::kI8, 0},
    {WeightFormat::kInt8, DType::kI8, 32},       {WeightFormat::kInt8, DType::kI8, 128},
    {WeightFormat::kInt4, DType::kU8, 32},       {WeightFormat::kInt4, DType::kU8, 64},
    {WeightFormat::kInt4, DType::kU8, 128},      {WeightFormat::kInt4, DType::kU8, 32, true},
    {WeightFormat::kInt4, DType::kU8, 128, true}};
constexpr CpuPath kPaths[] = {CpuPath::kReference, CpuPath::kAvx2, CpuPath::kAvx512};

std::string Describe(const WeightKind& kind) {
  const char* format = kind.format == WeightFormat::kDense  ? "dense "
                       : kind.format == WeightFormat::kInt8 ? "int8 "
                                                            : "int4 ";
  return format + std::string(DTypeName(kind.dtype)) + " group " + std::to_string(kind.group_size) +
         (kind.has_zeros ? " with zeros" : "");
}

struct Extras {
  const float* bias = nullptr;
  const float* residual = nullptr;
  int64_t padding = 0;  // of row strides
};

// One CPU path with its threads, workspace and a packed weight.
class Multiplier {
 public:
  Multiplier(CpuPath path, int num_threads) : pool_(num_threads), context_{pool_, path} {}

  void Load(const TestWeight& weight, int64_t max_rows) {
    auto packed = cpu::PackWeight(weight.source, context_);
    REQUIRE(packed.ok());
    packed_ = *std::move(packed);
    REQUIRE(workspace_.Reserve(max_rows, weight.source.k, pool_.num_threads()).ok());
  }

  // Rows of x lie k + padding apart; the result's n + padding.
  std::vector<float> Run(const std::vector<float>& x, int64_t rows, const Extras& extras = {}) {
    const int64_t n = packed_->n();
    const int64_t k = packed_->k();
    std::vector<float> out(static_cast<size_t>(rows * (n + extras.padding)), kUntouched);
    MatmulArgs args;
    args.x = {const_cast<float*>(x.data()), DType::kF32, rows, k, k + extras.padding};
    args.w = packed_.get();
    args.bias = extras.bias;
    args.out = {out.data(), DType::kF32, rows, n, n + extras.padding};
    args.residual = extras.residual;
    cpu::Matmul(args, context_, workspace_);
    return out;
  }

  static constexpr float kUntouched = -12345.0f;

 private:
  cpu::ThreadPool pool_;
  cpu::OpContext context_;
  cpu::MatmulWorkspace workspace_;
  std::unique_ptr<cpu::CpuPackedWeight> packed_;
};

// A bound on |y - reference|. Dense: rounding of x (bfloat16 only), then k float32 additions whose errors walk
// randomly. Quantised: each x moves by at most half a step, max|x| / 254, times |w|; added up for the worst case.
double Tolerance(const WeightKind& kind, const TestWeight& weight, const float* x, int64_t n, double magnitude) {
  const double sums = magnitude * 6e-8 * (4.0 + std::sqrt(static_cast<double>(weight.source.k)));
  if (kind.format == WeightFormat::kDense) return sums + 1e-30 + (kind.dtype == DType::kBF16 ? magnitude / 256 : 0);
  const int64_t group = kind.group_size == 0 ? weight.source.k : kind.group_size;
  double steps = 0;
  for (int64_t first = 0; first < weight.source.k; first += group) {
    double max = 0;
    for (int64_t k = first; k < first + group; ++k) max = std::max(max, std::fabs(static_cast<double>(x[k])));
    for (int64_t k = first; k < first + group; ++k) steps += std::fabs(weight.At(n, k)) * max / 254;
  }
  // Group scales are kept with 11 bits.
  return sums + steps * 1.001 + (kind.group_size == 0 ? 0 : magnitude / 2048) + 1e-30;
}

struct Shape {
  int64_t rows;
  int64_t n;
  int64_t k;
};

void CheckShape(const WeightKind& kind, CpuPath path, const Shape& shape, uint32_t seed) {
  TestWeight weight;
  FillWeight(kind, shape.n, shape.k, seed, weight);
  constexpr int64_t kPadding = 3;
  const std::vector<float> x = RandomFloats(shape.rows * (shape.k + kPadding), seed + 7);
  const std::vector<float> bias = RandomFloats(shape.n, seed + 8);
  const std::vector<float> residual = RandomFloats(shape.rows * (shape.n + kPadding), seed + 9);
  Multiplier multiplier(path, 2);
  multiplier.Load(weight, shape.rows);
  const std::vector<float> out =
      multiplier.Run(x, shape.rows, {.bias = bias.data(), .residual = residual.data(), .padding = kPadding});
  double dot = 0, out_square = 0, expected_square = 0;
  for (int64_t row = 0; row < shape.rows; ++row) {
    for (int64_t n = 0; n < shape.n; ++n) {
      const float* x_row = x.data() + row * (shape.k + kPadding);
      const int64_t index = row * (shape.n + kPadding) + n;
      const ReferenceSum expected = ReferenceDot(x_row, weight, n);
      const double extra = static_cast<double>(bias[n]) + residual[index];
      const double tolerance =
          Tolerance(kind, weight, x_row, n, expected.magnitude) + 3e-7 * (std::fabs(extra) + std::fabs(bias[n]));
      dot += (out[index] - extra) * expected.value;
      out_square += (out[index] - extra) * (out[index] - extra);
      expected_square += expected.value * expected.value;
      const double difference = std::fabs(out[index] - (expected.value + extra));
      if (!(difference <= tolerance)) {
        FAIL(Describe(kind) << " path " << static_cast<int>(path) << " shape " << shape.rows << "x" << shape.n << "x"
                            << shape.k << " at [" << row << ", " << n << "]: " << out[index] << " expected "
                            << expected.value + extra << " tolerance " << tolerance << " seed " << seed);
      }
    }
    for (int64_t n = shape.n; n < shape.n + kPadding; ++n) {
      REQUIRE(out[row * (shape.n + kPadding) + n] == Multiplier::kUntouched);
    }
  }
  // Rounding x to 8 bits in steps of max|x| / 127, about 3.5 deviations / 127, leaves 1 - cosine near 4e-5.
  const double bound = kind.format != WeightFormat::kDense ? 2e-4 : kind.dtype == DType::kBF16 ? 1e-5 : 1e-9;
  if (shape.rows * shape.n >= 64 && shape.k >= 64) CHECK(1 - dot / std::sqrt(out_square * expected_square) < bound);
}

TEST_CASE("Matmul: every format and path agrees with double precision on shapes at and off the tile edges",
          "[matmul]") {
  const CpuPath path = GENERATE(from_range(std::begin(kPaths), std::end(kPaths)));
  if (!cpu::HasCpuPath(path)) {
    WARN("[SKIPPED] this processor lacks " << std::string(cpu::CpuPathName(path)));
    return;
  }
  for (const WeightKind& kind : kKinds) {
    const int64_t unit = kind.group_size == 0 ? 1 : kind.group_size;
    uint32_t seed = 100;
    for (const Shape& shape : {Shape{1, 1, 1}, Shape{1, 64, 64}, Shape{2, 63, 5}, Shape{3, 65, 7}, Shape{5, 17, 3},
                               Shape{6, 128, 4}, Shape{7, 127, 9}, Shape{13, 15, 2}, Shape{25, 33, 11}}) {
      CheckShape(kind, path, {shape.rows, shape.n, shape.k * unit}, ++seed);
    }
    CheckShape(kind, path, {4, 70, 1536}, ++seed);  // several blocks of k
    CheckShape(kind, path, {37, 40, 640}, ++seed);
    CheckShape(kind, path, {2, 1152, 896}, ++seed);  // the fused projection and the down projection of a 0.5B model
    CheckShape(kind, path, {1, 100, 4864}, ++seed);
  }
}

std::vector<float> OneRow(const std::vector<float>& rows, int64_t row, int64_t cols) {
  return std::vector<float>(rows.begin() + row * cols, rows.begin() + (row + 1) * cols);
}

TEST_CASE("Matmul: a row's result is the same bits whatever the other rows and the threads are", "[matmul]") {
  const CpuPath path = GENERATE(from_range(std::begin(kPaths), std::end(kPaths)));
  if (!cpu::HasCpuPath(path)) {
    WARN("[SKIPPED] this processor lacks " << std::string(cpu::CpuPathName(path)));
    return;
  }
  constexpr int64_t kN = 200;
  for (const WeightKind& kind : kKinds) {
    // Odd where the format allows; more than one block of k in every format.
    const int64_t k = kind.group_size == 0 ? 1027 : 1280;
    TestWeight weight;
    FillWeight(kind, kN, k, 5, weight);
    const std::vector<float> x = RandomFloats(600 * k, 6);
    std::vector<std::vector<float>> alone;
    Multiplier solo(path, 1);
    solo.Load(weight, 1);
    for (int64_t row = 0; row < 600; row += 37) alone.push_back(solo.Run(OneRow(x, row, k), 1));
    for (int num_threads : {1, 2, 3}) {
      Multiplier multiplier(path, num_threads);
      multiplier.Load(weight, 600);
      for (int64_t rows : {2, 3, 7, 16, 33, 200, 600}) {
        if (path == CpuPath::kReference && (rows > 33 || num_threads > 2)) continue;  // slow, and one row at a time
        const std::vector<float> batch = multiplier.Run(x, rows);
        for (int64_t row = 0; row < rows; row += 37) {
          const std::vector<float> in_batch = OneRow(batch, row, kN);
          if (std::memcmp(in_batch.data(), alone[row / 37].data(), kN * sizeof(float)) != 0) {
            FAIL(Describe(kind) << " path " << static_cast<int>(path) << " row " << row << " of " << rows << " with "
                                << num_threads << " threads differs from the row alone");
          }
        }
      }
    }
  }
}

TEST_CASE("Matmul: the residual may be the output itself", "[matmul]") {
  const CpuPath path = GENERATE(from_range(std::begin(kPaths), std::end(kPaths)));
  if (!cpu::HasCpuPath(path)) return;
  TestWeight weight;
  FillWeight({WeightFormat::kDense, DType::kBF16}, 96, 64, 11, weight);
  cpu::ThreadPool pool(2);
  const cpu::OpContext context = {pool, path};
  auto packed = cpu::PackWeight(weight.source, context);
  REQUIRE(packed.ok());
  cpu::MatmulWorkspace workspace;
  REQUIRE(workspace.Reserve(9, 64, 2).ok());
  std::vector<float> x = RandomFloats(9 * 64, 12);
  const std::vector<float> before = RandomFloats(9 * 96, 13);
  std::vector<float> apart(before.size());
  std::vector<float> in_place = before;
  MatmulArgs args;
  args.x = {x.data(), DType::kF32, 9, 64, 64};
  args.w = packed->get();
  args.out = {apart.data(), DType::kF32, 9, 96, 96};
  args.residual = before.data();
  cpu::Matmul(args, context, workspace);
  args.out.data = in_place.data();
  args.residual = in_place.data();
  cpu::Matmul(args, context, workspace);
  REQUIRE(std::memcmp(apart.data(), in_place.data(), apart.size() * sizeof(float)) == 0);
}

TEST_CASE("Matmul: zeros stay zero and a value that is not a number stays visible", "[matmul]") {
  const CpuPath path = GENERATE(from_range(std::begin(kPaths), std::end(kPaths)));
  if (!cpu::HasCpuPath(path)) return;
  for (const WeightKind& kind : kKinds) {
    const int64_t k = 256;
    TestWeight weight;
    FillWeight(kind, 70, k, 21, weight);
    std::vector<float> x(3 * k, 0.0f);
    x[k + 5] = std::numeric_limits<float>::quiet_NaN();
    x[2 * k + 9] = std::numeric_limits<float>::infinity();
    Multiplier multiplier(path, 2);
    multiplier.Load(weight, 3);
    const std::vector<float> out = multiplier.Run(x, 3);
    for (int64_t n = 0; n < 70; ++n) {
      CHECK(out[n] == 0.0f);
      CHECK(std::isnan(out[70 + n]));
      CHECK(!std::isfinite(out[140 + n]));
    }
  }
}

}  // namespace
}  // namespace millrace
