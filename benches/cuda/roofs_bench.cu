// SPDX-License-Identifier: Apache-2.0
// What this GPU can do at most: bytes read, bytes copied, and products of warpgroups with both operands in shared
// memory (sm_90a; matmul_bench measures those of mma.sync). Operands are random numbers: on zeros a GPU runs faster.
#include <cstdint>
#include <cstdio>

#include "benches/cuda/random_operands.h"
#include "benches/cuda/timing.h"
#include "kernels/cuda/common/launch.h"
#include "kernels/cuda/common/ptx_wgmma.h"

namespace millrace::cuda_bench {
namespace {

namespace ptx = cuda::ptx;

constexpr int kReadThreads = 512;
constexpr int kReadsInFlight = 8;
constexpr size_t kReadBytes = size_t{1} << 30;

__global__ void __launch_bounds__(kReadThreads) ReadKernel(const uint4* values, size_t count, uint32_t* out) {
  uint32_t sum = 0;
  const size_t step = size_t{gridDim.x} * kReadThreads;
  for (size_t i = size_t{blockIdx.x} * kReadThreads + threadIdx.x; i < count; i += kReadsInFlight * step) {
    uint4 loaded[kReadsInFlight];
#pragma unroll
    for (int j = 0; j < kReadsInFlight; ++j) {
      loaded[j] = i + static_cast<size_t>(j) * step < count ? values[i + static_cast<size_t>(j) * step] : uint4{};
    }
#pragma unroll
    for (int j = 0; j < kReadsInFlight; ++j) sum ^= loaded[j].x ^ loaded[j].y ^ loaded[j].z ^ loaded[j].w;
  }
  if (sum == 0x12345678) *out = sum;  // never of zeros; keeps the loads
}

double MeasureReadBandwidth(int num_multiprocessors) {
  auto* values = Allocate<uint4>(kReadBytes / sizeof(uint4));
  auto* out = Allocate<uint32_t>(1);
  const Timing timing = Measure([&] {
    return cuda::Launch(ReadKernel,
                        {.grid = dim3(static_cast<unsigned>(4 * num_multiprocessors)), .block = dim3(kReadThreads)},
                        const_cast<const uint4*>(values), kReadBytes / sizeof(uint4), out);
  });
  Require(cudaFree(values), "cudaFree");
  Require(cudaFree(out), "cudaFree");
  return static_cast<double>(kReadBytes) / (timing.median_us * 1e-6);
}

constexpr int kWarpgroups = 2;
constexpr int kRounds = 1024;
constexpr int kRowBytes = 128;      // of both operands: the swizzle's width
constexpr int kProductsARound = 4;  // each takes 32 bytes of every row
constexpr int kOperandRows = 64 * kWarpgroups + 192;
constexpr int kSharedBytes = kOperandRows * kRowBytes + 1024;

__device__ void Product(float (&d)[16][4], uint64_t a, uint64_t b) { ptx::WgmmaBf16(d, a, b, true); }
__device__ void Product(int32_t (&d)[24][4], uint64_t a, uint64_t b) { ptx::WgmmaS8(d, a, b, true); }

template <typename Sum, int kColumns>
__global__ void __launch_bounds__(128 * kWarpgroups, 1) ProductRoof(Sum* out) {
  unsigned char* shared = ptx::AlignShared<1024>(ptx::SharedMemory<unsigned char>());
  for (uint32_t i = threadIdx.x; i < kOperandRows * kRowBytes / 4; i += 128 * kWarpgroups) {
    reinterpret_cast<uint32_t*>(shared)[i] = RandomOperand<Sum>(i);
  }
  ptx::FenceAsyncProxy();
  __syncthreads();
  const uint32_t group = threadIdx.x / 128;
  const uint64_t a = ptx::MatrixDescriptor(shared + group * 64 * kRowBytes, ptx::Swizzle::k128, 16, 8 * kRowBytes);
  const uint64_t b =
      ptx::MatrixDescriptor(shared + 64 * kWarpgroups * kRowBytes, ptx::Swizzle::k128, 16, 8 * kRowBytes);
  Sum sums[kColumns / 8][4] = {};
  for (int round = 0; round < kRounds; ++round) {
    ptx::WgmmaFence();
#pragma unroll
    for (uint32_t i = 0; i < kProductsARound; ++i) Product(sums, ptx::Advance(a, 32 * i), ptx::Advance(b, 32 * i));
    ptx::WgmmaCommit();
    ptx::WgmmaWait<1>();
  }
  ptx::WgmmaWait<0>();
  Sum total = 0;
#pragma unroll
  for (int j = 0; j < kColumns / 8; ++j) total += sums[j][0];
  if (total == Sum(0.125f)) *out = total;  // hardly ever; keeps the products
}

// Operations per second.
template <typename Sum, int kColumns>
double MeasureProductRoof(int num_multiprocessors) {
  Sum* out = Allocate<Sum>(1);
  const auto kernel = ProductRoof<Sum, kColumns>;
  const Timing timing = Measure([&] {
    return cuda::Launch(kernel,
                        {.grid = dim3(static_cast<unsigned>(num_multiprocessors)),
                         .block = dim3(128 * kWarpgroups),
                         .shared_bytes = kSharedBytes},
                        out);
  });
  Require(cudaFree(out), "cudaFree");
  const double products = static_cast<double>(num_multiprocessors) * kWarpgroups * kRounds * kProductsARound;
  const double k = 32.0 / (kColumns == 128 ? 2 : 1);
  return products * 64 * kColumns * k * 2 / (timing.median_us * 1e-6);
}

int AttributeOf(cudaDeviceAttr attribute) {
  int value = 0;
  Require(cudaDeviceGetAttribute(&value, attribute, 0), "the device");
  return value;
}

void Run() {
  const int num_multiprocessors = AttributeOf(cudaDevAttrMultiProcessorCount);
  std::printf("{\"what\": \"memory roofs\", \"read GB/s\": %.1f, \"copy GB/s\": %.1f}\n",
              MeasureReadBandwidth(num_multiprocessors) / 1e9, MeasureCopyBandwidth() / 1e9);
  std::fflush(stdout);
  if (AttributeOf(cudaDevAttrComputeCapabilityMajor) != 9) return;
  std::printf("{\"what\": \"warpgroup roofs\", \"bf16 TFLOP/s\": %.1f, \"int8 TOP/s\": %.1f}\n",
              MeasureProductRoof<float, 128>(num_multiprocessors) / 1e12,
              MeasureProductRoof<int32_t, 192>(num_multiprocessors) / 1e12);
}

}  // namespace
}  // namespace millrace::cuda_bench

int main() {
  millrace::cuda_bench::RequireGpu("roofs_bench");
  millrace::cuda_bench::Run();
  return 0;
}
