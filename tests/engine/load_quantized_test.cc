// SPDX-License-Identifier: Apache-2.0
// Quantisers, GPTQ and AWQ checkpoints packed here from scratch, and quantised copies.
#include <catch2/catch.hpp>
#include <cmath>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <numeric>
#include <random>

#include "engine/load/float_bits.h"
#include "engine/load/packed_int4.h"
#include "engine/load/quantize_checkpoint.h"
#include "engine/load/quantize_rows.h"
#include "engine/load/tensor_source.h"
#include "engine/load/weight_plan.h"
#include "tests/engine/model_fixture.h"
#include "tests/support/stored_int4.h"
#include "tests/support/tiny_checkpoint.h"

namespace millrace {
namespace {

using Catch::Matchers::Contains;
using testing::Int4Matrix;
using testing::kSchemes;
using testing::Order;
using testing::RandomFloats;
using testing::Scheme;
using testing::TemporaryDir;
using testing::TinyCheckpoint;
using testing::TinyTensor;
using testing::WriteFile;
using testing::WritePair;
using testing::Zeros;

TEST_CASE("float16: every value converts as the compiler does", "[load]") {
  for (uint32_t bits = 0; bits < 65536; ++bits) {
    const float expected = static_cast<float>(std::bit_cast<_Float16>(static_cast<uint16_t>(bits)));
    const float found = FromFloat16(static_cast<uint16_t>(bits));
    if (std::isnan(expected)) {
      REQUIRE(std::isnan(found));
    } else {
      REQUIRE(std::bit_cast<uint32_t>(found) == std::bit_cast<uint32_t>(expected));
    }
  }
}

TEST_CASE("float16 and bfloat16: floats round to nearest, ties to even", "[load]") {
  std::mt19937 engine(1);
  for (int i = 0; i < 2'000'000; ++i) {
    // Every exponent, and often a tie.
    uint32_t bits = static_cast<uint32_t>(engine());
    if (i % 2 == 0) bits &= 0xfffff000u;
    const float value = std::bit_cast<float>(bits);
    if (std::isnan(value)) {
      REQUIRE(std::isnan(FromFloat16(Float16Bits(value))));
      REQUIRE(std::isnan(FromBFloat16(BFloat16Bits(value))));
      continue;
    }
    REQUIRE(Float16Bits(value) == std::bit_cast<uint16_t>(static_cast<_Float16>(value)));
    const uint32_t below = bits & 0xffff0000u, rest = bits & 0xffffu;
    const bool rounds_up = rest > 0x8000u || (rest == 0x8000u && ((below >> 16) & 1) != 0);
    REQUIRE(BFloat16Bits(value) == ((below >> 16) + (rounds_up ? 1 : 0)));
  }
}

TEST_CASE("QuantizeInt8: each value is within half a step", "[load]") {
  for (const int64_t count : {1, 7, 8, 31, 128, 1000}) {
    const std::vector<float> values = RandomFloats(count, static_cast<uint32_t>(count));
    std::vector<int8_t> q(values.size());
    const float scale = QuantizeInt8(values.data(), count, q.data());
    int largest = 0;
    for (size_t i = 0; i < values.size(); ++i) {
      REQUIRE(std::abs(values[i] - static_cast<float>(q[i]) * scale) <= scale * 0.5001f);
      largest = std::max(largest, std::abs(static_cast<int>(q[i])));
    }
    CHECK(largest == 127);
  }
  const std::vector<float> zeros(64, 0.0f), tiny(64, 1e-40f);
  int8_t q[64];
  CHECK(QuantizeInt8(zeros.data(), 64, q) == 0.0f);
  CHECK(QuantizeInt8(tiny.data(), 64, q) == 0.0f);
}

TEST_CASE("QuantizeInt4: errs less than rounding by the largest value", "[load]") {
  double fitted = 0, plain = 0;
  for (uint32_t seed = 0; seed < 200; ++seed) {
    const int64_t count = seed % 2 == 0 ? 32 : 128;
    const std::vector<float> values = RandomFloats(count, seed);
    uint8_t q[64];
    const float scale = QuantizeInt4(values.data(), count, q);
    float largest = 0;
    for (const float value : values) largest = std::abs(value) > std::abs(largest) ? value : largest;
    const float plain_scale = largest / -8.0f;
    for (size_t i = 0; i < values.size(); ++i) {
      const int nibble = (q[i / 2] >> (i % 2 * 4)) & 15;
      fitted += std::pow(values[i] - static_cast<float>(nibble - 8) * scale, 2);
      const float rounded = std::clamp(std::nearbyint(values[i] / plain_scale), -8.0f, 7.0f);
      plain += std::pow(values[i] - rounded * plain_scale, 2);
    }
  }
  INFO("squared error " << fitted << ", by the largest value " << plain);
  CHECK(fitted < plain * 0.9);
  const std::vector<float> zeros(32, 0.0f);
  uint8_t q[16];
  CHECK(QuantizeInt4(zeros.data(), 32, q) == 0.0f);
  CHECK(q[3] == 0x88);
}

TEST_CASE("GPTQ and AWQ: matrices come out number for number", "[load]") {
  const Scheme scheme = GENERATE(from_range(std::begin(kSchemes), std::end(kSchemes)));
  CAPTURE(scheme.config, scheme.group);
  const TemporaryDir packed_dir, float_dir;
  std::map<std::string, Int4Matrix> matrices;
  WritePair(scheme, packed_dir.path(), float_dir.path(), matrices);
  const auto info = ReadModelInfo(packed_dir.string(), {});
  REQUIRE(info.status().ToString() == "OK");
  const auto source = OpenTensors(*info, {});
  REQUIRE(source.status().ToString() == "OK");
  for (const auto& [stem, m] : matrices) {
    const auto rows = (*source)->Matrix(stem + ".weight", m.n, m.k);
    const auto form = (*source)->FormOf(stem, m.n, m.k);
    REQUIRE(rows.status().ToString() == "OK");
    REQUIRE(form->has_value());
    CHECK((**form).is_exact == (scheme.expected_group > 0));
    CHECK((**form).kind.group_size == scheme.expected_group);
    std::unique_ptr<BuiltWeight> stored;
    if ((**form).is_exact) stored = *(*source)->Stored(stem, m.n, m.k);
    if (stored != nullptr) CHECK(stored->zeros.empty() == (scheme.zeros == Zeros::kSymmetric));
    std::vector<float> values(static_cast<size_t>(m.k));
    for (int64_t row = 0; row < m.n; ++row) {
      rows->read(row, values.data());
      for (int64_t i = 0; i < m.k; ++i) {
        REQUIRE(values[static_cast<size_t>(i)] == m.At(row, i));
        if (stored == nullptr) continue;
        const size_t index = static_cast<size_t>(row * m.k + i);
        const size_t group = index / static_cast<size_t>(scheme.expected_group);
        const int nibble = (stored->values[index / 2] >> (i % 2 * 4)) & 15;
        const int zero = stored->zeros.empty() ? 8 : stored->zeros[group];
        REQUIRE(static_cast<float>(nibble - zero) * stored->scales[group] == m.At(row, i));
      }
    }
  }
}

double CosineDistance(const std::vector<float>& a, const std::vector<float>& b) {
  const double ab = std::inner_product(a.begin(), a.end(), b.begin(), 0.0);
  const double aa = std::inner_product(a.begin(), a.end(), a.begin(), 0.0);
  const double bb = std::inner_product(b.begin(), b.end(), b.begin(), 0.0);
  return 1.0 - ab / std::sqrt(aa * bb);
}

TEST_CASE("GPTQ and AWQ: logits are those of the same numbers in floats, in one rank and in several", "[load]") {
  const Scheme scheme = GENERATE(from_range(std::begin(kSchemes), std::end(kSchemes)));
  const int num_ranks = GENERATE(1, 2, 4);
  CAPTURE(scheme.config, scheme.group, num_ranks);
  const TemporaryDir packed_dir, float_dir;
  std::map<std::string, Int4Matrix> matrices;
  WritePair(scheme, packed_dir.path(), float_dir.path(), matrices);
  ModelFixture packed(packed_dir.string(), {.num_ranks = num_ranks}), floats(float_dir.string());
  const std::vector<int32_t> tokens = {1, 5, 9, 77, 3, 8, 42};
  CHECK(CosineDistance(packed.Logits(tokens, 0, 7), floats.Logits(tokens, 0, 7)) < 2e-3);
}

// What rounding leaves of each row: 4 bits in groups of so many inputs, or 8 bits with a scale a row (group 0).
void RoundRows(TinyTensor& tensor, int64_t group) {
  const int64_t k = tensor.shape[1];
  const int64_t step = group == 0 ? k : group;
  for (auto begin = tensor.values.begin(); begin != tensor.values.end(); begin += step) {
    uint8_t nibbles[64];
    std::vector<int8_t> bytes(static_cast<size_t>(step));
    const float scale = group == 0 ? QuantizeInt8(&*begin, step, bytes.data()) : QuantizeInt4(&*begin, step, nibbles);
    for (int64_t i = 0; i < step; ++i) {
      const int q = group == 0 ? bytes[static_cast<size_t>(i)] : (nibbles[i / 2] >> (i % 2 * 4) & 15) - 8;
      begin[i] = static_cast<float>(q) * scale;
    }
  }
}

// The float32 forward pass is itself held to transformers' in model_golden_test.cc.
TEST_CASE("int8 and int4: logits are those of the rounded weights in floats", "[load]") {
  struct Case {
    const char* quantization;
    int64_t group;
  };
  const Case test = GENERATE(Case{"int8", 0}, Case{"int4-g32", 32}, Case{"int4", 128});
  CAPTURE(test.quantization);
  const TemporaryDir given_dir, rounded_dir;
  TinyCheckpoint checkpoint;
  checkpoint.Write(given_dir.path());
  for (auto& [name, tensor] : checkpoint.tensors) {
    if (TinyCheckpoint::IsLinear(name)) RoundRows(tensor, test.group);
    if (name == "lm_head.weight") RoundRows(tensor, 0);
  }
  checkpoint.Write(rounded_dir.path());
  ModelFixture given(given_dir.string(), {.quantization = test.quantization}), rounded(rounded_dir.string());
  const std::vector<int32_t> tokens = {1, 5, 9, 77, 3, 8, 42};
  // What is left is the rounding of activations to 8 bits.
  CHECK(CosineDistance(given.Logits(tokens, 0, 7), rounded.Logits(tokens, 0, 7)) < 5e-4);
}

TEST_CASE("GPTQ: a hostile checkpoint is refused with the tensor", "[load]") {
  const TemporaryDir packed_dir, float_dir;
  std::map<std::string, Int4Matrix> matrices;
  WritePair(kSchemes[0], packed_dir.path(), float_dir.path(), matrices);
  const std::string stem = "model.layers.0.self_attn.q_proj";
  const auto find = [&](const std::function<void(TensorMap&, CheckpointQuantization&)>& change) {
    std::ifstream file(packed_dir.path() / "model.safetensors", std::ios::binary);
    const std::string bytes((std::istreambuf_iterator<char>(file)), std::istreambuf_iterator<char>());
    TensorMap tensors = *ParseSafetensors(bytes);
    CheckpointQuantization quantization{.method = CheckpointQuantization::Method::kGptq, .bits = 4, .group_size = 128};
    change(tensors, quantization);
    return std::string(FindPackedInt4(tensors, quantization, stem, 128, 128).status().message());
  };
  CHECK(find([](auto&, auto&) {}).empty());
  CHECK_THAT(find([&](auto& tensors, auto&) { tensors.erase(stem + ".scales"); }), Contains(".scales is missing"));
  CHECK_THAT(find([&](auto& tensors, auto&) { tensors[stem + ".qweight"].shape = {128, 16}; }),
             Contains("has shape [128, 16]"));
  CHECK_THAT(find([&](auto& tensors, auto&) { tensors[stem + ".qzeros"].dtype = "F32"; }),
             Contains("is F32; I32 expected"));
  CHECK_THAT(find([&](auto& tensors, auto&) { tensors[stem + ".scales"].dtype = "I8"; }), Contains("is I8; F16"));
  CHECK_THAT(find([&](auto&, auto& quantization) { quantization.group_size = 48; }), Contains("groups of 48"));
  CHECK_THAT(find([&](auto&, auto& quantization) { quantization.bits = 3; }), Contains("3-bit"));
  const std::vector<int32_t> wild(128, 7);
  CHECK_THAT(find([&](auto& tensors, auto&) { tensors[stem + ".g_idx"].data = wild.data(); }),
             Contains("group 7 of input 0"));
  CHECK_THAT(std::string(LoadWeights(*ReadModelInfo(packed_dir.string(), {}), {.quantization = "int8"},
                                     **MakeCpuDevice({.num_threads = 1}))
                             .status()
                             .message()),
             Contains("already quantised (gptq)"));
}

TEST_CASE("QuantizeCheckpoint: the copy loads bit for bit as quantising on load", "[load]") {
  const std::string quantization = GENERATE("int8", "int4", "int4-g32");
  CAPTURE(quantization);
  const TemporaryDir dir;
  std::filesystem::create_directory(dir.path() / "in");
  TinyCheckpoint().Write(dir.path() / "in");
  WriteFile(dir.path() / "in" / "tokenizer.json", "{}");
  WriteFile(dir.path() / "in" / "README.md", "a model");
  const std::string in = (dir.path() / "in").string(), out = (dir.path() / "out").string();
  double last = 0;
  const auto result = QuantizeCheckpoint(
      in, out,
      {.quantization = quantization, .on_progress = [&](std::string_view, double fraction) { last = fraction; }});
  REQUIRE(result.status().ToString() == "OK");
  CHECK(last == 1.0);
  CHECK(result->output_bytes < result->input_bytes / 2);
  CHECK(result->output_bytes == std::filesystem::file_size(dir.path() / "out" / "model.safetensors"));
  CHECK(std::filesystem::exists(dir.path() / "out" / "tokenizer.json"));
  CHECK(std::filesystem::exists(dir.path() / "out" / "README.md"));
  CHECK(std::distance(std::filesystem::directory_iterator(dir.path()), {}) == 2);

  const std::vector<int32_t> tokens = {1, 5, 9, 77, 3, 8, 42};
  ModelFixture on_load(in, {.quantization = quantization}), copy(out);
  CHECK(on_load.Logits(tokens, 0, 7) == copy.Logits(tokens, 0, 7));
  CHECK(ReadModelInfo(out, {})->weights_name == (quantization == "int8" ? "int8" : "int4"));
  ModelFixture named(out, {.quantization = "millrace"});

  CHECK(absl::IsAlreadyExists(QuantizeCheckpoint(in, out, {.quantization = quantization}).status()));
  CHECK_THAT(std::string(QuantizeCheckpoint(out, out + "2", {.quantization = quantization}).status().message()),
             Contains("already quantised"));
  CHECK_FALSE(std::filesystem::exists(out + "2"));
}

TEST_CASE("QuantizeCheckpoint: a fault leaves nothing behind", "[load]") {
  const TemporaryDir dir;
  std::filesystem::create_directory(dir.path() / "in");
  TinyCheckpoint checkpoint;
  checkpoint.tensors["model.layers.1.mlp.down_proj.weight"].values[5] = INFINITY;
  checkpoint.Write(dir.path() / "in");
  const auto result = QuantizeCheckpoint((dir.path() / "in").string(), (dir.path() / "out").string(), {});
  CHECK_THAT(std::string(result.status().message()), Contains("model.layers.1.mlp.down_proj.weight: row 0"));
  CHECK(std::distance(std::filesystem::directory_iterator(dir.path()), {}) == 1);
  CHECK(absl::IsUnimplemented(QuantizeCheckpoint("x.gguf", (dir.path() / "out").string(), {}).status()));
}

}  // namespace
}  // namespace millrace
