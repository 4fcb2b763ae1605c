// SPDX-License-Identifier: Apache-2.0
// The row-wise ops at Llama-3.2-1B's shapes on one thread: time per call of one row (decode) and of 512 (prefill).
#include <benchmark/benchmark.h>

#include <memory>
#include <numeric>
#include <vector>

#include "kernels/device.h"
#include "kernels/ops.h"

namespace millrace {
namespace {

constexpr CpuPath kPaths[] = {CpuPath::kReference, CpuPath::kAvx2, CpuPath::kAvx512};
constexpr int64_t kHidden = 2048, kFfn = 8192;
constexpr int kHeads = 32, kKvHeads = 8, kHeadDim = 64;

std::unique_ptr<Device> MakeDevice(benchmark::State& state) {
  auto device = MakeCpuDevice({.num_threads = 1, .path = kPaths[state.range(0)]});
  if (device.ok()) return *std::move(device);
  state.SkipWithError(std::string(device.status().message()).c_str());
  return nullptr;
}

// Rows of a ramp between -1 and 1.
struct Rows {
  Rows(int64_t rows, int64_t cols) : values(static_cast<size_t>(rows * cols)), rows(rows), cols(cols) {
    for (size_t i = 0; i < values.size(); ++i) values[i] = static_cast<float>(i % 201) * 0.01f - 1.0f;
  }
  Matrix view() { return {.data = values.data(), .rows = rows, .cols = cols, .stride = cols}; }
  std::vector<float> values;
  int64_t rows, cols;
};

void RmsNorm(benchmark::State& state) {
  const auto device = MakeDevice(state);
  Rows x(state.range(1), kHidden), out(state.range(1), kHidden);
  const std::vector<float> weight(kHidden, 1.0f);
  for (auto _ : state) device->ops().RmsNorm({.x = x.view(), .weight = weight.data(), .out = out.view()});
}

void SwiGlu(benchmark::State& state) {
  const auto device = MakeDevice(state);
  Rows gate_up(state.range(1), 2 * kFfn), out(state.range(1), kFfn);
  for (auto _ : state) device->ops().SwiGlu({.gate_up = gate_up.view(), .out = out.view()});
}

void Embed(benchmark::State& state) {
  const auto device = MakeDevice(state);
  const std::vector<uint16_t> table(static_cast<size_t>(1000 * kHidden), 0x3c00);
  std::vector<int32_t> tokens(static_cast<size_t>(state.range(1)));
  for (size_t i = 0; i < tokens.size(); ++i) tokens[i] = static_cast<int32_t>(i * 37 % 1000);
  Rows out(state.range(1), kHidden);
  for (auto _ : state) {
    device->ops().Embed({.table = {.data = const_cast<uint16_t*>(table.data()),
                                   .dtype = DType::kBF16,
                                   .rows = 1000,
                                   .cols = kHidden,
                                   .stride = kHidden},
                         .tokens = tokens,
                         .out = out.view()});
  }
}

void RopeAppend(benchmark::State& state) {
  const auto device = MakeDevice(state);
  const int64_t rows = state.range(1);
  const DType dtype = static_cast<DType>(state.range(2));
  Rows qkv(rows, (kHeads + 2 * kKvHeads) * kHeadDim);
  // Identity rotations keep the numbers tame over many repetitions.
  const std::vector<float> cos(static_cast<size_t>(rows * kHeadDim / 2), 1.0f), sin(cos.size(), 0.0f);
  std::vector<int32_t> positions(static_cast<size_t>(rows));
  std::iota(positions.begin(), positions.end(), 0);
  const std::vector<int64_t> slots(positions.begin(), positions.end());
  const int64_t num_pages = (rows + 15) / 16;
  const size_t vectors = static_cast<size_t>(num_pages * 16 * kKvHeads);
  std::vector<uint8_t> keys(vectors * kHeadDim * DTypeBytes(dtype)), values(keys.size());
  std::vector<float> key_scales(vectors), value_scales(vectors);
  for (auto _ : state) {
    device->ops().RopeAppend({.qkv = qkv.view(),
                              .num_heads = kHeads,
                              .rope = {.cos = cos.data(), .sin = sin.data(), .rotary_dim = kHeadDim},
                              .positions = positions,
                              .slots = slots,
                              .kv = {.keys = keys.data(),
                                     .values = values.data(),
                                     .key_scales = key_scales.data(),
                                     .value_scales = value_scales.data(),
                                     .dtype = dtype,
                                     .num_pages = num_pages,
                                     .page_tokens = 16,
                                     .num_kv_heads = kKvHeads,
                                     .head_dim = kHeadDim}});
  }
}

BENCHMARK(RmsNorm)->ArgNames({"path", "rows"})->ArgsProduct({{0, 1, 2}, {1, 512}})->Unit(benchmark::kMicrosecond);
BENCHMARK(SwiGlu)->ArgNames({"path", "rows"})->ArgsProduct({{0, 1, 2}, {1, 512}})->Unit(benchmark::kMicrosecond);
BENCHMARK(Embed)->ArgNames({"path", "rows"})->ArgsProduct({{0, 1, 2}, {1, 512}})->Unit(benchmark::kMicrosecond);
BENCHMARK(RopeAppend)
    ->ArgNames({"path", "rows", "kv"})
    ->ArgsProduct({{0, 1, 2}, {1, 512}, {static_cast<int>(DType::kBF16), static_cast<int>(DType::kI8)}})
    ->Unit(benchmark::kMicrosecond);

}  // namespace
}  // namespace millrace

BENCHMARK_MAIN();
