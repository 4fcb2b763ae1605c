// SPDX-License-Identifier: Apache-2.0
// The operations of a mixture of experts on the CPU, on every path, against double precision.
#include "kernels/expert_ops.h"

#include <algorithm>
#include <catch2/catch.hpp>
#include <cmath>
#include <limits>
#include <numeric>
#include <vector>

#include "kernels/cpu/cpu_features.h"
#include "kernels/cpu/cpu_ops.h"
#include "tests/support/reference.h"

namespace millrace {
namespace {

using testing::FillWeight;
using testing::RandomFloats;
using testing::ReferenceDot;
using testing::TestWeight;
using testing::WeightKind;

std::vector<CpuPath> Paths() {
  std::vector<CpuPath> paths = {CpuPath::kReference};
  for (const CpuPath path : {CpuPath::kAvx2, CpuPath::kAvx512}) {
    if (cpu::HasCpuPath(path)) paths.push_back(path);
  }
  return paths;
}

Matrix View(const std::vector<float>& values, int64_t rows, int64_t cols) {
  return {.data = const_cast<float*>(values.data()), .rows = rows, .cols = cols, .stride = cols};
}

// Routes with memory of their own.
struct Routed {
  Routed(const std::vector<float>& logits, int num_experts, int num_choices, bool is_normalized, cpu::CpuOps& ops) {
    const int64_t num_rows = static_cast<int64_t>(logits.size()) / num_experts;
    const size_t count = static_cast<size_t>(num_rows * num_choices);
    for (std::vector<int32_t>* list : {&experts, &places, &rows}) list->assign(count, -1);
    weights.assign(count, -1.0f);
    starts.assign(static_cast<size_t>(num_experts) + 1, -1);
    view = {.num_experts = num_experts,
            .num_choices = num_choices,
            .experts = experts.data(),
            .weights = weights.data(),
            .places = places.data(),
            .rows = rows.data(),
            .starts = starts.data()};
    ops.experts().Route(
        {.logits = View(logits, num_rows, num_experts), .is_normalized = is_normalized, .routes = view});
  }

  std::vector<int32_t> experts, places, rows, starts;
  std::vector<float> weights;
  ExpertRoutes view;
};

// The order is a permutation by expert and, within one, by row.
void CheckOrder(const Routed& routed) {
  const size_t count = routed.experts.size();
  CHECK(routed.starts.front() == 0);
  CHECK(routed.starts.back() == static_cast<int32_t>(count));
  CHECK(std::is_sorted(routed.starts.begin(), routed.starts.end()));
  std::vector<bool> is_taken(count, false);
  for (size_t i = 0; i < count; ++i) {
    const size_t place = static_cast<size_t>(routed.places[i]), expert = static_cast<size_t>(routed.experts[i]);
    REQUIRE(place < count);
    CHECK_FALSE(is_taken[place]);
    is_taken[place] = true;
    CHECK(static_cast<int32_t>(place) >= routed.starts[expert]);
    CHECK(static_cast<int32_t>(place) < routed.starts[expert + 1]);
    CHECK(routed.rows[place] == static_cast<int32_t>(i) / routed.view.num_choices);
  }
  for (size_t e = 0; e + 1 < routed.starts.size(); ++e) {
    CHECK(std::is_sorted(routed.rows.begin() + routed.starts[e], routed.rows.begin() + routed.starts[e + 1]));
  }
}

TEST_CASE("Route: the best experts with their softmax weights, whatever the numbers", "[kernels][experts]") {
  struct Shape {
    int num_rows, num_experts, num_choices;
  };
  const Shape shape = GENERATE(Shape{1, 1, 1}, Shape{7, 4, 2}, Shape{33, 128, 8}, Shape{5, 512, 32}, Shape{3, 5, 5});
  const bool is_normalized = GENERATE(true, false);
  CAPTURE(shape.num_rows, shape.num_experts, shape.num_choices, is_normalized);
  cpu::CpuOps ops(2, CpuPath::kReference);
  const auto logits = RandomFloats(int64_t{shape.num_rows} * shape.num_experts, 5, 3.0f);
  const Routed routed(logits, shape.num_experts, shape.num_choices, is_normalized, ops);
  CheckOrder(routed);
  for (int row = 0; row < shape.num_rows; ++row) {
    const float* of_row = logits.data() + static_cast<size_t>(row * shape.num_experts);
    std::vector<int> order(static_cast<size_t>(shape.num_experts));
    std::iota(order.begin(), order.end(), 0);
    std::sort(order.begin(), order.end(), [&](int a, int b) { return of_row[a] > of_row[b]; });
    double sum = 0;
    const int num_summed = is_normalized ? shape.num_choices : shape.num_experts;
    for (int i = 0; i < num_summed; ++i) sum += std::exp(static_cast<double>(of_row[order[static_cast<size_t>(i)]]));
    for (int c = 0; c < shape.num_choices; ++c) {
      const size_t at = static_cast<size_t>(row * shape.num_choices + c);
      CHECK(routed.experts[at] == order[static_cast<size_t>(c)]);
      const double expected = std::exp(static_cast<double>(of_row[order[static_cast<size_t>(c)]])) / sum;
      // Rounding of the difference (magnitudes up to 30), of exp, of up to 512 positive terms, and of two products.
      CHECK(std::abs(routed.weights[at] - expected) <= expected * 0x1p-24 * (30 + 2 + 512 + 2));
    }
  }
}

TEST_CASE("Route: equal logits go to the lower number, and what is no number is chosen last", "[kernels][experts]") {
  constexpr float kNan = std::numeric_limits<float>::quiet_NaN(), kInf = std::numeric_limits<float>::infinity();
  cpu::CpuOps ops(1, CpuPath::kReference);
  const Routed routed({1, 2, 2, 1,              //
                       kNan, 0, -kInf, 3,       //
                       kNan, kNan, kNan, kNan,  //
                       kInf, 0, kInf, 0},
                      4, 3, true, ops);
  CheckOrder(routed);
  CHECK(routed.experts == std::vector<int32_t>{1, 2, 0, 3, 1, 0, 0, 1, 2, 0, 2, 1});
  for (const size_t row : {size_t{1}, size_t{2}, size_t{3}}) CHECK(std::isnan(routed.weights[row * 3 + 2]));
}

struct Mixture {
  static constexpr int kExperts = 6, kChoices = 2;
  static constexpr int64_t kHidden = 64, kOut = 50;

  Mixture(const WeightKind& kind, CpuPath path, int num_threads) : ops(num_threads, path) {
    for (uint32_t e = 0; e < kExperts; ++e) FillWeight(kind, kOut, kHidden, 100 + e, weights[e]);
    auto made = ops.experts().Pack(
        kExperts, [&](int e) -> absl::StatusOr<WeightSource> { return weights[static_cast<size_t>(e)].source; });
    REQUIRE(made.status().ToString() == "OK");
    packed = *std::move(made);
    CHECK(packed->num_experts() == kExperts);
    CHECK(packed->n() == kOut);
    CHECK(packed->k() == kHidden);
    REQUIRE(ops.ReserveWorkspace({.max_rows = 64, .max_inputs = kHidden, .max_outputs = kOut}).ok());
  }

  // [T, kOut]: what the experts of every row make of it, added to `residual`, where that is not empty.
  std::vector<float> Run(const std::vector<float>& x, const std::vector<float>& logits,
                         const std::vector<float>& residual) {
    const int64_t num_rows = static_cast<int64_t>(x.size()) / kHidden, num_choices = num_rows * kChoices;
    const Routed routed(logits, kExperts, kChoices, true, ops);
    const std::vector<float> sorted(static_cast<size_t>(num_choices * kHidden)),
        products(static_cast<size_t>(num_choices * kOut));
    ExpertOps& experts = ops.experts();
    experts.Dispatch(
        {.x = View(x, num_rows, kHidden), .routes = routed.view, .out = View(sorted, num_choices, kHidden)});
    experts.Matmul({.x = View(sorted, num_choices, kHidden),
                    .w = packed.get(),
                    .routes = routed.view,
                    .out = View(products, num_choices, kOut)});
    std::vector<float> in_place = residual, out(static_cast<size_t>(num_rows * kOut), -7.0f);
    const void* const apart = residual.empty() ? nullptr : residual.data();
    experts.Combine({.x = View(products, num_choices, kOut),
                     .routes = routed.view,
                     .out = View(out, num_rows, kOut),
                     .residual = apart});
    if (residual.empty()) return out;
    experts.Combine({.x = View(products, num_choices, kOut),
                     .routes = routed.view,
                     .out = View(in_place, num_rows, kOut),
                     .residual = in_place.data()});
    CHECK(in_place == out);
    return out;
  }

  cpu::CpuOps ops;
  TestWeight weights[kExperts];
  std::unique_ptr<PackedExperts> packed;
};

const WeightKind kKinds[] = {{.dtype = DType::kF32},
                             {.dtype = DType::kBF16},
                             {.format = WeightFormat::kInt8},
                             {.format = WeightFormat::kInt4, .group_size = 32, .has_zeros = true}};

TEST_CASE("Experts: rows go to their experts and come back weighed, in every format", "[kernels][experts]") {
  const WeightKind kind = GENERATE(from_range(std::begin(kKinds), std::end(kKinds)));
  const bool is_lopsided = GENERATE(false, true);
  constexpr int kRows = 23;
  for (const CpuPath path : Paths()) {
    CAPTURE(static_cast<int>(kind.format), static_cast<int>(path), is_lopsided);
    Mixture mixture(kind, path, 2);
    const auto x = RandomFloats(kRows * Mixture::kHidden, 1), residual = RandomFloats(kRows * Mixture::kOut, 2);
    auto logits = RandomFloats(kRows * Mixture::kExperts, 3);
    for (int row = 0; row < kRows && is_lopsided; ++row) {  // all choose 4 and 1: the others are idle
      logits[static_cast<size_t>(row * Mixture::kExperts + 4)] = 10;
      logits[static_cast<size_t>(row * Mixture::kExperts + 1)] = 9;
    }
    const auto out = mixture.Run(x, logits, residual);
    CHECK(mixture.Run(x, logits, {}) == mixture.Run(x, logits, std::vector<float>(residual.size())));
    const Routed routed(logits, Mixture::kExperts, Mixture::kChoices, true, mixture.ops);
    for (int row = 0; row < kRows; ++row) {
      const float* of_row = x.data() + row * Mixture::kHidden;
      for (int64_t n = 0; n < Mixture::kOut; ++n) {
        double expected = residual[static_cast<size_t>(row * Mixture::kOut + n)], magnitude = std::abs(expected);
        for (size_t c = 0; c < Mixture::kChoices; ++c) {
          const size_t choice = static_cast<size_t>(row) * Mixture::kChoices + c;
          const auto sum = ReferenceDot(of_row, mixture.weights[routed.experts[choice]], n);
          expected += routed.weights[choice] * sum.value;
          magnitude += routed.weights[choice] * sum.magnitude;
        }
        // 64 products in float32; bfloat16 rounds x, int8 moves it by at most max|x| / 254 with max|x| below 4.5.
        double relative = 0x1p-24 * (64 + 8);
        if (kind.format != WeightFormat::kDense) relative += 4.5 / 254 * 2;
        if (kind.dtype == DType::kBF16) relative += 0x1p-8;
        CHECK(std::abs(out[static_cast<size_t>(row * Mixture::kOut + n)] - expected) <= relative * magnitude);
      }
    }
  }
}

TEST_CASE("Experts: a row's bits depend on neither the other rows nor the threads", "[kernels][experts]") {
  const WeightKind kind = GENERATE(from_range(std::begin(kKinds), std::end(kKinds)));
  constexpr int64_t kRows = 40;
  const auto x = RandomFloats(kRows * Mixture::kHidden, 1), residual = RandomFloats(kRows * Mixture::kOut, 2),
             logits = RandomFloats(kRows * Mixture::kExperts, 3);
  const auto part = [](const std::vector<float>& values, int64_t begin, int64_t count, int64_t cols) {
    return std::vector<float>(values.begin() + begin * cols, values.begin() + (begin + count) * cols);
  };
  for (const CpuPath path : Paths()) {
    Mixture many(kind, path, 3), one(kind, path, 1);
    const auto whole = many.Run(x, logits, residual);
    for (const int64_t count : {int64_t{1}, int64_t{7}}) {
      std::vector<float> pieces;
      for (int64_t row = 0; row < kRows; row += count) {
        const int64_t rows = std::min(count, kRows - row);
        const auto out = one.Run(part(x, row, rows, Mixture::kHidden), part(logits, row, rows, Mixture::kExperts),
                                 part(residual, row, rows, Mixture::kOut));
        pieces.insert(pieces.end(), out.begin(), out.end());
      }
      CAPTURE(static_cast<int>(kind.format), static_cast<int>(path), count);
      CHECK(pieces == whole);
    }
  }
}

TEST_CASE("Experts: a source's fault and a weight's are told", "[kernels][experts]") {
  cpu::CpuOps ops(1, CpuPath::kReference);
  TestWeight weight;
  FillWeight({.dtype = DType::kF32}, 4, 8, 1, weight);
  const auto failing = ops.experts().Pack(3, [&](int e) -> absl::StatusOr<WeightSource> {
    if (e == 2) return absl::NotFoundError("expert 2");
    return weight.source;
  });
  CHECK(failing.status() == absl::NotFoundError("expert 2"));
  const auto empty = ops.experts().Pack(1, [](int) -> absl::StatusOr<WeightSource> { return WeightSource(); });
  CHECK(absl::IsInvalidArgument(empty.status()));
}

}  // namespace
}  // namespace millrace
