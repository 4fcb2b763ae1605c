// SPDX-License-Identifier: Apache-2.0
// For each mistake that kernels are prone to: the emulator says so in some order of threads, and nothing of the same
// kernel without the mistake.
#include <catch2/catch.hpp>
#include <string>

#include "kernels/cuda/common/launch.h"
#include "kernels/cuda/common/ptx.h"

namespace millrace::cuda {
namespace {

using Catch::Matchers::Contains;

// Plain loads and stores are seen where the compiler's hooks are free: not together with AddressSanitizer, which sees
// for itself what is outside memory, and ends the process.
#if __has_feature(address_sanitizer)
constexpr bool kSeesPlainAccesses = false;
#else
constexpr bool kSeesPlainAccesses = true;
#endif
#define REQUIRE_PLAIN_ACCESSES()                                                  \
  if (!kSeesPlainAccesses) {                                                      \
    WARN("[SKIPPED] plain accesses are not seen together with AddressSanitizer"); \
    return;                                                                       \
  }

constexpr int kNumThreads = 128;
constexpr int kNumSeeds = 8;

struct Buffers {
  Buffers() {
    REQUIRE(cudaMalloc(&in, kNumThreads * sizeof(uint4)) == cudaSuccess);
    REQUIRE(cudaMalloc(&out, kNumThreads * sizeof(int)) == cudaSuccess);
    for (int i = 0; i < kNumThreads * 4; ++i) in[i] = i;
  }
  ~Buffers() {
    cudaFree(in);
    cudaFree(out);
  }
  int* in = nullptr;
  int* out = nullptr;
};

// The first report in any of the seeds; empty when there is none.
std::string ReportOf(void (*kernel)(const int*, int*), int num_threads = kNumThreads) {
  const simt::QuietReports quiet;
  Buffers buffers;
  std::string report;
  for (int seed = 0; seed < kNumSeeds && report.empty(); ++seed) {
    simt::SetSeed(seed);
    const LaunchShape shape = {.grid = dim3(2), .block = dim3(num_threads), .shared_bytes = 8192};
    const cudaError_t error = Launch(kernel, shape, buffers.in, buffers.out);
    report = simt::TakeReport();
    CHECK(error == (report.empty() ? cudaSuccess : cudaErrorLaunchFailure));
    CHECK(cudaGetLastError() == error);
    for (int i = 0; report.empty() && i < num_threads; ++i) CHECK(buffers.out[i] != -1);
  }
  simt::SetSeed(0);
  return report;
}

template <bool kIsBroken>
__global__ void Reverse(const int* in, int* out) {
  int* shared = ptx::SharedMemory<int>();
  shared[threadIdx.x] = in[threadIdx.x];
  if (!kIsBroken) __syncthreads();
  out[threadIdx.x] = shared[blockDim.x - 1 - threadIdx.x];
}

template <bool kIsBroken>
__global__ void ReverseStatic(const int* in, int* out) {
  __shared__ int shared[kNumThreads];
  for (int round = 0; round < 2; ++round) {
    shared[threadIdx.x] = in[threadIdx.x] + round;
    __syncthreads();
    out[threadIdx.x] = shared[blockDim.x - 1 - threadIdx.x];
    if (!kIsBroken) __syncthreads();  // before the next round writes
  }
}

template <bool kIsBroken>
__global__ void ReverseWarp(const int* in, int* out) {
  int* shared = ptx::SharedMemory<int>();
  shared[threadIdx.x] = in[threadIdx.x];
  if (!kIsBroken) __syncwarp();
  out[threadIdx.x] = shared[threadIdx.x ^ 31];
}

// Two stages: the first must be there when one group may still be on its way.
template <int kPending>
__global__ void CopyPieces(const int* in, int* out) {
  int* shared = ptx::SharedMemory<int>();
  const int at = 4 * threadIdx.x;
  ptx::CpAsync16(shared + at, in + at, true);
  ptx::CpAsyncCommit();
  ptx::CpAsync4(shared + 4 * kNumThreads + threadIdx.x, in + at, true);
  ptx::CpAsyncCommit();
  ptx::CpAsyncWait<kPending>();
  out[threadIdx.x] = shared[at];
  ptx::CpAsyncWait<0>();
}

// A copy is its own thread's until a barrier.
template <bool kIsBroken>
__global__ void CopyForOthers(const int* in, int* out) {
  int* shared = ptx::SharedMemory<int>();
  ptx::CpAsync4(shared + threadIdx.x, in + threadIdx.x, true);
  ptx::CpAsyncCommit();
  ptx::CpAsyncWait<0>();
  if (!kIsBroken) __syncthreads();
  out[threadIdx.x] = shared[threadIdx.x ^ 64];
}

template <int kPast>
__global__ void ReadPast(const int* in, int* out) {
  out[threadIdx.x] = in[3 * kNumThreads + threadIdx.x + kPast];
}

template <bool kIsBroken>
__global__ void ShuffleSome(const int* in, int* out) {
  const uint32_t mask = kIsBroken ? 0xffffffffu : threadIdx.x % 32 < 16 ? 0xffffu : 0xffff0000u;
  int value = in[threadIdx.x];
  if (threadIdx.x % 32 < 16) {
    value += __shfl_xor_sync(mask, value, 1);
  } else {
    value += static_cast<int>(__ballot_sync(mask, value & 1));
  }
  out[threadIdx.x] = value < 0 ? 0 : value;
}

template <bool kIsBroken>
__global__ void LeaveEarly(const int* in, int* out) {
  out[threadIdx.x] = in[threadIdx.x];
  if (kIsBroken && threadIdx.x == 7) return;
  __syncthreads();
}
__global__ void LeaveShuffle(const int* in, int* out) {
  if (threadIdx.x % 32 == 3) return;
  out[threadIdx.x] = __shfl_xor_sync(0xffffffffu, in[threadIdx.x], 1);
}
__global__ void Diverge(const int* in, int* out) {
  if (threadIdx.x == 0) {
    __syncwarp(1);
    __syncthreads();
  } else {
    out[threadIdx.x] = in[threadIdx.x];
    __syncthreads();
  }
}
__global__ void WaitForNobody(const int* in, int* out) {
  if (threadIdx.x == 0) out[0] = __shfl_sync(3, in[0], 1);
  __syncthreads();
}

TEST_CASE("simt: shared memory read before a barrier is a race") {
  REQUIRE_PLAIN_ACCESSES();
  CHECK(ReportOf(Reverse<false>) == "");
  const std::string report = ReportOf(Reverse<true>);
  CHECK_THAT(report, Contains("race: ") && Contains("of dynamic shared memory") && Contains("; now in "));
}

TEST_CASE("simt: shared memory written again before all have read it is a race") {
  REQUIRE_PLAIN_ACCESSES();
  CHECK(ReportOf(ReverseStatic<false>) == "");
  CHECK_THAT(ReportOf(ReverseStatic<true>), Contains("race: ") && Contains("a static shared array"));
}

TEST_CASE("simt: lanes that hand data to each other need __syncwarp") {
  REQUIRE_PLAIN_ACCESSES();
  CHECK(ReportOf(ReverseWarp<false>) == "");
  CHECK_THAT(ReportOf(ReverseWarp<true>), Contains("race: "));
}

TEST_CASE("simt: a wait that leaves one group too many is seen where the data is read") {
  REQUIRE_PLAIN_ACCESSES();
  CHECK(ReportOf(CopyPieces<1>) == "");
  CHECK_THAT(ReportOf(CopyPieces<2>), Contains("copies to asynchronously and has not waited for"));
}

TEST_CASE("simt: a copy waited for by one thread is another's after a barrier only") {
  REQUIRE_PLAIN_ACCESSES();
  CHECK(ReportOf(CopyForOthers<false>) == "");
  CHECK_THAT(ReportOf(CopyForOthers<true>), Contains("race: ") || Contains("has not waited for"));
}

TEST_CASE("simt: a read past an allocation names kernel, block and thread") {
  REQUIRE_PLAIN_ACCESSES();
  CHECK(ReportOf(ReadPast<0>) == "");
  const std::string report = ReportOf(ReadPast<1>);
  CHECK_THAT(report, Contains("ReadPast") && Contains("block (0, 0, 0), thread (127, 0, 0)"));
  CHECK_THAT(report, Contains("at byte 2048 of one of 2048 bytes"));
}

TEST_CASE("simt: lanes that meet at different collectives are told apart") {
  CHECK(ReportOf(ShuffleSome<false>) == "");
  CHECK_THAT(ReportOf(ShuffleSome<true>), Contains("lanes of a warp do not meet"));
}

TEST_CASE("simt: threads that return cannot be waited for") {
  CHECK(ReportOf(LeaveEarly<false>) == "");
  CHECK_THAT(ReportOf(LeaveEarly<true>), Contains("returned"));
  CHECK_THAT(ReportOf(LeaveShuffle), Contains("returned"));
}

TEST_CASE("simt: barriers on different lines do not meet") {
  CHECK_THAT(ReportOf(Diverge), Contains("two different __syncthreads meet"));
}

TEST_CASE("simt: when all wait, the report says where") {
  CHECK_THAT(ReportOf(WaitForNobody), Contains("no thread can go on") && Contains("__shfl_sync"));
}

__global__ void WaitForGrid(int* out) {
  ptx::GridDependencyWait();
  ptx::GridDependencyLaunch();
  *out = 1;
}
__global__ void LaunchAtTheEnd(int* out) {
  ptx::GridDependencyWait();
  *out = 1;
  ptx::GridDependencyLaunch();
}
__global__ void ForgetGrid(int* out) { *out = 1; }
__global__ void TouchNothing(int*) {}
// Reads `constant` and then `made` before it waits; only one of them may be written by a kernel before.
template <bool kReadsEarly>
__global__ void AddAfterWait(const int* constant, const int* made, int* out) {
  int sum = *constant;
  if (kReadsEarly) sum += *made;
  ptx::GridDependencyWait();
  ptx::GridDependencyLaunch();
  *out = kReadsEarly ? sum : sum + *made;
}
__global__ void CopyAfterWait(const int* made, int* out) {
  ptx::CpAsync4(ptx::SharedMemory<int>(), made, true);
  ptx::CpAsyncCommit();
  ptx::GridDependencyWait();
  ptx::CpAsyncWait<0>();
  *out = *ptx::SharedMemory<int>();
}
__global__ void WriteEarly(int* out) {
  *out = 1;
  ptx::GridDependencyWait();
}

TEST_CASE("simt: a dependent launch must wait for its predecessors") {
  const simt::QuietReports quiet;
  Buffers buffers;
  const LaunchShape shape = {.grid = dim3(1), .block = dim3(1), .is_dependent = true};
  CHECK(Launch(WaitForGrid, shape, buffers.out) == cudaSuccess);
  CHECK(Launch(TouchNothing, shape, buffers.out) == cudaErrorLaunchFailure);
  CHECK_THAT(simt::TakeReport(), Contains("never called GridDependencyWait"));
  CHECK(cudaDeviceSynchronize() == cudaErrorLaunchFailure);
  cudaGetLastError();
}

#if !__has_feature(address_sanitizer)  // plain accesses are not seen there
TEST_CASE("simt: before its wait a dependent launch touches nothing of kernels before it, and lets the next start") {
  const simt::QuietReports quiet;
  Buffers buffers;
  int *made, *constant;
  REQUIRE(cudaMalloc(&made, sizeof(int)) == cudaSuccess);
  REQUIRE(cudaMalloc(&constant, sizeof(int)) == cudaSuccess);
  REQUIRE(cudaMemset(constant, 0, sizeof(int)) == cudaSuccess);
  LaunchShape shape = {.grid = dim3(1), .block = dim3(1), .shared_bytes = 16};
  const auto report_of = [&](auto launch) {
    shape.is_dependent = false;
    CHECK(Launch(ForgetGrid, shape, made) == cudaSuccess);
    shape.is_dependent = true;
    static_cast<void>(launch());
    cudaGetLastError();
    return simt::TakeReport();
  };
  CHECK(report_of([&] { return Launch(AddAfterWait<false>, shape, constant, made, buffers.out); }) == "");
  CHECK_THAT(report_of([&] { return Launch(AddAfterWait<true>, shape, constant, made, buffers.out); }),
             Contains("reads what a kernel before it wrote, before GridDependencyWait"));
  CHECK_THAT(report_of([&] { return Launch(CopyAfterWait, shape, made, buffers.out); }),
             Contains("reads what a kernel before it wrote"));
  CHECK_THAT(report_of([&] { return Launch(WriteEarly, shape, buffers.out); }),
             Contains("writes device memory before GridDependencyWait"));
  CHECK_THAT(report_of([&] { return Launch(LaunchAtTheEnd, shape, buffers.out); }),
             Contains("writes device memory before GridDependencyLaunch"));
  // Two launches further on nothing has changed: the one between need not have waited when the last one starts.
  CHECK_THAT(report_of([&] {
               static_cast<void>(Launch(WaitForGrid, shape, buffers.out));
               return Launch(AddAfterWait<true>, shape, constant, made, buffers.out);
             }),
             Contains("reads what a kernel before it wrote"));
  // A launch that is not dependent waits for all before it.
  CHECK(report_of([&] {
          shape.is_dependent = false;
          return Launch(AddAfterWait<true>, shape, constant, made, buffers.out);
        }) == "");
  cudaFree(made);
  cudaFree(constant);
}
#endif

}  // namespace
}  // namespace millrace::cuda
