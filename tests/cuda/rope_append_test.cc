// SPDX-License-Identifier: Apache-2.0
// QK-norm, rotation and the append into pages, against double precision.
#include "kernels/cuda/rope_append.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <string>
#include <vector>

#include "tests/cuda/harness.h"
#include "tests/cuda/kv_memory.h"

namespace millrace::cuda {
namespace {

using cuda_test::BitsFromFloat;
using cuda_test::DeviceArray;
using cuda_test::FloatFromBits;
using cuda_test::HalfSpacing;
using cuda_test::KvMemory;
using cuda_test::KvShape;
using cuda_test::Random;

constexpr DType kKvTypes[] = {DType::kBF16, DType::kF16, DType::kI8, DType::kF8E4M3};
constexpr int kMaxPositions = 200;
constexpr int kNumPages = 30;
constexpr int kPadding = 5;
constexpr uint16_t kUnwritten = 0xfffe;
constexpr float kEps = 1e-5f;

struct Options {
  KvShape kv;
  DType dtype = DType::kBF16;
  int rotary_dim = 64;
  bool is_interleaved = false;
  bool has_norm = false;
};

class RopeStep {
 public:
  RopeStep(const Options& options, int num_rows, uint32_t seed)
      : options_(options),
        num_rows_(num_rows),
        random_(seed),
        q_norm_(random_.Floats(static_cast<size_t>(options.kv.head_dim), 0.5f, 2)),
        k_norm_(random_.Floats(static_cast<size_t>(options.kv.head_dim), 0.5f, 2)),
        cos_(random_.Floats(static_cast<size_t>(kMaxPositions * options.rotary_dim / 2), -1, 1)),
        sin_(random_.Floats(static_cast<size_t>(kMaxPositions * options.rotary_dim / 2), -1, 1)),
        kv(options.kv, kNumPages) {
    // Every row a slot of its own, anywhere; each fourth stores nothing.
    std::vector<int64_t> slots(static_cast<size_t>(kNumPages * options.kv.page_tokens));
    std::iota(slots.begin(), slots.end(), 0);
    std::shuffle(slots.begin(), slots.end(), std::mt19937(seed));
    for (int r = 0; r < num_rows; ++r) {
      this->slots.push_back(r % 4 == 3 ? -1 - r : slots[static_cast<size_t>(r)]);
      positions_.push_back(r == 0 ? kMaxPositions - 1 : random_.Int(0, kMaxPositions - 1));
    }
    for (int i = 0; i < num_rows * stride(); ++i) {
      before.push_back(i % stride() < width() ? BitsFromFloat(options.dtype, random_.Float(-3, 3)) : kUnwritten);
    }
  }

  int width() const { return (options_.kv.num_heads + 2 * options_.kv.num_kv_heads) * options_.kv.head_dim; }
  int stride() const { return width() + kPadding; }

  void Run() {
    DeviceArray<uint16_t> qkv(before);
    DeviceArray<float> q_norm(q_norm_), k_norm(k_norm_), cos(cos_), sin(sin_);
    DeviceArray<int32_t> positions(positions_);
    DeviceArray<int64_t> device_slots(slots);
    kv.Upload();
    const RopeAppendLaunch launch{
        .qkv = {.data = qkv.data(), .dtype = options_.dtype, .rows = num_rows_, .cols = width(), .stride = stride()},
        .num_heads = options_.kv.num_heads,
        .q_norm = options_.has_norm ? q_norm.data() : nullptr,
        .k_norm = options_.has_norm ? k_norm.data() : nullptr,
        .norm_eps = kEps,
        .rope = {.cos = cos.data(),
                 .sin = sin.data(),
                 .rotary_dim = options_.rotary_dim,
                 .interleaved = options_.is_interleaved},
        .positions = positions.data(),
        .slots = device_slots.data(),
        .kv = kv.layer()};
    EXPECT(LaunchRopeAppend(launch, nullptr) == cudaSuccess);
    after = qkv.Download();
    kv.Download();
  }

  // One head normed and rotated in double; `magnitude` is the sum of what was added, for the tolerance.
  struct Head {
    std::vector<double> values, magnitude;
  };
  Head Want(int row, int head) const {
    const auto dim = static_cast<size_t>(options_.kv.head_dim);
    const bool is_query = head < options_.kv.num_heads;
    const bool is_value = head >= options_.kv.num_heads + options_.kv.num_kv_heads;
    Head want{.values = std::vector<double>(dim), .magnitude = {}};
    for (size_t d = 0; d < dim; ++d) {
      want.values[d] = FloatFromBits(options_.dtype, before[Index(row, head) + d]);
    }
    if (options_.has_norm && !is_value) {
      double squares = 0;
      for (const double value : want.values) squares += value * value;
      const std::vector<float>& weight = is_query ? q_norm_ : k_norm_;
      for (size_t d = 0; d < dim; ++d) {
        want.values[d] *= weight[d] / std::sqrt(squares / static_cast<double>(dim) + kEps);
      }
    }
    want.magnitude = want.values;
    for (double& value : want.magnitude) value = std::fabs(value);
    if (is_value) return want;
    const std::vector<double> x = want.values;
    const auto half = static_cast<size_t>(options_.rotary_dim) / 2;
    for (size_t d = 0; d < 2 * half; ++d) {
      const size_t pair = options_.is_interleaved ? d / 2 : d % half;
      const bool is_second = options_.is_interleaved ? d % 2 == 1 : d >= half;
      const size_t partner = options_.is_interleaved ? d ^ 1 : (d + half) % (2 * half);
      const size_t at = static_cast<size_t>(positions_[static_cast<size_t>(row)]) * half + pair;
      const double along = x[d] * cos_[at], across = x[partner] * sin_[at] * (is_second ? 1.0 : -1.0);
      want.values[d] = along + across;
      want.magnitude[d] = std::fabs(along) + std::fabs(across);
    }
    return want;
  }

  void ExpectAgrees() {
    for (int row = 0; row < num_rows_; ++row) {
      for (int head = 0; head < options_.kv.num_heads; ++head) ExpectQuery(row, head);
      for (int i = options_.kv.num_heads * options_.kv.head_dim; i < stride(); ++i) {
        const auto at = static_cast<size_t>(row * stride() + i);
        EXPECT(after[at] == before[at]) << Describe() << "row" << row << "column" << i << "is not q's";
      }
      for (int head = 0; head < options_.kv.num_kv_heads; ++head) ExpectStored(row, head);
    }
  }

 private:
  size_t Index(int row, int head) const { return static_cast<size_t>(row * stride() + head * options_.kv.head_dim); }
  std::string Describe() const {
    return std::string(cuda_test::NameOf(options_.kv.dtype)) + " from " + cuda_test::NameOf(options_.dtype) + ", D " +
           std::to_string(options_.kv.head_dim) + ", rotary " + std::to_string(options_.rotary_dim) +
           (options_.is_interleaved ? ", interleaved" : "") + (options_.has_norm ? ", normed" : "");
  }
  // float32: a sum of D squares in the norm, then a handful of roundings.
  double FloatError() const { return (options_.kv.head_dim + 8) * 0x1p-24; }

  void ExpectQuery(int row, int head) {
    const Head want = Want(row, head);
    for (size_t d = 0; d < want.values.size(); ++d) {
      const double error = want.magnitude[d] * FloatError();
      EXPECT_NEAR(FloatFromBits(options_.dtype, after[Index(row, head) + d]), want.values[d],
                  error + (std::fabs(want.values[d]) + error) * HalfSpacing(options_.dtype) + 0x1p-25,
                  Describe() + ", q of row " + std::to_string(row) + " element " + std::to_string(d));
    }
  }
  void ExpectStored(int row, int kv_head) {
    const int64_t slot = slots[static_cast<size_t>(row)];
    if (slot < 0) return;
    std::vector<int32_t> page = {static_cast<int32_t>(slot / options_.kv.page_tokens)};
    const size_t vector = kv.VectorOf(page, static_cast<int>(slot % options_.kv.page_tokens), kv_head);
    const Head key = Want(row, options_.kv.num_heads + kv_head);
    const Head value = Want(row, options_.kv.num_heads + options_.kv.num_kv_heads + kv_head);
    for (int d = 0; d < options_.kv.head_dim; ++d) {
      const std::string where = Describe() + ", row " + std::to_string(row) + " element " + std::to_string(d);
      EXPECT_NEAR(kv.Key(vector, d), key.values[static_cast<size_t>(d)], StorageError(key, d), "key, " + where);
      EXPECT_NEAR(kv.Value(vector, d), value.values[static_cast<size_t>(d)], StorageError(value, d), "value, " + where);
    }
    if (options_.kv.dtype != DType::kI8) return;
    EXPECT_NEAR(kv.key_scale(vector), Largest(key) / 127, Largest(key) / 127 * 2 * FloatError(), Describe() + " scale");
    EXPECT_NEAR(kv.value_scale(vector), Largest(value) / 127, Largest(value) / 127 * 2 * FloatError(), Describe());
  }
  static double Largest(const Head& head) {
    return *std::max_element(head.magnitude.begin(), head.magnitude.end()) > 0 ? LargestValue(head) : 0;
  }
  static double LargestValue(const Head& head) {
    double largest = 0;
    for (const double value : head.values) largest = std::max(largest, std::fabs(value));
    return largest;
  }
  double StorageError(const Head& head, int d) const {
    const double value = std::fabs(head.values[static_cast<size_t>(d)]);
    const double error = head.magnitude[static_cast<size_t>(d)] * FloatError();
    switch (options_.kv.dtype) {
      case DType::kI8:  // half a step, and the float32 errors of value, scale and quotient
        return LargestValue(head) / 127 * (0.5 + 127 * 4 * FloatError()) + error;
      case DType::kF8E4M3:  // three bits behind the point; 2^-9 apart near zero
        return error + std::max((value + error) * 0x1p-4, 0x1p-10);
      default:
        return error + (value + error) * HalfSpacing(options_.kv.dtype) + 0x1p-25;
    }
  }

  const Options options_;
  const int num_rows_;
  Random random_;
  const std::vector<float> q_norm_, k_norm_, cos_, sin_;
  std::vector<int32_t> positions_;

 public:
  KvMemory kv;
  std::vector<int64_t> slots;
  std::vector<uint16_t> before, after;
};

KERNEL_TEST("rope_append: queries, keys and values agree with double in every head dimension and dtype") {
  for (const int dim : {2, 16, 64, 80, 128, 256, 512}) {
    for (const DType kv_dtype : kKvTypes) {
      for (const DType dtype : {DType::kBF16, DType::kF16}) {
        for (const bool has_norm : {false, true}) {
          RopeStep step({.kv = {.dtype = kv_dtype, .num_heads = 3, .num_kv_heads = 1, .head_dim = dim},
                         .dtype = dtype,
                         .rotary_dim = dim,
                         .is_interleaved = dim % 3 == 2,
                         .has_norm = has_norm},
                        5, static_cast<uint32_t>(dim));
          step.Run();
          step.ExpectAgrees();
        }
      }
    }
  }
}

KERNEL_TEST("rope_append: partial rotation, both pairings, head groupings and page sizes agree with double") {
  for (const bool is_interleaved : {false, true}) {
    for (const int rotary_dim : {0, 2, 6, 20, 64, 78}) {
      for (const int page_tokens : {1, 7, 16}) {
        RopeStep step({.kv = {.dtype = page_tokens == 7 ? DType::kI8 : DType::kBF16,
                              .num_heads = 4,
                              .num_kv_heads = page_tokens == 1 ? 4 : 2,
                              .head_dim = 80,
                              .page_tokens = page_tokens},
                       .rotary_dim = rotary_dim,
                       .is_interleaved = is_interleaved,
                       .has_norm = rotary_dim % 4 == 0},
                      9, 3);
        step.Run();
        step.ExpectAgrees();
      }
    }
  }
}

KERNEL_TEST("rope_append: a negative slot stores nothing, and no slot but a row's own is written") {
  for (const DType kv_dtype : kKvTypes) {
    RopeStep step({.kv = {.dtype = kv_dtype, .num_heads = 2, .num_kv_heads = 2, .head_dim = 32}, .rotary_dim = 32}, 24,
                  5);
    step.Run();
    const size_t vector_bytes = 32 * DTypeBytes(kv_dtype);
    for (size_t vector = 0; vector < step.kv.keys().size() / vector_bytes; ++vector) {
      const size_t page = vector / (2 * 16);
      const auto slot = static_cast<int64_t>(page * 16 + vector % 16);
      const bool is_own = std::find(step.slots.begin(), step.slots.end(), slot) != step.slots.end();
      const auto is_unused = [&](const std::vector<uint8_t>& bytes) {
        const auto from = bytes.begin() + static_cast<ptrdiff_t>(vector * vector_bytes);
        return std::all_of(from, from + static_cast<ptrdiff_t>(vector_bytes),
                           [](uint8_t byte) { return byte == KvMemory::kUnused; });
      };
      EXPECT(is_unused(step.kv.keys()) != is_own) << cuda_test::NameOf(kv_dtype) << "key" << vector;
      EXPECT(is_unused(step.kv.values()) != is_own) << cuda_test::NameOf(kv_dtype) << "value" << vector;
      EXPECT(kv_dtype != DType::kI8 || std::isnan(step.kv.key_scale(vector)) != is_own) << "scale" << vector;
    }
    // With every slot negative the queries are rewritten as ever and the pages stay as they are.
    const std::vector<uint16_t> rotated = step.after;
    const std::vector<uint8_t> keys = step.kv.keys();
    std::fill(step.slots.begin(), step.slots.end(), -1);
    step.Run();
    EXPECT(step.after == rotated);
    EXPECT(step.kv.keys() == keys);
  }
}

KERNEL_TEST("rope_append: fp8 saturates, and a zero key has scale zero and is stored as zero") {
  for (const DType kv_dtype : {DType::kI8, DType::kF8E4M3}) {
    RopeStep step({.kv = {.dtype = kv_dtype, .num_heads = 1, .num_kv_heads = 1, .head_dim = 64}, .rotary_dim = 0}, 1,
                  6);
    for (size_t i = 0; i < 64; ++i) {
      step.before[64 + i] = 0;
      step.before[128 + i] = BitsFromFloat(DType::kBF16, i % 2 == 0 ? 1000.0f : -1000.0f);
    }
    step.Run();
    const auto vector = static_cast<size_t>(step.slots[0]);
    EXPECT(kv_dtype != DType::kI8 || step.kv.key_scale(vector) == 0.0f);
    const double want = kv_dtype == DType::kI8 ? 1000.0 : 448.0;
    for (int d = 0; d < 64; ++d) {
      EXPECT(step.kv.Key(vector, d) == 0) << "element" << d;
      EXPECT_NEAR(step.kv.Value(vector, d), d % 2 == 0 ? want : -want, want * 0x1p-22, "a value");
    }
  }
}

KERNEL_TEST("rope_append: a dtype or head dimension no kernel takes is refused") {
  RopeAppendLaunch launch;
  launch.qkv.dtype = DType::kF32;
  launch.kv.head_dim = 64;
  EXPECT(LaunchRopeAppend(launch, nullptr) == cudaErrorInvalidValue);
  launch.qkv.dtype = DType::kBF16;
  EXPECT(LaunchRopeAppend(launch, nullptr) == cudaSuccess) << "no rows";
  launch.kv.dtype = DType::kF32;
  EXPECT(LaunchRopeAppend(launch, nullptr) == cudaErrorInvalidValue);
  launch.kv.dtype = DType::kI8;
  launch.kv.head_dim = 514;
  EXPECT(LaunchRopeAppend(launch, nullptr) == cudaErrorInvalidValue);
}

}  // namespace
}  // namespace millrace::cuda
