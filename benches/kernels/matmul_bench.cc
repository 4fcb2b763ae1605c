// SPDX-License-Identifier: Apache-2.0
// Matrix multiplication at the shapes of a 1B Llama (hidden 2048, ffn 8192, vocabulary 128256), per format and number
// of rows: time, GB/s of weights, GOP/s and the share of this machine's roof, measured in the same run. Every call
// takes the next of several copies of the weight, so none is found in a cache. Best of several runs. Bandwidth is
// measured anew before each shape, because neighbours on the machine change it from minute to minute.
//   matmul_bench [format ...]   formats: bf16 f16 f32 int8 int8g32 int4g32 int4g128 int4g128z; default bf16 int8
//                               int4g32 int4g128
#include <algorithm>
#include <cmath>
#include <cstring>
#include <string>
#include <vector>

#include "benches/kernels/roofline.h"
#include "kernels/cpu/matmul.h"

namespace millrace {
namespace {

struct Format {
  const char* name;
  WeightFormat format;
  DType dtype;
  int group_size;
  bool has_zeros;
};
constexpr Format kFormats[] = {{"bf16", WeightFormat::kDense, DType::kBF16, 0, false},
                               {"f16", WeightFormat::kDense, DType::kF16, 0, false},
                               {"f32", WeightFormat::kDense, DType::kF32, 0, false},
                               {"int8", WeightFormat::kInt8, DType::kI8, 0, false},
                               {"int8g32", WeightFormat::kInt8, DType::kI8, 32, false},
                               {"int4g32", WeightFormat::kInt4, DType::kU8, 32, false},
                               {"int4g128", WeightFormat::kInt4, DType::kU8, 128, false},
                               {"int4g128z", WeightFormat::kInt4, DType::kU8, 128, true}};

struct Shape {
  const char* name;
  int64_t n;
  int64_t k;
};
constexpr Shape kShapes[] = {
    {"qkv", 3072, 2048}, {"o", 2048, 2048}, {"gate_up", 16384, 2048}, {"down", 2048, 8192}, {"lm_head", 128256, 2048}};
constexpr int64_t kRows[] = {1, 4, 16, 32, 128, 512};
constexpr int64_t kMaxRows = 512;
constexpr size_t kCopiesBytes = size_t{256} << 20;  // of one weight together: far beyond the last cache
constexpr double kBudgetSeconds = 0.25;             // per line

std::vector<std::unique_ptr<cpu::CpuPackedWeight>> MakeCopies(const Format& format, const Shape& shape,
                                                              const cpu::OpContext& context) {
  WeightSource source = {.format = format.format, .n = shape.n, .k = shape.k, .dtype = format.dtype};
  source.group_size = format.group_size;
  const int64_t count = shape.n * shape.k;
  // The bits do not matter to the time as long as no denormals or NaNs appear: every 16-bit pattern below 0x3f3f.
  std::vector<uint8_t> values(static_cast<size_t>(count) * 4, 0x3c);
  std::vector<float> scales(static_cast<size_t>(count / 32 + shape.n), 0.01f);
  std::vector<uint8_t> zeros(format.has_zeros ? static_cast<size_t>(count / 32) : 0, 7);
  source.values = values.data();
  source.scales = scales.data();
  source.zeros = format.has_zeros ? zeros.data() : nullptr;
  std::vector<std::unique_ptr<cpu::CpuPackedWeight>> copies;
  size_t num_bytes = 0;
  while (num_bytes < kCopiesBytes) {
    auto packed = cpu::PackWeight(source, context);
    if (!packed.ok()) break;
    num_bytes += (*packed)->num_bytes();
    copies.push_back(*std::move(packed));
  }
  return copies;
}

void RunFormat(const Format& format, const cpu::OpContext& context, bench::ReadProbe& probe, double peak_gop_per_s) {
  cpu::MatmulWorkspace workspace;
  if (!workspace.Reserve(kMaxRows, 8192, context.pool.num_threads()).ok()) return;
  std::vector<float> x(kMaxRows * 8192);
  for (size_t i = 0; i < x.size(); ++i) x[i] = std::sin(static_cast<float>(i));
  std::vector<float> out(kMaxRows * 128256);
  for (const Shape& shape : kShapes) {
    const auto copies = MakeCopies(format, shape, context);
    const double peak_gb_per_s = probe.Measure(3);
    for (int64_t rows : kRows) {
      if (shape.n > 100000 && rows > 32) continue;  // no model asks for so many rows of logits
      MatmulArgs args;
      args.x = {x.data(), DType::kF32, rows, shape.k, shape.k};
      args.out = {out.data(), DType::kF32, rows, shape.n, shape.n};
      size_t next = 0;
      double best = 1e30;
      const auto start = std::chrono::steady_clock::now();
      for (int run = 0; run < 5 || (bench::SecondsSince(start) < kBudgetSeconds && run < 100); ++run) {
        args.w = copies[next++ % copies.size()].get();
        best = std::min(best, bench::BestSeconds(1, [&] { cpu::Matmul(args, context, workspace); }));
      }
      const double gb_per_s = copies[0]->num_bytes() / best * 1e-9;
      const double gop_per_s = 2.0 * rows * shape.n * shape.k / best * 1e-9;
      const double floor = std::max(gb_per_s / peak_gb_per_s, gop_per_s / peak_gop_per_s);
      std::printf("%-10s %-8s %4ld rows %9.1f us %6.1f GB/s (%3.0f%%) %7.0f GOP/s (%3.0f%%)  roof %3.0f%%\n",
                  format.name, shape.name, static_cast<long>(rows), best * 1e6, gb_per_s,
                  100 * gb_per_s / peak_gb_per_s, gop_per_s, 100 * gop_per_s / peak_gop_per_s, 100 * floor);
      std::fflush(stdout);
    }
  }
}

}  // namespace
}  // namespace millrace

int main(int argc, char** argv) {
  using millrace::bench::Roofline;
  millrace::cpu::ThreadPool pool(millrace::cpu::AvailableCores());
  const millrace::cpu::OpContext context = {pool, millrace::cpu::WidestCpuPath()};
  const Roofline roof = millrace::bench::MeasureRoofline(pool);
  millrace::bench::PrintRoofline(roof, pool.num_threads());
  millrace::bench::ReadProbe probe(pool);
  std::vector<std::string> wanted(argv + 1, argv + argc);
  if (wanted.empty()) wanted = {"bf16", "int8", "int4g32", "int4g128"};
  for (const millrace::Format& format : millrace::kFormats) {
    if (std::find(wanted.begin(), wanted.end(), format.name) == wanted.end()) continue;
    const bool is_dense = format.format == millrace::WeightFormat::kDense;
    const bool is_int4 = format.format == millrace::WeightFormat::kInt4;
    const bool is_bf16 = format.dtype == millrace::DType::kBF16;
    const double dense_peak = is_bf16 ? roof.dense_gflop_per_s() : roof.f32_gflop_per_s;
    const double int_peak = is_int4 ? roof.int4_gop_per_s : roof.int8_gop_per_s;
    millrace::RunFormat(format, context, probe, is_dense ? dense_peak : int_peak);
  }
  return 0;
}
