// SPDX-License-Identifier: Apache-2.0
// The kernels of a mixture of experts against double references: routing of any numbers, experts without rows, all rows
// at one expert, tails of rows, channels and K; outputs poisoned, rows padded with NaN.
#include <algorithm>
#include <cmath>
#include <limits>
#include <memory>
#include <numeric>
#include <string>
#include <vector>

#include "kernels/cuda/expert_combine.h"
#include "kernels/cuda/expert_matmul.h"
#include "kernels/cuda/expert_matmul_kernels.h"
#include "kernels/cuda/expert_route.h"
#include "tests/cuda/harness.h"
#include "tests/cuda/matmul_weight.h"

namespace millrace::cuda_test {
namespace {

struct Routes {
  Routes(int rows, int experts, int choices)
      : num_rows(rows),
        num_experts(experts),
        num_choices(choices),
        chosen(static_cast<size_t>(rows) * choices),
        places(chosen.count()),
        sources(chosen.count()),
        starts(static_cast<size_t>(experts) + 1),
        weights(chosen.count()) {}
  ExpertRoutes View() {
    return {.num_experts = num_experts,
            .num_choices = num_choices,
            .experts = chosen.data(),
            .weights = weights.data(),
            .places = places.data(),
            .rows = sources.data(),
            .starts = starts.data()};
  }
  // Rows with a negative slot are padding; without slots there is none.
  void Choose(const std::vector<float>& logits, bool is_normalized, const std::vector<int64_t>& slots = {}) {
    // Rows of logits are longer than E.
    const int stride = num_experts + 3;
    std::vector<float> padded(static_cast<size_t>(num_rows) * stride, std::numeric_limits<float>::quiet_NaN());
    for (int row = 0; row < num_rows; ++row) {
      std::copy_n(logits.begin() + row * num_experts, num_experts, padded.begin() + row * stride);
    }
    DeviceArray<float> device(padded);
    const Matrix matrix = {device.data(), DType::kF32, num_rows, num_experts, stride};
    DeviceArray<int64_t> device_slots(slots);
    EXPECT(cuda::LaunchExpertRoute({.logits = matrix,
                                    .is_normalized = is_normalized,
                                    .slots = slots.empty() ? nullptr : device_slots.data(),
                                    .routes = View()},
                                   nullptr) == cudaSuccess);
    host_chosen = chosen.Download();
    host_weights = weights.Download();
    host_places = places.Download();
    host_sources = sources.Download();
    host_starts = starts.Download();
  }

  int num_rows, num_experts, num_choices;
  DeviceArray<int32_t> chosen, places, sources, starts;
  DeviceArray<float> weights;
  std::vector<int32_t> host_chosen, host_places, host_sources, host_starts;
  std::vector<float> host_weights;
};

bool IsBefore(float a, float b) {
  const float infinity = std::numeric_limits<float>::infinity();
  return (std::isnan(a) ? -infinity : a) > (std::isnan(b) ? -infinity : b);
}

void CheckRoutes(const Routes& routes, const std::vector<float>& logits, bool is_normalized) {
  std::vector<std::vector<int32_t>> rows_of(static_cast<size_t>(routes.num_experts));
  for (int row = 0; row < routes.num_rows; ++row) {
    const float* of_row = logits.data() + static_cast<size_t>(row) * routes.num_experts;
    std::vector<int> order(static_cast<size_t>(routes.num_experts));
    std::iota(order.begin(), order.end(), 0);
    for (size_t i = 1; i < order.size(); ++i) {  // stable, whatever the numbers
      for (size_t j = i; j > 0 && IsBefore(of_row[order[j]], of_row[order[j - 1]]); --j)
        std::swap(order[j], order[j - 1]);
    }
    double sum = 0;
    for (int i = 0; i < (is_normalized ? routes.num_choices : routes.num_experts); ++i) {
      sum += std::exp(static_cast<double>(of_row[order[i]]) - of_row[order[0]]);
    }
    for (int c = 0; c < routes.num_choices; ++c) {
      const size_t at = static_cast<size_t>(row) * routes.num_choices + c;
      EXPECT(routes.host_chosen[at] == order[c]) << "row" << row << "choice" << c;
      const double want = std::exp(static_cast<double>(of_row[order[c]]) - of_row[order[0]]) / sum;
      const float got = routes.host_weights[at];
      if (std::isnan(want)) {
        EXPECT(std::isnan(got)) << "row" << row << "choice" << c;
      } else {
        // Differences of logits up to 32 round by 2^-19; exp and up to 512 positive terms by some 2^-24 each.
        EXPECT_NEAR(got, want, want * 6e-6 + 1e-30, "weight of row " + std::to_string(row));
      }
      rows_of[order[c]].push_back(static_cast<int32_t>(at));
    }
  }
  int place = 0;
  for (int e = 0; e < routes.num_experts; ++e) {
    EXPECT(routes.host_starts[e] == place) << "expert" << e;
    for (const int32_t choice : rows_of[e]) {
      EXPECT(routes.host_places[choice] == place) << "choice" << choice;
      EXPECT(routes.host_sources[place] == choice / routes.num_choices) << "place" << place;
      ++place;
    }
  }
  EXPECT(routes.host_starts[routes.num_experts] == place);
}

KERNEL_TEST("expert route: the best experts, their weights and the order of all choices") {
  struct Shape {
    int rows, experts, choices;
  };
  for (const Shape& shape : {Shape{1, 1, 1}, Shape{9, 4, 2}, Shape{40, 32, 8}, Shape{17, 33, 5}, Shape{37, 128, 8},
                             Shape{3, 129, 32}, Shape{5, 512, 10}}) {
    for (const bool is_normalized : {true, false}) {
      Random random(static_cast<uint32_t>(shape.rows));
      const auto logits = random.Floats(static_cast<size_t>(shape.rows) * shape.experts, -8, 8);
      Routes routes(shape.rows, shape.experts, shape.choices);
      routes.Choose(logits, is_normalized);
      CheckRoutes(routes, logits, is_normalized);
    }
  }
}

KERNEL_TEST("expert route: ties, infinities and what is no number") {
  const float nan = std::numeric_limits<float>::quiet_NaN(), infinity = std::numeric_limits<float>::infinity();
  const std::vector<float> logits = {1, 2, 2, 1, nan, 0, -infinity, 3, nan, nan, nan, nan, infinity, 0, infinity, 0};
  Routes routes(4, 4, 3);
  routes.Choose(logits, true);
  CheckRoutes(routes, logits, true);
}

KERNEL_TEST("expert route and combine: rows of padding ask no expert, and theirs are the residual") {
  constexpr int kRows = 21, kExperts = 40, kChoices = 3, kCols = 72;
  Random random(5);
  const auto logits = random.Floats(size_t{kRows} * kExperts, -8, 8);
  std::vector<int64_t> slots(kRows);
  int num_padding = 0;
  for (int row = 0; row < kRows; ++row) {
    slots[static_cast<size_t>(row)] = row % 4 == 1 || row > 17 ? -1 : row;
    num_padding += slots[static_cast<size_t>(row)] < 0 ? 1 : 0;
  }
  Routes whole(kRows, kExperts, kChoices), padded(kRows, kExperts, kChoices);
  whole.Choose(logits, true);
  padded.Choose(logits, true, slots);
  const int num_placed = (kRows - num_padding) * kChoices;
  EXPECT(padded.host_starts[kExperts] == num_placed);
  for (int i = 0; i < kRows * kChoices; ++i) {
    const bool is_padding = slots[static_cast<size_t>(i / kChoices)] < 0;
    EXPECT(padded.host_chosen[i] == (is_padding ? -1 : whole.host_chosen[i])) << "choice" << i;
    EXPECT((padded.host_sources[i] < 0) == (i >= num_placed)) << "place" << i;
    if (is_padding) continue;
    const int32_t place = padded.host_places[i], expert = padded.host_chosen[i];
    EXPECT(padded.host_sources[place] == i / kChoices) << "choice" << i;
    EXPECT(padded.host_starts[expert] <= place && place < padded.host_starts[expert + 1]) << "choice" << i;
  }
  DeviceArray<uint16_t> x(std::vector<uint16_t>(size_t{kRows} * kChoices * kCols, Bf16FromFloat(1.0f)));
  DeviceArray<uint16_t> out(std::vector<uint16_t>(size_t{kRows} * kCols, Bf16FromFloat(2.0f)));
  for (const bool has_residual : {true, false}) {
    EXPECT(cuda::LaunchExpertCombine({.x = {x.data(), DType::kBF16, kRows * kChoices, kCols, kCols},
                                      .routes = padded.View(),
                                      .out = {out.data(), DType::kBF16, kRows, kCols, kCols},
                                      .residual = has_residual ? out.data() : nullptr},
                                     nullptr) == cudaSuccess);
    const std::vector<uint16_t> sums = out.Download();
    const float residual = has_residual ? 2.0f : 0.0f;
    for (int i = 0; i < kRows * kCols; ++i) {
      const float sum = slots[static_cast<size_t>(i / kCols)] < 0 ? 0.0f : 1.0f;  // a row's weights sum to one
      EXPECT_NEAR(FloatFromBf16(sums[static_cast<size_t>(i)]), residual + sum, 0.02, "element " + std::to_string(i));
    }
  }
}

KERNEL_TEST("expert combine: choices are added in their order, tails included") {
  for (const DType dtype : {DType::kBF16, DType::kF16}) {
    for (const int cols : {1, 8, 13, 2056}) {
      Random random(11);
      Routes routes(5, 6, 3);
      routes.Choose(random.Floats(5 * 6, -3, 3), true);
      const int stride = cols + 8;
      const auto rows = [&](int count, std::vector<float>& values) {
        std::vector<unsigned char> bytes(static_cast<size_t>(count) * stride * 2, 0xff);
        for (int row = 0; row < count; ++row) {
          for (int c = 0; c < cols; ++c) {
            values.push_back(Rounded(dtype, random.Float(-2, 2)));
            Store(dtype, values.back(), bytes.data() + (static_cast<size_t>(row) * stride + c) * 2);
          }
        }
        return bytes;
      };
      std::vector<float> x, before;
      DeviceArray<unsigned char> x_device(rows(15, x)), residual(rows(5, before));
      DeviceArray<unsigned char> out(std::vector<unsigned char>(size_t{5} * stride * 2, 0xff));
      EXPECT(cuda::LaunchExpertCombine({.x = {x_device.data(), dtype, 15, cols, stride},
                                        .routes = routes.View(),
                                        .out = {out.data(), dtype, 5, cols, stride},
                                        .residual = residual.data()},
                                       nullptr) == cudaSuccess);
      const auto got = out.Download();
      for (int row = 0; row < 5; ++row) {
        for (int c = 0; c < cols; ++c) {
          double want = before[static_cast<size_t>(row) * cols + c];
          for (int choice = row * 3; choice < row * 3 + 3; ++choice) {
            want += static_cast<double>(routes.host_weights[choice]) *
                    x[static_cast<size_t>(routes.host_places[choice]) * cols + c];
          }
          const unsigned char* at = got.data() + (static_cast<size_t>(row) * stride + c) * 2;
          EXPECT_NEAR(Load(dtype, at), want, (std::fabs(want) + 1) * 1e-6 + RoundingOf(dtype) * std::fabs(want),
                      "row " + std::to_string(row) + " column " + std::to_string(c));
        }
        for (int i = cols * 2; i < stride * 2; ++i) {
          EXPECT(got[static_cast<size_t>(row) * stride * 2 + i] == 0xff) << "wrote past row" << row;
        }
      }
    }
  }
}

struct ExpertsShape {
  WeightFormat format;
  int group_size;
  bool has_zeros;
  int rows, experts, choices, n, k;
  bool is_lopsided;  // all rows choose the last experts
  DType dtype = DType::kBF16;
};

// Experts' matrices with random rows; every second expert of int4 has zero points.
class ExpertsCase {
 public:
  explicit ExpertsCase(const ExpertsShape& shape)
      : shape_(shape),
        random_(static_cast<uint32_t>(shape.rows * 100 + shape.n)),
        routes_(shape.rows, shape.experts, shape.choices) {
    auto logits = random_.Floats(static_cast<size_t>(shape.rows) * shape.experts, -3, 3);
    for (int i = 0; i < shape.rows * shape.experts && shape.is_lopsided; ++i) {
      logits[i] = static_cast<float>(i % shape.experts);
    }
    routes_.Choose(logits, true);
    std::vector<cuda::ExpertParts> parts;
    for (int e = 0; e < shape.experts; ++e) {
      MatmulShape matrix = {
          .format = shape.format, .w_dtype = shape.dtype, .group_size = shape.group_size, .n = shape.n, .k = shape.k};
      matrix.has_zeros = shape.has_zeros && e % 2 == 0;
      weights_.push_back(std::make_unique<RandomWeight>(matrix, random_));
      const cuda::WeightOnDevice& packed = weights_.back()->packed();
      parts.push_back({.values = packed.values,
                       .scales = packed.scales,
                       .zeros = matrix.has_zeros ? packed.zeros : nullptr,
                       .scale_unit = packed.scale_unit});
    }
    parts_ = std::make_unique<DeviceArray<cuda::ExpertParts>>(parts);
    MakeX();
    out_ = std::make_unique<DeviceArray<unsigned char>>(NumSorted() * OutStride() * 2);
  }

  cuda::ExpertMatmulLaunch Launch() {
    cuda::ExpertMatmulLaunch launch;
    const int rows = static_cast<int>(NumSorted());
    launch.x = {.dtype = shape_.dtype, .rows = rows, .cols = shape_.k, .stride = x_stride_};
    if (HasInt8X()) {
      launch.x_quantized = {reinterpret_cast<int8_t*>(x_device_->data()), x_scales_->data(), x_stride_};
    } else {
      launch.x.data = x_device_->data();
    }
    launch.w = weights_[0]->packed();
    launch.w.values = launch.w.scales = launch.w.zeros = nullptr;
    launch.experts = parts_->data();
    launch.routes = routes_.View();
    launch.out = {out_->data(), shape_.dtype, rows, shape_.n, static_cast<int64_t>(OutStride())};
    launch.num_multiprocessors = 2;
    return launch;
  }

  // The task of a kernel chosen by hand.
  cuda::ExpertMatmulTask Task(int rows_per_pass, int num_blocks) {
    const cuda::ExpertMatmulLaunch launch = Launch();
    cuda::ExpertMatmulTask task;
    task.experts = launch.experts;
    task.starts = launch.routes.starts;
    task.num_experts = shape_.experts;
    task.max_passes = static_cast<int>(NumSorted()) + shape_.experts;
    task.all.w = launch.w;
    task.all.num_rows = static_cast<int>(NumSorted());
    task.all.x = x_device_->data();
    task.all.x_dtype = HasInt8X() ? DType::kI8 : shape_.dtype;
    task.all.x_stride_bytes = x_stride_ * (HasInt8X() ? 1 : 2);
    if (HasInt8X()) task.all.epilogue.row_scales = x_scales_->data();
    task.all.epilogue.out = out_->data();
    task.all.epilogue.out_stride = static_cast<int64_t>(OutStride());
    task.all.epilogue.out_dtype = shape_.dtype;
    task.all.rows_per_pass = rows_per_pass;
    task.all.num_blocks = num_blocks;
    return task;
  }

  void Check(const std::string& name) const {
    const std::vector<unsigned char> out = out_->Download();
    for (size_t row = 0; row < NumSorted(); ++row) {
      int expert = 0;
      while (routes_.host_starts[expert + 1] <= static_cast<int>(row)) ++expert;
      for (int n = 0; n < shape_.n; ++n) {
        double want = 0, magnitude = 0;
        for (int k = 0; k < shape_.k; ++k) {
          const double product = x_[row * shape_.k + k] * weights_[expert]->Value(n, k);
          want += product;
          magnitude += std::fabs(product);
        }
        const double tolerance = (shape_.k + 4) * 0x1p-24 * magnitude;
        EXPECT_NEAR(Load(shape_.dtype, out.data() + (row * OutStride() + n) * 2), want,
                    tolerance + (RoundingOf(shape_.dtype) + 0x1p-22) * (std::fabs(want) + tolerance),
                    name + " row " + std::to_string(row) + " channel " + std::to_string(n));
      }
      for (size_t i = shape_.n * 2; i < OutStride() * 2; ++i) {
        EXPECT(out[row * OutStride() * 2 + i] == 0xff) << name << "wrote past row" << row;
      }
    }
  }
  std::vector<unsigned char> Output() const { return out_->Download(); }
  void Poison() { out_->Poison(); }

 private:
  size_t NumSorted() const { return static_cast<size_t>(shape_.rows) * shape_.choices; }
  size_t OutStride() const { return static_cast<size_t>(shape_.n) + 1; }
  bool HasInt8X() const { return shape_.format == WeightFormat::kInt8 && shape_.group_size == 0; }
  void MakeX() {
    x_stride_ = (shape_.k + 15) / 16 * 16 + 16;
    const size_t item_bytes = HasInt8X() ? 1 : 2;
    std::vector<unsigned char> bytes(NumSorted() * x_stride_ * item_bytes, 0xff);
    const std::vector<float> scales = random_.Floats(NumSorted(), 0.001f, 0.01f);
    for (size_t row = 0; row < NumSorted(); ++row) {
      for (int k = 0; k < shape_.k; ++k) {
        unsigned char* to = bytes.data() + (row * x_stride_ + k) * item_bytes;
        if (HasInt8X()) {
          const int value = random_.Int(-127, 127);
          *to = static_cast<unsigned char>(value);
          x_.push_back(value * static_cast<double>(scales[row]));
        } else {
          x_.push_back(Rounded(shape_.dtype, random_.Float(-1, 1)));
          Store(shape_.dtype, static_cast<float>(x_.back()), to);
        }
      }
    }
    x_device_ = std::make_unique<DeviceArray<unsigned char>>(bytes);
    if (HasInt8X()) x_scales_ = std::make_unique<DeviceArray<float>>(scales);
  }

  const ExpertsShape shape_;
  Random random_;
  Routes routes_;
  std::vector<std::unique_ptr<RandomWeight>> weights_;
  std::unique_ptr<DeviceArray<cuda::ExpertParts>> parts_;
  int x_stride_ = 0;
  std::vector<double> x_;
  std::unique_ptr<DeviceArray<unsigned char>> x_device_, out_;
  std::unique_ptr<DeviceArray<float>> x_scales_;
};

constexpr WeightFormat kDense = WeightFormat::kDense, kInt8 = WeightFormat::kInt8, kInt4 = WeightFormat::kInt4;

void RunSkinny(const ExpertsShape& shape, int rows_per_pass, int num_blocks) {
  ExpertsCase experts(shape);
  const auto task = experts.Task(rows_per_pass, num_blocks);
  EXPECT(cuda::LaunchSkinnyExpertMatmul(task, nullptr) == cudaSuccess);
  experts.Check("skinny");
  // Any other cut of the rows and any other number of blocks gives the same bits.
  const auto first = experts.Output();
  for (const int other : {8, 16, 64}) {
    experts.Poison();
    EXPECT(cuda::LaunchSkinnyExpertMatmul(experts.Task(other, num_blocks + 3), nullptr) == cudaSuccess);
    EXPECT(experts.Output() == first) << "differs with passes of" << other;
  }
}

KERNEL_TEST("expert matmul skinny: bfloat16 and float16, experts without rows, tails of rows, channels and K") {
  RunSkinny({kDense, 0, false, 1, 5, 2, 17, 64, false}, 8, 3);
  RunSkinny({kDense, 0, false, 11, 4, 2, 130, 72, false}, 8, 2);
  RunSkinny({kDense, 0, false, 19, 3, 2, 40, 136, true}, 16, 1);
  RunSkinny({kDense, 0, false, 70, 3, 1, 24, 40, true}, 32, 4);
  RunSkinny({kDense, 0, false, 11, 4, 2, 130, 72, false, DType::kF16}, 8, 2);
  RunSkinny({kDense, 0, false, 70, 3, 1, 24, 40, true, DType::kF16}, 64, 4);
}

KERNEL_TEST("expert matmul skinny: int4 with and without zero points, in one launch") {
  RunSkinny({kInt4, 32, true, 5, 6, 3, 33, 96, false}, 8, 4);
  RunSkinny({kInt4, 128, true, 13, 3, 2, 129, 256, false}, 16, 3);
  RunSkinny({kInt4, 64, false, 67, 2, 1, 257, 64, true}, 64, 2);
  RunSkinny({kInt4, 128, true, 13, 3, 2, 129, 256, false, DType::kF16}, 16, 3);
}

KERNEL_TEST("expert matmul skinny: int8 with a scale per channel and per group") {
  RunSkinny({kInt8, 0, false, 9, 4, 2, 130, 144, false}, 8, 3);
  RunSkinny({kInt8, 0, false, 40, 2, 1, 20, 112, true}, 64, 1);
  RunSkinny({kInt8, 32, false, 9, 4, 2, 20, 96, false}, 16, 2);
  RunSkinny({kInt8, 0, false, 9, 4, 2, 130, 144, false, DType::kF16}, 8, 3);
  RunSkinny({kInt8, 32, false, 9, 4, 2, 20, 96, false, DType::kF16}, 32, 2);
}

KERNEL_TEST("expert matmul plain: every format, and rows no other kernel takes") {
  for (const ExpertsShape& shape :
       {ExpertsShape{kDense, 0, false, 5, 4, 2, 33, 19, false}, ExpertsShape{kInt8, 0, false, 3, 5, 2, 31, 21, true},
        ExpertsShape{kInt8, 64, false, 3, 3, 2, 20, 128, false}, ExpertsShape{kInt4, 32, true, 7, 4, 2, 35, 64, false},
        ExpertsShape{kDense, 0, false, 5, 4, 2, 33, 19, false, DType::kF16},
        ExpertsShape{kInt4, 32, true, 7, 4, 2, 35, 64, false, DType::kF16}}) {
    ExpertsCase experts(shape);
    EXPECT(cuda::LaunchPlainExpertMatmul(experts.Task(8, 1), nullptr) == cudaSuccess);
    experts.Check("plain");
  }
}

KERNEL_TEST("expert matmul: the launcher serves any routing with the kernel it chooses") {
  for (const int rows : {1, 6, 50}) {
    for (const bool is_lopsided : {false, true}) {
      for (const ExpertsShape& shape : {ExpertsShape{kDense, 0, false, rows, 6, 2, 40, 64, is_lopsided},
                                        ExpertsShape{kDense, 0, false, rows, 6, 2, 9, 20, is_lopsided},
                                        ExpertsShape{kInt4, 32, true, rows, 6, 2, 40, 64, is_lopsided},
                                        ExpertsShape{kInt8, 0, false, rows, 6, 2, 40, 64, is_lopsided},
                                        ExpertsShape{kDense, 0, false, rows, 6, 2, 40, 64, is_lopsided, DType::kF16}}) {
        ExpertsCase experts(shape);
        EXPECT(cuda::LaunchExpertMatmul(experts.Launch(), nullptr) == cudaSuccess);
        experts.Check("launcher");
      }
    }
  }
}

KERNEL_TEST("expert matmul: a launch that makes no sense is refused") {
  ExpertsCase experts({kDense, 0, false, 2, 3, 1, 8, 16, false});
  cuda::ExpertMatmulLaunch launch = experts.Launch();
  launch.experts = nullptr;
  EXPECT(cuda::LaunchExpertMatmul(launch, nullptr) == cudaErrorInvalidValue) << "no experts";
  launch = experts.Launch();
  launch.out.dtype = DType::kF32;
  EXPECT(cuda::LaunchExpertMatmul(launch, nullptr) == cudaErrorInvalidValue) << "float32 results";
  launch = experts.Launch();
  launch.x.dtype = launch.out.dtype = DType::kF16;
  EXPECT(cuda::LaunchExpertMatmul(launch, nullptr) == cudaErrorInvalidValue) << "float16 rows by bfloat16 weights";
}

}  // namespace
}  // namespace millrace::cuda_test
