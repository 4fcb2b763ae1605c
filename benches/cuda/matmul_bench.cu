// SPDX-License-Identifier: Apache-2.0
// The matmul of every weight format at the shapes of Llama-3.1-8B, from one row to a prefill, by the kernel that the
// plan chooses and by those whose cost it puts at up to twice as much: the plan is a model. Prints JSON lines: GB/s
// of the bytes that must move and their share of the copy bandwidth, TFLOP/s and their share of what mma.sync alone
// reaches with its operands in registers; both roofs are measured in the same run. See timing.h.
#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <string>
#include <vector>

#include "benches/cuda/random_operands.h"
#include "benches/cuda/timing.h"
#include "kernels/cuda/common/launch.h"
#include "kernels/cuda/common/ptx.h"
#include "kernels/cuda/matmul.h"
#include "kernels/cuda/matmul_plan.h"
#include "kernels/cuda/warpgroups.h"

namespace millrace::cuda_bench {
namespace {

constexpr int kRoofProducts = 4096;  // of a warp
constexpr int kRoofSums = 8;         // independent ones, to hide the latency
constexpr int kRoofWarps = 8;
constexpr int64_t kMaxRows = 2048;
constexpr size_t kRotatedBytes = size_t{256} << 20;  // of a layer's copies together: more than any L2 cache
constexpr size_t kMaxCopies = 8;

__device__ void Product(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) { cuda::ptx::MmaBf16(d, a, b); }
__device__ void Product(int32_t (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) { cuda::ptx::MmaS8(d, a, b); }

template <typename Sum>
__global__ void __launch_bounds__(32 * kRoofWarps) TensorRoof(Sum* out) {
  Sum sums[kRoofSums][4] = {};
  uint32_t a[4], b[2];
  for (uint32_t i = 0; i < 4; ++i) a[i] = RandomOperand<Sum>(6 * threadIdx.x + i);
  for (uint32_t i = 0; i < 2; ++i) b[i] = RandomOperand<Sum>(6 * threadIdx.x + 4 + i);
  for (int i = 0; i < kRoofProducts / kRoofSums; ++i) {
#pragma unroll
    for (int j = 0; j < kRoofSums; ++j) Product(sums[j], a, b);
  }
  Sum total = 0;
#pragma unroll
  for (int j = 0; j < kRoofSums; ++j) total += sums[j][0];
  if (total == Sum(0.125f)) *out = total;  // hardly ever; keeps the products
}

// Operations per second of tensor cores alone; a product has 16 x 8 x k_per_product multiplications and additions.
template <typename Sum>
double MeasureTensorRoof(int num_multiprocessors, int k_per_product) {
  Sum* out = Allocate<Sum>(1);
  const int num_blocks = 4 * num_multiprocessors;
  const Timing timing = Measure([&] {
    return cuda::Launch(TensorRoof<Sum>,
                        {.grid = dim3(static_cast<unsigned>(num_blocks)), .block = dim3(32 * kRoofWarps)}, out);
  });
  Require(cudaFree(out), "cudaFree");
  const double products = static_cast<double>(num_blocks) * kRoofWarps * kRoofProducts;
  return products * 16 * 8 * k_per_product * 2 / (timing.median_us * 1e-6);
}

struct Format {
  const char* name;
  WeightFormat format;
  int group_size;
};
constexpr Format kFormats[] = {{"bf16", WeightFormat::kDense, 0},
                               {"int8", WeightFormat::kInt8, 0},
                               {"int8/32", WeightFormat::kInt8, 32},
                               {"int4/128", WeightFormat::kInt4, 128},
                               {"int4/32", WeightFormat::kInt4, 32}};

struct Layer {
  const char* name;
  int64_t n;
  int64_t k;
};
constexpr Layer kLayers[] = {{"qkv", 6144, 4096}, {"o", 4096, 4096}, {"gate_up", 28672, 4096}, {"down", 4096, 14336}};

struct Machine {
  int num_multiprocessors = 0;
  bool has_warpgroups = false;
  cuda::ResidentClusters resident_clusters;
  double bandwidth = 0;
  double bf16_roof = 0;
  double int8_roof = 0;
};

constexpr double kWorthTiming = 2;  // candidates that cost at most so many times the plan's choice

// The kernel, and how the plan has it cut the matrix where there is more than one way.
std::string Describe(const cuda::MatmulCandidate& plan) {
  std::string text = cuda::MatmulKernelName(plan.kernel);
  if (plan.kernel == cuda::MatmulKernel::kWarpgroup) {
    text += " " + std::to_string(plan.block_channels) + "x" + std::to_string(plan.rows_per_pass) + " of " +
            std::to_string(plan.cluster.channel_blocks) + "x" + std::to_string(plan.cluster.row_blocks);
  }
  return text;
}

// Of the layer's copies, one after the other, by one kernel.
void ReportMatmul(const Format& format, const Layer& layer, const std::vector<cuda::MatmulLaunch>& copies,
                  const cuda::MatmulCandidate& plan, const Machine& machine) {
  const cuda::MatmulLaunch& launch = copies.front();
  size_t next = 0;
  const Timing timing = Measure([&] { return cuda::LaunchMatmul(copies[next++ % copies.size()], nullptr); });
  const auto rows = static_cast<double>(launch.out.rows);
  const bool is_int8 = launch.x_quantized.values != nullptr;
  const cuda::PackedWeightSizes sizes = cuda::PackedSizes(
      {.format = format.format, .dtype = DType::kBF16, .n = layer.n, .k = layer.k, .group_size = format.group_size});
  const double num_bytes =
      static_cast<double>(sizes.values_bytes + sizes.scales_bytes) +
      rows * (static_cast<double>(layer.k) * (is_int8 ? 1 : 2) + 2.0 * static_cast<double>(layer.n));
  const double seconds = timing.median_us * 1e-6;
  const double flops = 2 * rows * static_cast<double>(layer.n) * static_cast<double>(layer.k) / seconds;
  const bool is_planned = cuda::PlanMatmul(cuda::DescribeMatmul(launch)).kernel == plan.kernel;
  std::printf(
      "{\"what\": \"matmul %s\", \"shape\": \"%s %lld rows\", \"kernel\": \"%s\", \"planned\": %s, \"us\": %.2f, "
      "\"spread_us\": %.2f, \"GB/s\": %.1f, \"of_copy_bandwidth\": %.3f, \"TFLOP/s\": %.2f, \"of_mma_sync\": %.3f}\n",
      format.name, layer.name, static_cast<long long>(launch.out.rows), Describe(plan).c_str(),
      is_planned ? "true" : "false", timing.median_us, timing.spread_us, num_bytes / seconds / 1e9,
      num_bytes / seconds / machine.bandwidth, flops / 1e12, flops / (is_int8 ? machine.int8_roof : machine.bf16_roof));
  std::fflush(stdout);
}

// By every kernel that the plan's model does not rule out.
void ReportCandidates(const Format& format, const Layer& layer, std::vector<cuda::MatmulLaunch>& copies,
                      const Machine& machine) {
  const cuda::MatmulProblem problem = cuda::DescribeMatmul(copies.front());
  const double least_cost = cuda::PlanMatmul(problem).cost_clocks;
  for (const cuda::MatmulCandidate& candidate : cuda::MatmulCandidates(problem)) {
    if (candidate.skip_reason != nullptr || candidate.cost_clocks > kWorthTiming * least_cost) continue;
    for (cuda::MatmulLaunch& copy : copies) copy.kernel = candidate.kernel;
    ReportMatmul(format, layer, copies, candidate, machine);
  }
}

// Memory of a layer, freed with it.
class Memory {
 public:
  Memory() = default;
  Memory(const Memory&) = delete;
  Memory& operator=(const Memory&) = delete;
  ~Memory() {
    for (unsigned char* part : parts_) Require(cudaFree(part), "cudaFree");
  }
  unsigned char* Allocate(size_t num_bytes) {
    parts_.push_back(cuda_bench::Allocate<unsigned char>(num_bytes + 16));
    return parts_.back();
  }
  // As operands of products that are summed in Sum.
  template <typename Sum>
  unsigned char* Random(size_t num_bytes) {
    unsigned char* part = Allocate(num_bytes);
    FillRandom<Sum>(part, num_bytes);
    return part;
  }

 private:
  std::vector<unsigned char*> parts_;
};

void BenchLayer(const Format& format, const Layer& layer, const Machine& machine) {
  const cuda::PackedWeightSizes sizes = cuda::PackedSizes(
      {.format = format.format, .dtype = DType::kBF16, .n = layer.n, .k = layer.k, .group_size = format.group_size});
  const size_t workspace_bytes = cuda::MatmulWorkspaceBytes(kMaxRows, layer.n, layer.k);
  Memory memory;
  cuda::MatmulLaunch launch;
  launch.w = {.format = format.format, .n = layer.n, .k = layer.k, .stride = layer.k, .group_size = format.group_size};
  launch.x = {memory.Random<float>(kMaxRows * layer.k * 2), DType::kBF16, 0, layer.k, layer.k};
  launch.out = {memory.Allocate(kMaxRows * layer.n * 2), DType::kBF16, 0, layer.n, layer.n};
  if (format.format == WeightFormat::kInt8 && format.group_size == 0) {
    launch.x_quantized = {reinterpret_cast<int8_t*>(memory.Random<int32_t>(kMaxRows * layer.k)),
                          reinterpret_cast<float*>(memory.Random<float>(kMaxRows * sizeof(float))), layer.k};
  }
  launch.workspace = memory.Allocate(workspace_bytes);
  launch.workspace_bytes = workspace_bytes;
  launch.num_multiprocessors = machine.num_multiprocessors;
  launch.has_warpgroups = machine.has_warpgroups;
  launch.resident_clusters = machine.resident_clusters;
  std::vector<cuda::MatmulLaunch> copies(std::min(kMaxCopies, kRotatedBytes / sizes.values_bytes + 1), launch);
  for (cuda::MatmulLaunch& copy : copies) {
    copy.w.values = format.format == WeightFormat::kDense ? memory.Random<float>(sizes.values_bytes)
                                                          : memory.Random<int32_t>(sizes.values_bytes);
    copy.w.scales = memory.Random<float>(sizes.scales_bytes);
  }
  for (const int64_t rows : {1, 2, 4, 5, 8, 9, 16, 17, 32, 64, 65, 96, 128, 129, 176, 177, 256, 257, 512, 513, 2048}) {
    for (cuda::MatmulLaunch& copy : copies) copy.x.rows = copy.out.rows = rows;
    ReportCandidates(format, layer, copies, machine);
  }
}

void Run() {
  Machine machine;
  Require(cudaDeviceGetAttribute(&machine.num_multiprocessors, cudaDevAttrMultiProcessorCount, 0), "the device");
  Require(cuda::FindWarpgroups(machine.has_warpgroups), "what the kernels were built for");
  if (machine.has_warpgroups) machine.resident_clusters = cuda::FindResidentClusters();
  machine.bandwidth = MeasureCopyBandwidth();
  machine.bf16_roof = MeasureTensorRoof<float>(machine.num_multiprocessors, 16);
  machine.int8_roof = MeasureTensorRoof<int32_t>(machine.num_multiprocessors, 32);
  std::printf(
      "{\"what\": \"roofs\", \"GB/s\": %.1f, \"bf16 TFLOP/s\": %.1f, \"int8 TOP/s\": %.1f, \"clusters of 2\": %d, "
      "\"clusters of 4\": %d}\n",
      machine.bandwidth / 1e9, machine.bf16_roof / 1e12, machine.int8_roof / 1e12, machine.resident_clusters.of_two,
      machine.resident_clusters.of_four);
  for (const Format& format : kFormats) {
    for (const Layer& layer : kLayers) BenchLayer(format, layer, machine);
  }
}

}  // namespace
}  // namespace millrace::cuda_bench

int main() {
  millrace::cuda_bench::RequireGpu("matmul_bench");
  millrace::cuda_bench::Run();
  return 0;
}
