// SPDX-License-Identifier: Apache-2.0
// RmsNorm, SwiGlu, Embed and GatherRows. eps below is 2^-24, half the spacing of float32 at 1.
#include <algorithm>
#include <catch2/catch.hpp>
#include <cmath>
#include <cstring>
#include <limits>
#include <random>
#include <vector>

#include "kernels/cpu/cpu_features.h"
#include "kernels/cpu/op_functions.h"
#include "kernels/ops.h"
#include "tests/support/reference.h"

namespace millrace {
namespace {

using testing::RandomFloats;

constexpr int64_t kWidths[] = {1, 2, 7, 15, 16, 17, 31, 32, 33, 61, 127, 1009};
constexpr float kPoison = -12345.0f;

std::vector<CpuPath> Paths() {
  std::vector<CpuPath> paths = {CpuPath::kReference};
  for (const CpuPath path : {CpuPath::kAvx2, CpuPath::kAvx512}) {
    if (cpu::HasCpuPath(path)) paths.push_back(path);
  }
  return paths;
}

// A matrix that owns its memory; `padding` elements after each row are poisoned, as is everything unwritten.
struct Rows {
  Rows(int64_t rows, int64_t cols, int64_t padding) : Rows({}, rows, cols, padding) {}
  Rows(const std::vector<float>& values, int64_t rows, int64_t cols, int64_t padding)
      : storage(static_cast<size_t>(rows * (cols + padding)), kPoison) {
    view = {.data = storage.data(), .rows = rows, .cols = cols, .stride = cols + padding};
    for (int64_t r = 0; r < rows && !values.empty(); ++r) std::copy_n(values.data() + r * cols, cols, Row(r));
  }
  Rows(const Rows&) = delete;
  Rows& operator=(const Rows&) = delete;

  float* Row(int64_t row) { return storage.data() + row * view.stride; }
  bool IsPaddingUntouched() {
    for (int64_t r = 0; r < view.rows; ++r) {
      for (int64_t c = view.cols; c < view.stride; ++c) {
        if (Row(r)[c] != kPoison) return false;
      }
    }
    return true;
  }

  std::vector<float> storage;
  Matrix view;
};

bool SameBits(const float* a, const float* b, int64_t count) {
  return std::memcmp(a, b, static_cast<size_t>(count) * sizeof(float)) == 0;
}

void CheckNear(double got, double expected, double tolerance, int64_t row, int64_t column) {
  if (std::abs(got - expected) <= tolerance) return;
  CAPTURE(row, column, got, expected, tolerance);
  FAIL_CHECK("differs from the reference");
}

// Runs `op(begin, count, threads, out)` on every single row and on batches; all must give the same bits.
template <typename Op>
void CheckRowsAreIndependent(int64_t num_rows, int64_t cols, const Op& op) {
  Rows alone(num_rows, cols, 0);
  for (int64_t r = 0; r < num_rows; ++r) {
    Rows one(1, cols, 0);
    op(r, 1, 1, one.view);
    std::copy_n(one.Row(0), cols, alone.Row(r));
  }
  for (const int num_threads : {1, 2, 3, 8}) {
    for (const int64_t begin : {int64_t{0}, num_rows / 3}) {
      CAPTURE(num_threads, begin);
      Rows batch(num_rows - begin, cols, 3);
      op(begin, num_rows - begin, num_threads, batch.view);
      for (int64_t r = begin; r < num_rows; ++r) CHECK(SameBits(alone.Row(r), batch.Row(r - begin), cols));
      CHECK(batch.IsPaddingUntouched());
    }
  }
}

Matrix View(std::vector<float>& values, int64_t begin, int64_t count, int64_t cols) {
  return {.data = values.data() + begin * cols, .rows = count, .cols = cols, .stride = cols};
}

}  // namespace

TEST_CASE("RmsNorm: every path and width agrees with double precision", "[kernels][row_ops]") {
  constexpr int64_t kRows = 5;
  constexpr float kEps = 1e-5f;
  cpu::ThreadPool pool(2);
  for (const CpuPath path : Paths()) {
    for (const int64_t cols : kWidths) {
      for (const float sigma : {1e-6f, 1.0f, 1e4f}) {
        CAPTURE(static_cast<int>(path), cols, sigma);
        Rows x(RandomFloats(kRows * cols, 3, sigma), kRows, cols, 5);
        std::fill_n(x.Row(4), cols, 0.0f);
        const auto weight = RandomFloats(cols, 4);
        Rows out(kRows, cols, 2);
        cpu::RmsNorm({.x = x.view, .weight = weight.data(), .eps = kEps, .out = out.view}, {pool, path});
        // The sum of squares is of positive numbers in 16 chains, so it errs by (cols/16 + 18) * eps relative, of which
        // the root keeps half; four more roundings make the scale and two the product.
        const double relative = 0x1p-24 * (0.5 * (static_cast<double>(cols) / 16 + 18) + 6);
        for (int64_t r = 0; r < kRows; ++r) {
          double squares = 0;
          for (int64_t c = 0; c < cols; ++c) squares += static_cast<double>(x.Row(r)[c]) * x.Row(r)[c];
          const double scale = 1 / std::sqrt(squares / static_cast<double>(cols) + kEps);
          for (int64_t c = 0; c < cols; ++c) {
            const double expected = x.Row(r)[c] * scale * weight[static_cast<size_t>(c)];
            CheckNear(out.Row(r)[c], expected, relative * std::abs(expected), r, c);
          }
        }
        CHECK(out.IsPaddingUntouched());
        // In place gives the same bits.
        cpu::RmsNorm({.x = x.view, .weight = weight.data(), .eps = kEps, .out = x.view}, {pool, path});
        for (int64_t r = 0; r < kRows; ++r) CHECK(SameBits(x.Row(r), out.Row(r), cols));
      }
    }
  }
}

TEST_CASE("SwiGlu: every path and width agrees with double precision", "[kernels][row_ops]") {
  constexpr int64_t kRows = 4;
  cpu::ThreadPool pool(2);
  for (const CpuPath path : Paths()) {
    for (const int64_t cols : kWidths) {
      for (const float sigma : {0.1f, 4.0f, 25.0f}) {
        CAPTURE(static_cast<int>(path), cols, sigma);
        Rows gate_up(RandomFloats(kRows * 2 * cols, 6, sigma), kRows, 2 * cols, 3);
        Rows out(kRows, cols, 2);
        cpu::SwiGlu({.gate_up = gate_up.view, .out = out.view}, {pool, path});
        for (int64_t r = 0; r < kRows; ++r) {
          for (int64_t c = 0; c < cols; ++c) {
            const double gate = gate_up.Row(r)[c], up = gate_up.Row(r)[cols + c];
            const double expected = gate / (1 + std::exp(-gate)) * up;
            // exp errs by 4 eps, and by the rounding of its reduced argument (at most |gate| / ln 2 whole parts, each
            // reduced in two exact steps): (|gate| / 8 + 6) * eps; sum, quotient and product add one each. The least
            // normal number covers a sigmoid that leaves float32.
            const double relative = 0x1p-24 * (std::abs(gate) / 8 + 9);
            CheckNear(out.Row(r)[c], expected, relative * std::abs(expected) + 0x1p-126 * std::abs(up), r, c);
          }
        }
        CHECK(out.IsPaddingUntouched());
      }
    }
  }
}

TEST_CASE("SwiGlu: large gates saturate and never make a NaN of numbers", "[kernels][row_ops]") {
  cpu::ThreadPool pool(1);
  for (const CpuPath path : Paths()) {
    for (const float size : {87.0f, 88.0f, 89.0f, 104.0f, 1e4f, 3e38f}) {
      CAPTURE(static_cast<int>(path), size);
      std::vector<float> gate_up = {size, -size, 0.0f, 0.5f, 0.5f, 7.0f}, out(3, kPoison);
      cpu::SwiGlu({.gate_up = View(gate_up, 0, 1, 6), .out = View(out, 0, 1, 3)}, {pool, path});
      CHECK(out[0] == size * 0.5f);
      CHECK(std::abs(out[1]) <= 1e-35f);
      CHECK(out[2] == 0);
    }
  }
}

TEST_CASE("Embed: every table type is looked up exactly", "[kernels][row_ops]") {
  constexpr int64_t kVocab = 53;
  const std::vector<int32_t> tokens = {0, 52, 7, 7, 31, 1, 0};
  const int64_t num_rows = static_cast<int64_t>(tokens.size());
  cpu::ThreadPool pool(2);
  for (const CpuPath path : Paths()) {
    for (const DType dtype : {DType::kF32, DType::kF16, DType::kBF16}) {
      for (const int64_t cols : kWidths) {
        for (const float scale : {1.0f, 0.7f, 45.25f}) {
          CAPTURE(static_cast<int>(path), DTypeName(dtype), cols, scale);
          const int64_t stride = cols + 3;
          auto values = RandomFloats(kVocab * stride, 8);
          values[0] = 1e-7f;  // subnormal in float16
          std::vector<uint16_t> halves;
          for (float& value : values) {
            halves.push_back(dtype == DType::kF16 ? cpu::F16FromFloat(value) : cpu::Bf16FromFloat(value));
            if (dtype == DType::kF16) value = cpu::FloatFromF16(halves.back());
            if (dtype == DType::kBF16) value = cpu::FloatFromBf16(halves.back());
          }
          const bool is_full = dtype == DType::kF32;
          const Matrix table = {.data = is_full ? static_cast<void*>(values.data()) : halves.data(),
                                .dtype = dtype,
                                .rows = kVocab,
                                .cols = cols,
                                .stride = stride};
          Rows out(num_rows, cols, 2);
          cpu::Embed({.table = table, .tokens = tokens, .out = out.view, .scale = scale}, {pool, path});
          for (int64_t r = 0; r < num_rows; ++r) {
            for (int64_t c = 0; c < cols; ++c) {
              const double entry = values[static_cast<size_t>(tokens[static_cast<size_t>(r)] * stride + c)];
              // One product, rounded once: the nearest float of the exact one.
              CheckNear(out.Row(r)[c], static_cast<float>(entry * scale), 0, r, c);
            }
          }
          CHECK(out.IsPaddingUntouched());
        }
      }
    }
  }
}

TEST_CASE("Embed: ranks' parts of a table give each token's row once, and zeros elsewhere", "[kernels][row_ops]") {
  constexpr int64_t kVocab = 12, kCols = 9, kPart = 4;
  const std::vector<int32_t> tokens = {0, 11, 3, 4, 7, 8, 4};
  const int64_t num_rows = static_cast<int64_t>(tokens.size());
  cpu::ThreadPool pool(2);
  auto values = RandomFloats(kVocab * kCols, 9);
  for (int64_t first = 0; first < kVocab; first += kPart) {
    const Matrix part = {.data = &values[static_cast<size_t>(first * kCols)],
                         .dtype = DType::kF32,
                         .rows = kPart,
                         .cols = kCols,
                         .stride = kCols};
    Rows out(num_rows, kCols, 2);
    cpu::Embed({.table = part,
                .tokens = tokens,
                .out = out.view,
                .first_token = static_cast<int32_t>(first),
                .whole_tokens = kVocab},
               {pool, CpuPath::kReference});
    for (int64_t r = 0; r < num_rows; ++r) {
      const int64_t token = tokens[static_cast<size_t>(r)];
      const bool is_here = token >= first && token < first + kPart;
      for (int64_t c = 0; c < kCols; ++c) {
        CHECK(out.Row(r)[c] == (is_here ? values[static_cast<size_t>(token * kCols + c)] : 0.0f));
      }
    }
    CHECK(out.IsPaddingUntouched());
  }
}

TEST_CASE("GatherRows: copies the bits of the rows named, in their order", "[kernels][row_ops]") {
  constexpr int64_t kRows = 11;
  const std::vector<int32_t> rows = {10, 0, 3, 3, 7};
  cpu::ThreadPool pool(2);
  for (const CpuPath path : Paths()) {
    for (const int64_t cols : kWidths) {
      CAPTURE(static_cast<int>(path), cols);
      Rows x(RandomFloats(kRows * cols, 9), kRows, cols, 4);
      x.Row(3)[0] = std::numeric_limits<float>::quiet_NaN();
      Rows out(static_cast<int64_t>(rows.size()), cols, 1);
      cpu::GatherRows({.x = x.view, .rows = rows, .out = out.view}, {pool, path});
      for (size_t r = 0; r < rows.size(); ++r) CHECK(SameBits(out.Row(static_cast<int64_t>(r)), x.Row(rows[r]), cols));
      CHECK(out.IsPaddingUntouched());
      Rows none(1, cols, 0);
      cpu::GatherRows({.x = x.view, .rows = {}, .out = {.data = none.view.data, .cols = cols, .stride = cols}},
                      {pool, path});
      CHECK(none.Row(0)[0] == kPoison);
    }
  }
}

TEST_CASE("RmsNorm, SwiGlu, Embed: a row's bits do not depend on the other rows or the threads", "[kernels][row_ops]") {
  constexpr int64_t kRows = 23;
  for (const CpuPath path : Paths()) {
    for (const int64_t cols : {int64_t{7}, int64_t{64}, int64_t{251}}) {
      CAPTURE(static_cast<int>(path), cols);
      auto x = RandomFloats(kRows * cols, 10), gate_up = RandomFloats(kRows * 2 * cols, 11, 3);
      const auto weight = RandomFloats(cols, 12);
      std::vector<int32_t> tokens;
      for (int32_t r = 0; r < kRows; ++r) tokens.push_back(r * 5 % kRows);
      CheckRowsAreIndependent(kRows, cols, [&](int64_t begin, int64_t count, int num_threads, const Matrix& out) {
        cpu::ThreadPool pool(num_threads);
        cpu::RmsNorm({.x = View(x, begin, count, cols), .weight = weight.data(), .out = out}, {pool, path});
      });
      CheckRowsAreIndependent(kRows, cols, [&](int64_t begin, int64_t count, int num_threads, const Matrix& out) {
        cpu::ThreadPool pool(num_threads);
        cpu::SwiGlu({.gate_up = View(gate_up, begin, count, 2 * cols), .out = out}, {pool, path});
      });
      CheckRowsAreIndependent(kRows, cols, [&](int64_t begin, int64_t count, int num_threads, const Matrix& out) {
        cpu::ThreadPool pool(num_threads);
        const auto some = absl::MakeConstSpan(tokens).subspan(static_cast<size_t>(begin), static_cast<size_t>(count));
        cpu::Embed({.table = View(x, 0, kRows, cols), .tokens = some, .out = out, .scale = 1.5f}, {pool, path});
      });
    }
  }
}

}  // namespace millrace
