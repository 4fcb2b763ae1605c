// SPDX-License-Identifier: Apache-2.0
#pragma once
// Checkpoints of a small random Llama as GPTQ and AWQ store them, packed here from scratch. Tests only.
#include <algorithm>
#include <filesystem>
#include <map>
#include <random>
#include <string>
#include <vector>

#include "engine/load/float_bits.h"
#include "tests/support/safetensors_writer.h"
#include "tests/support/tiny_checkpoint.h"

namespace millrace::testing {

// A matrix of 4-bit numbers and what they stand for.
struct Int4Matrix {
  int64_t n, k, group;
  std::vector<int> q;         // [n, k]
  std::vector<int> zeros;     // [groups, n]
  std::vector<float> scales;  // [groups, n], float16 values
  std::vector<int32_t> group_of_input;

  float At(int64_t row, int64_t input) const {
    const size_t index = static_cast<size_t>(group_of_input[static_cast<size_t>(input)] * n + row);
    return static_cast<float>(q[static_cast<size_t>(row * k + input)] - zeros[index]) * scales[index];
  }
};

enum class Order { kPlain, kScattered };
enum class Zeros { kSymmetric, kAny };

inline Int4Matrix RandomInt4(int64_t n, int64_t k, int64_t group, Zeros zeros, Order order, uint32_t seed) {
  std::mt19937 engine(seed);
  Int4Matrix m{n, k, group, {}, {}, {}, {}};
  for (int64_t i = 0; i < n * k; ++i) m.q.push_back(static_cast<int>(engine() % 16));
  for (int64_t i = 0; i < k / group * n; ++i) {
    m.zeros.push_back(zeros == Zeros::kSymmetric ? 8 : static_cast<int>(engine() % 16));
    m.scales.push_back(FromFloat16(Float16Bits(0.01f + 0.02f * static_cast<float>(engine() % 100) / 100.0f)));
  }
  for (int64_t i = 0; i < k; ++i) m.group_of_input.push_back(static_cast<int32_t>(i / group));
  if (order == Order::kScattered) std::shuffle(m.group_of_input.begin(), m.group_of_input.end(), engine);
  return m;
}

inline std::string Halves(const std::vector<float>& values) {
  std::vector<uint16_t> bits;
  for (const float value : values) bits.push_back(Float16Bits(value));
  return BytesOf(bits);
}

inline void AddGptq(SafetensorsWriter& writer, const std::string& name, const Int4Matrix& m, int zero_offset) {
  const int64_t groups = m.k / m.group;
  std::vector<uint32_t> qweight(static_cast<size_t>(m.k / 8 * m.n)), qzeros(static_cast<size_t>(groups * m.n / 8));
  for (int64_t row = 0; row < m.n; ++row) {
    for (int64_t i = 0; i < m.k; ++i) {
      qweight[static_cast<size_t>(i / 8 * m.n + row)] |= static_cast<uint32_t>(m.q[static_cast<size_t>(row * m.k + i)])
                                                         << (i % 8 * 4);
    }
    for (int64_t g = 0; g < groups; ++g) {
      const uint32_t zero = static_cast<uint32_t>(m.zeros[static_cast<size_t>(g * m.n + row)] - zero_offset) & 15;
      qzeros[static_cast<size_t>(g * (m.n / 8) + row / 8)] |= zero << (row % 8 * 4);
    }
  }
  writer.Add(name + ".qweight", "I32", {m.k / 8, m.n}, BytesOf(qweight));
  writer.Add(name + ".qzeros", "I32", {groups, m.n / 8}, BytesOf(qzeros));
  writer.Add(name + ".scales", "F16", {groups, m.n}, Halves(m.scales));
  writer.Add(name + ".g_idx", "I32", {m.k}, BytesOf(m.group_of_input));
}

inline void AddAwq(SafetensorsWriter& writer, const std::string& name, const Int4Matrix& m) {
  const int order[8] = {0, 2, 4, 6, 1, 3, 5, 7};
  const int64_t groups = m.k / m.group;
  std::vector<uint32_t> qweight(static_cast<size_t>(m.k * m.n / 8)), qzeros(static_cast<size_t>(groups * m.n / 8));
  for (int64_t block = 0; block < m.n / 8; ++block) {
    for (int j = 0; j < 8; ++j) {
      const int64_t row = block * 8 + order[j];
      for (int64_t i = 0; i < m.k; ++i) {
        qweight[static_cast<size_t>(i * (m.n / 8) + block)] |=
            static_cast<uint32_t>(m.q[static_cast<size_t>(row * m.k + i)]) << (4 * j);
      }
      for (int64_t g = 0; g < groups; ++g) {
        qzeros[static_cast<size_t>(g * (m.n / 8) + block)] |=
            static_cast<uint32_t>(m.zeros[static_cast<size_t>(g * m.n + row)]) << (4 * j);
      }
    }
  }
  writer.Add(name + ".qweight", "I32", {m.k, m.n / 8}, BytesOf(qweight));
  writer.Add(name + ".qzeros", "I32", {groups, m.n / 8}, BytesOf(qzeros));
  writer.Add(name + ".scales", "F16", {groups, m.n}, Halves(m.scales));
}

struct Scheme {
  const char* config;
  bool is_awq;
  int zero_offset;
  int64_t group;
  Zeros zeros;
  Order order;
  int expected_group;  // 0: becomes int8
};

inline std::string QuantizedConfig(const Scheme& scheme) {
  const std::string group = std::to_string(scheme.group == 0 ? -1 : scheme.group);
  return TinyCheckpoint::Config(std::string(R"("quantization_config": {"bits": 4, "group_size": )") + group + ", " +
                                scheme.config + "}");
}

inline const Scheme kSchemes[] = {
    {R"("quant_method": "gptq", "sym": true)", false, 1, 128, Zeros::kSymmetric, Order::kPlain, 128},
    {R"("quant_method": "gptq", "sym": false)", false, 1, 32, Zeros::kAny, Order::kPlain, 32},
    {R"("quant_method": "gptq", "checkpoint_format": "gptq_v2")", false, 0, 64, Zeros::kAny, Order::kPlain, 64},
    {R"("quant_method": "gptq")", false, 1, 0, Zeros::kSymmetric, Order::kPlain, 128},
    {R"("quant_method": "gptq", "desc_act": true)", false, 1, 32, Zeros::kAny, Order::kScattered, 0},
    {R"("quant_method": "gptq")", false, 1, 16, Zeros::kAny, Order::kPlain, 0},
    {R"("quant_method": "awq", "zero_point": true, "version": "gemm")", true, 0, 128, Zeros::kAny, Order::kPlain, 128},
    {R"("quant_method": "awq", "zero_point": true, "version": "gemm")", true, 0, 64, Zeros::kAny, Order::kPlain, 64},
};

// Writes the checkpoint with quantised linears and, beside it, one with the same numbers as floats.
inline void WritePair(const Scheme& scheme, const std::filesystem::path& packed_dir,
                      const std::filesystem::path& float_dir, std::map<std::string, Int4Matrix>& matrices) {
  TinyCheckpoint checkpoint;
  SafetensorsWriter writer;
  uint32_t seed = 100;
  for (auto& [name, tensor] : checkpoint.tensors) {
    if (!TinyCheckpoint::IsLinear(name)) {
      writer.AddFloats(name, tensor.shape, tensor.values);
      continue;
    }
    const int64_t n = tensor.shape[0], k = tensor.shape[1];
    const Int4Matrix m = RandomInt4(n, k, scheme.group == 0 ? k : scheme.group, scheme.zeros, scheme.order, seed++);
    const std::string stem = name.substr(0, name.size() - std::string(".weight").size());
    scheme.is_awq ? AddAwq(writer, stem, m) : AddGptq(writer, stem, m, scheme.zero_offset);
    for (int64_t row = 0; row < n; ++row) {
      for (int64_t i = 0; i < k; ++i) tensor.values[static_cast<size_t>(row * k + i)] = m.At(row, i);
    }
    matrices.emplace(stem, m);
  }
  WriteFile(packed_dir / "config.json", QuantizedConfig(scheme));
  WriteFile(packed_dir / "model.safetensors", writer.Bytes());
  checkpoint.Write(float_dir);
}

}  // namespace millrace::testing
