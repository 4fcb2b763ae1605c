// SPDX-License-Identifier: Apache-2.0
// A pipeline of a producer and a multiplying warpgroup, with each mistake such pipelines are prone to: the emulator
// says so, or the result is wrong, in some order of threads; without the mistake neither.
#include <cuda_bf16.h>

#include <catch2/catch.hpp>
#include <cstdint>
#include <cstring>
#include <random>
#include <string>
#include <vector>

#include "kernels/cuda/common/launch.h"
#include "kernels/cuda/common/ptx_wgmma.h"

namespace millrace::cuda {
namespace {

using Catch::Matchers::Contains;

constexpr int kRows = 64, kColumns = 128, kStageK = 64, kNumStages = 2, kRounds = 5, kK = kStageK * kRounds;
constexpr int kRowBytes = 128, kStageBytes = (kRows + kColumns) * kRowBytes;

enum class Fault {
  kNone,
  kNoArrivalWait,     // multiplies without waiting for the copy
  kWrongFullParity,   // waits for the phase before
  kWrongEmptyParity,  // refills what is still multiplied
  kEarlyRelease,      // releases a stage whose products are not waited for
  kFewReleases,       // one warp speaks for four
  kNoWait,            // uses sums that are still on their way
  kNoFence,
  kWrongSwizzle,
  kWrongStride,
  kUnaligned,
  kFewBytes,  // of a copy
  kManyBytes,
  kNoInitFence,
  kNoProxyFence,  // after plain stores
};

template <Fault kFault>
struct Stages {
  unsigned char* bytes;
  ptx::Mbarrier* full;
  ptx::Mbarrier* empty;
};

template <Fault kFault>
__device__ void Produce(const CUtensorMap& a, const CUtensorMap& b, const uint4* plain_a, unsigned char* stages,
                        ptx::Mbarrier* full, ptx::Mbarrier* empty) {
  const int thread = threadIdx.x % 128;
  for (int round = 0; round < kRounds; ++round) {
    const int slot = round % kNumStages;
    unsigned char* stage = stages + slot * kStageBytes;
    const uint32_t parity = round / kNumStages % 2 ^ 1;
    ptx::MbarrierWait(empty + slot, kFault == Fault::kWrongEmptyParity ? parity ^ 1 : parity);
    // A by plain stores of 64 rows x 8 pieces, swizzled by hand; B by a tensor copy.
    for (int i = thread; i < kRows * 8; i += 128) {
      const int row = i / 8, piece = i % 8;
      reinterpret_cast<uint4*>(stage)[row * 8 + (piece ^ row % 8)] = plain_a[row * (kK / 8) + round * 8 + piece];
    }
    if (kFault != Fault::kNoProxyFence) ptx::FenceAsyncProxy();
    constexpr uint32_t kBytes = kColumns * kRowBytes;
    if (thread == 0) {
      const uint32_t announced = kFault == Fault::kFewBytes    ? kBytes - 128
                                 : kFault == Fault::kManyBytes ? kBytes + 128
                                                               : kBytes;
      ptx::MbarrierArriveExpect(full + slot, announced);
      ptx::TensorCopy(stage + kRows * kRowBytes, &b, round * kRowBytes, 0, full + slot);
    } else {
      ptx::MbarrierArrive(full + slot);
    }
  }
}

template <Fault kFault>
__device__ void Consume(unsigned char* stages, ptx::Mbarrier* full, ptx::Mbarrier* empty, float* out) {
  const int thread = threadIdx.x;
  float d[kColumns / 8][4] = {};
  const auto release = [&](int slot) {
    if (kFault == Fault::kFewReleases ? thread == 0 : thread % 32 == 0) ptx::MbarrierArrive(empty + slot);
  };
  for (int round = 0; round < kRounds; ++round) {
    const int slot = round % kNumStages;
    const uint32_t parity = round / kNumStages % 2;
    if (kFault != Fault::kNoArrivalWait) {
      ptx::MbarrierWait(full + slot, kFault == Fault::kWrongFullParity ? parity ^ 1 : parity);
    }
    const unsigned char* stage = stages + slot * kStageBytes;
    const ptx::Swizzle swizzle = kFault == Fault::kWrongSwizzle ? ptx::Swizzle::k64 : ptx::Swizzle::k128;
    const uint64_t a = ptx::MatrixDescriptor(stage, swizzle, 16, kFault == Fault::kWrongStride ? 512 : 1024);
    const uint64_t b = ptx::MatrixDescriptor(stage + kRows * kRowBytes, ptx::Swizzle::k128, 16, 1024);
    if (kFault != Fault::kNoFence) ptx::WgmmaFence();
    for (int k = 0; k < 4; ++k) ptx::WgmmaBf16(d, ptx::Advance(a, 32 * k), ptx::Advance(b, 32 * k), round + k > 0);
    ptx::WgmmaCommit();
    if (kFault == Fault::kEarlyRelease) release(slot);
    ptx::WgmmaWait<kFault == Fault::kNoWait ? 1 : 0>();
    if (kFault != Fault::kEarlyRelease) release(slot);
  }
  for (int j = 0; j < kColumns / 8; ++j) {
    for (int r = 0; r < 4; ++r) {
      const int row = thread / 32 * 16 + thread % 32 / 4 + r / 2 * 8;
      out[row * kColumns + 8 * j + thread % 4 * 2 + r % 2] = d[j][r];
    }
  }
  ptx::WgmmaWait<0>();
}

template <Fault kFault>
__global__ void Pipeline(const __grid_constant__ CUtensorMap a, const __grid_constant__ CUtensorMap b,
                         const uint4* plain_a, float* out) {
  __shared__ ptx::Mbarrier full[kNumStages], empty[kNumStages];
  unsigned char* stages = ptx::SharedMemory<unsigned char>();
  if (kFault != Fault::kUnaligned) stages = ptx::AlignShared<1024>(stages);
  if (threadIdx.x == 0) {
    for (int i = 0; i < kNumStages; ++i) {
      ptx::MbarrierInit(full + i, 128);
      ptx::MbarrierInit(empty + i, kFault == Fault::kFewReleases ? 1 : 4);
    }
    if (kFault != Fault::kNoInitFence) ptx::MbarrierInitFence();
  }
  __syncthreads();  // the barriers are there for everyone
  if (threadIdx.x >= 128) {
    Produce<kFault>(a, b, plain_a, stages, full, empty);
  } else {
    Consume<kFault>(stages, full, empty, out);
  }
}

struct Matrices {
  Matrices() {
    std::mt19937 random(3);
    a.resize(kRows * kK);
    b.resize(kColumns * kK);
    for (int& value : a) value = static_cast<int>(random() % 9) - 4;
    for (int& value : b) value = static_cast<int>(random() % 9) - 4;
    REQUIRE(cudaMalloc(&a_device, a.size() * 2) == cudaSuccess);
    REQUIRE(cudaMalloc(&b_device, b.size() * 2) == cudaSuccess);
    REQUIRE(cudaMalloc(&out, kRows * kColumns * sizeof(float)) == cudaSuccess);
    for (size_t i = 0; i < a.size(); ++i) a_device[i] = __nv_bfloat16(static_cast<float>(a[i]));
    for (size_t i = 0; i < b.size(); ++i) b_device[i] = __nv_bfloat16(static_cast<float>(b[i]));
  }
  ~Matrices() {
    cudaFree(a_device);
    cudaFree(b_device);
    cudaFree(out);
  }
  static CUtensorMap Map(void* data, int rows) {
    CUtensorMap map;
    const cuuint64_t sizes[2] = {kK * 2, static_cast<cuuint64_t>(rows)}, strides[1] = {kK * 2};
    const cuuint32_t box[2] = {kRowBytes, static_cast<cuuint32_t>(rows)}, steps[2] = {1, 1};
    REQUIRE(cuTensorMapEncodeTiled(&map, CU_TENSOR_MAP_DATA_TYPE_UINT8, 2, data, sizes, strides, box, steps,
                                   CU_TENSOR_MAP_INTERLEAVE_NONE, CU_TENSOR_MAP_SWIZZLE_128B,
                                   CU_TENSOR_MAP_L2_PROMOTION_NONE, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE) == CUDA_SUCCESS);
    return map;
  }
  bool IsRight() const {
    for (int row = 0; row < kRows; ++row) {
      for (int column = 0; column < kColumns; ++column) {
        int want = 0;
        for (int k = 0; k < kK; ++k) want += a[row * kK + k] * b[column * kK + k];
        if (out[row * kColumns + column] != static_cast<float>(want)) return false;
      }
    }
    return true;
  }
  std::vector<int> a, b;
  __nv_bfloat16 *a_device = nullptr, *b_device = nullptr;
  float* out = nullptr;
};

// What is reported, or "wrong", in any of the seeds; empty when all went well.
template <Fault kFault>
std::string OutcomeOf() {
  const simt::QuietReports quiet;
  Matrices matrices;
  const LaunchShape shape = {.grid = dim3(1), .block = dim3(256), .shared_bytes = kNumStages * kStageBytes + 1024};
  for (int seed = 0; seed < 6; ++seed) {
    simt::SetSeed(seed);
    std::memset(matrices.out, 0xff, kRows * kColumns * sizeof(float));
    const cudaError_t error = Launch(Pipeline<kFault>, shape, Matrices::Map(matrices.a_device, kRows),
                                     Matrices::Map(matrices.b_device, kColumns),
                                     reinterpret_cast<const uint4*>(matrices.a_device), matrices.out);
    simt::SetSeed(0);
    const std::string report = simt::TakeReport();
    cudaGetLastError();
    CHECK((error == cudaSuccess) == report.empty());
    if (!report.empty()) return report;
    if (!matrices.IsRight()) return "wrong";
  }
  return "";
}

TEST_CASE("simt: a pipeline of warpgroups without a mistake is right in every order") {
  CHECK(OutcomeOf<Fault::kNone>() == "");
}

TEST_CASE("simt: a copy that nobody waited for, or waited for in the wrong phase, is seen") {
  CHECK_THAT(OutcomeOf<Fault::kNoArrivalWait>(), Contains("race") || Contains("has not waited for"));
  CHECK_THAT(OutcomeOf<Fault::kWrongFullParity>(), Contains("race") || Contains("has not waited for"));
}

TEST_CASE("simt: a stage that is refilled too early is seen") {
  CHECK(OutcomeOf<Fault::kWrongEmptyParity>() != "");
  CHECK_THAT(OutcomeOf<Fault::kEarlyRelease>(), Contains("that a product"));
  CHECK_THAT(OutcomeOf<Fault::kFewReleases>(), Contains("that a product"));
}

TEST_CASE("simt: sums used before they are waited for, and registers without a fence, are seen") {
  CHECK(OutcomeOf<Fault::kNoWait>() != "");
  CHECK_THAT(OutcomeOf<Fault::kNoFence>(), Contains("no WgmmaFence"));
}

TEST_CASE("simt: operands that lie otherwise than their descriptor says give wrong results") {
  CHECK(OutcomeOf<Fault::kWrongSwizzle>() == "wrong");
  CHECK(OutcomeOf<Fault::kWrongStride>() == "wrong");
  CHECK(OutcomeOf<Fault::kUnaligned>() == "wrong");
}

TEST_CASE("simt: bytes announced and bytes copied must be as many") {
  CHECK(OutcomeOf<Fault::kFewBytes>() != "");
  CHECK_THAT(OutcomeOf<Fault::kManyBytes>(), Contains("no thread can go on") && Contains("MbarrierWait"));
}

TEST_CASE("simt: fences towards copies and products are asked for") {
  CHECK_THAT(OutcomeOf<Fault::kNoInitFence>(), Contains("not fenced after its initialisation"));
#if !__has_feature(address_sanitizer)  // which leaves the emulator no sight of plain stores
  CHECK_THAT(OutcomeOf<Fault::kNoProxyFence>(), Contains("no FenceAsyncProxy"));
#endif
}

// Warps 0 and 1 hand a number over to warps 2 and 3.
template <bool kIsBroken>
__global__ void HandOver(int* out) {
  int* shared = ptx::SharedMemory<int>();
  if (threadIdx.x < 64) {
    shared[threadIdx.x] = static_cast<int>(threadIdx.x);
    ptx::NamedBarrierArrive(1, kIsBroken ? 64 : 128);
  } else {
    ptx::NamedBarrierWait(1, kIsBroken ? 64 : 128);
    out[threadIdx.x] = shared[threadIdx.x - 64];
  }
}

TEST_CASE("simt: a named barrier orders those who meet at it, and asks for all of them") {
  int* out;
  REQUIRE(cudaMalloc(&out, 128 * sizeof(int)) == cudaSuccess);
  const simt::QuietReports quiet;
  const LaunchShape shape = {.grid = dim3(1), .block = dim3(128), .shared_bytes = 256};
  std::string report;
  for (int seed = 0; seed < 6; ++seed) {
    simt::SetSeed(seed);
    CHECK(Launch(HandOver<false>, shape, out) == cudaSuccess);
    Launch(HandOver<true>, shape, out);
    report += simt::TakeReport();
    cudaGetLastError();
  }
  simt::SetSeed(0);
#if !__has_feature(address_sanitizer)
  CHECK_THAT(report, Contains("race: ") || Contains("no thread can go on"));
#endif
  cudaFree(out);
}

}  // namespace
}  // namespace millrace::cuda
