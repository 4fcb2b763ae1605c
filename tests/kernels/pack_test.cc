// SPDX-License-Identifier: Apache-2.0
#include <catch2/catch.hpp>
#include <cmath>
#include <limits>
#include <string>
#include <vector>

#include "kernels/cpu/cpu_features.h"
#include "kernels/cpu/dtype_convert.h"
#include "kernels/cpu/matmul.h"
#include "kernels/cpu/quantize.h"
#include "kernels/device.h"
#include "kernels/ops.h"
#include "tests/support/reference.h"

namespace millrace {
namespace {

TEST_CASE("Pack: a weight takes the bytes that PackedBytes foretells", "[pack]") {
  for (CpuPath path : {CpuPath::kReference, CpuPath::kAvx2, CpuPath::kAvx512}) {
    if (!cpu::HasCpuPath(path)) continue;
    auto device = MakeCpuDevice({.num_threads = 2, .path = path});
    REQUIRE(device.ok());
    Ops& ops = (*device)->ops();
    const testing::WeightKind kinds[] = {
        {WeightFormat::kDense, DType::kBF16},  {WeightFormat::kDense, DType::kF32},
        {WeightFormat::kInt8, DType::kI8, 0},  {WeightFormat::kInt8, DType::kI8, 32},
        {WeightFormat::kInt4, DType::kU8, 32}, {WeightFormat::kInt4, DType::kU8, 128, true}};
    for (const testing::WeightKind& kind : kinds) {
      testing::TestWeight weight;
      testing::FillWeight(kind, 70, 384, 3, weight);
      auto packed = ops.Pack(weight.source);
      REQUIRE(packed.ok());
      CHECK((*packed)->n() == 70);
      CHECK((*packed)->k() == 384);
      CHECK((*packed)->format() == kind.format);
      const size_t foretold = ops.PackedBytes(kind.format, kind.dtype, 70, 384, kind.group_size);
      CHECK((*packed)->num_bytes() <= foretold);
      // PackedBytes cannot know whether int4 has zeros and counts them.
      if (kind.format != WeightFormat::kInt4 || kind.has_zeros) CHECK((*packed)->num_bytes() == foretold);
    }
  }
}

TEST_CASE("Pack: what cannot be multiplied is refused with a name", "[pack]") {
  auto device = MakeCpuDevice({.num_threads = 1});
  REQUIRE(device.ok());
  Ops& ops = (*device)->ops();
  std::vector<float> numbers(4096, 1.0f);
  const WeightSource good = {.format = WeightFormat::kInt4,
                             .n = 8,
                             .k = 64,
                             .values = numbers.data(),
                             .group_size = 32,
                             .scales = numbers.data()};
  REQUIRE(ops.Pack(good).ok());
  const auto refusal = [&](auto change) {
    WeightSource source = good;
    change(source);
    const auto packed = ops.Pack(source);
    CHECK(packed.status().code() == absl::StatusCode::kInvalidArgument);
    return std::string(packed.status().message());
  };
  CHECK_THAT(refusal([](WeightSource& s) { s.n = 0; }), Catch::Contains("[0, 64]"));
  CHECK_THAT(refusal([](WeightSource& s) { s.k = -1; }), Catch::Contains("[8, -1]"));
  CHECK_THAT(refusal([](WeightSource& s) { s.k = int64_t{1} << 40; }), Catch::Contains("not possible"));
  CHECK_THAT(refusal([](WeightSource& s) { s.values = nullptr; }), Catch::Contains("values"));
  CHECK_THAT(refusal([](WeightSource& s) { s.scales = nullptr; }), Catch::Contains("scales"));
  CHECK_THAT(refusal([](WeightSource& s) { s.group_size = 48; }), Catch::Contains("48"));
  CHECK_THAT(refusal([](WeightSource& s) { s.group_size = 0; }), Catch::Contains("group"));
  CHECK_THAT(refusal([](WeightSource& s) { s.group_size = 128; }), Catch::Contains("128"));
  CHECK_THAT(refusal([](WeightSource& s) {
               s.format = WeightFormat::kDense;
               s.dtype = DType::kI8;
             }),
             Catch::Contains("dense"));
  CHECK_THAT(refusal([](WeightSource& s) {
               s.format = WeightFormat::kInt8;
               s.group_size = 0;
               s.k = 70000;
             }),
             Catch::Contains("70000"));
}

TEST_CASE("Conversion: every 16-bit pattern survives the way to float32 and back", "[pack]") {
  for (uint32_t pattern = 0; pattern < 65536; ++pattern) {
    const uint16_t bits = static_cast<uint16_t>(pattern);
    const float bf16 = cpu::FloatFromBf16(bits);
    const float f16 = cpu::FloatFromF16(bits);
    if (std::isnan(bf16)) {
      REQUIRE(std::isnan(cpu::FloatFromBf16(cpu::Bf16FromFloat(bf16))));
    } else {
      REQUIRE(cpu::Bf16FromFloat(bf16) == bits);
    }
    if (std::isnan(f16)) {
      REQUIRE(std::isnan(cpu::FloatFromF16(cpu::F16FromFloat(f16))));
    } else {
      REQUIRE(cpu::F16FromFloat(f16) == bits);
    }
  }
}

TEST_CASE("Conversion: rounds to nearest, ties to even, and overflows to infinity", "[pack]") {
  CHECK(cpu::Bf16FromFloat(1.0f + 0x1p-8f) == 0x3f80);      // a tie: down to even
  CHECK(cpu::Bf16FromFloat(1.0f + 3 * 0x1p-8f) == 0x3f82);  // a tie: up to even
  CHECK(cpu::Bf16FromFloat(std::numeric_limits<float>::max()) == 0x7f80);
  CHECK(cpu::F16FromFloat(1.0f + 0x1p-11f) == 0x3c00);
  CHECK(cpu::F16FromFloat(1.0f + 3 * 0x1p-11f) == 0x3c02);
  CHECK(cpu::F16FromFloat(65519.0f) == 0x7bff);
  CHECK(cpu::F16FromFloat(65520.0f) == 0x7c00);
  CHECK(cpu::F16FromFloat(-1e9f) == 0xfc00);
  CHECK(cpu::F16FromFloat(0x1p-25f) == 0);  // a tie between 0 and the smallest
  CHECK(cpu::F16FromFloat(0x1.8p-25f) == 1);
  CHECK(cpu::F16FromFloat(-0.0f) == 0x8000);
}

TEST_CASE("Quantisation: the largest value becomes 127 and zeros, tiny and broken rows are safe", "[pack]") {
  const float x[] = {-2.0f, 1.0f, 0.5f, 0.0f};
  int8_t q[4];
  CHECK(cpu::QuantizeInt8(x, 4, q) == Approx(2.0 / 127));
  CHECK(q[0] == -127);
  CHECK(q[1] == 64);  // 63.5: a tie, to even
  CHECK(q[2] == 32);
  CHECK(q[3] == 0);
  const float zeros[] = {0.0f, -0.0f, 1e-38f, 0.0f};
  CHECK(cpu::QuantizeInt8(zeros, 4, q) == 0.0f);
  CHECK(q[2] == 0);
  for (float broken : {std::numeric_limits<float>::infinity(), std::numeric_limits<float>::quiet_NaN()}) {
    const float row[] = {1.0f, broken, 2.0f, 3.0f};
    CHECK(std::isnan(cpu::QuantizeInt8(row, 4, q)));
  }
}

}  // namespace
}  // namespace millrace
