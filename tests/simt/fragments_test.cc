// SPDX-License-Identifier: Apache-2.0
// Tensor core tiles as kernels use them, from shared memory to the result, against a plain product of matrices: shows
// that ldmatrix and the fragment maps fit each other.
#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <catch2/catch.hpp>
#include <cstdint>
#include <cstring>
#include <random>
#include <vector>

#include "kernels/cuda/common/launch.h"
#include "kernels/cuda/common/ptx.h"

namespace millrace::cuda {
namespace {

constexpr int kM = 16, kN = 8, kRowBytes = 32;  // a row of A, and of B where it is stored [N, K]

enum class Kind { kBf16, kF16, kS8 };
enum class BStored { kByColumn, kByRow };  // [N, K], or [K, N] and transposed on the way

// C = A * B of one tile. Shared memory: A [16, K], then B.
template <Kind kKind, BStored kStored>
__global__ void Tile(const uint4* a_in, const uint4* b_in, float* out) {
  char* shared = ptx::SharedMemory<char>();
  const int lane = threadIdx.x;
  char* b_shared = shared + kM * kRowBytes;
  reinterpret_cast<uint4*>(shared)[lane] = a_in[lane];
  if (lane < kN * kRowBytes / 16) reinterpret_cast<uint4*>(b_shared)[lane] = b_in[lane];
  __syncthreads();
  uint32_t a[4], b[2];
  ptx::LdMatrixX4(a, shared + lane % 16 * kRowBytes + lane / 16 * 16);
  if constexpr (kStored == BStored::kByColumn) {
    ptx::LdMatrixX2(b, b_shared + lane % 8 * kRowBytes + lane / 8 % 2 * 16);
  } else {
    ptx::LdMatrixX2Trans(b, b_shared + lane % 16 * 16);
  }
  float d[4] = {};
  if constexpr (kKind == Kind::kBf16) ptx::MmaBf16(d, a, b);
  if constexpr (kKind == Kind::kF16) ptx::MmaF16(d, a, b);
  if constexpr (kKind == Kind::kS8) {
    int32_t sums[4] = {};
    ptx::MmaS8(sums, a, b);
    for (int i = 0; i < 4; ++i) d[i] = static_cast<float>(sums[i]);
  }
  for (int i = 0; i < 4; ++i) out[(lane / 4 + i / 2 * 8) * kN + lane % 4 * 2 + i % 2] = d[i];
}

// Small integers: exact in every type. Element (row, col) of a matrix of `cols` columns.
template <typename T>
std::vector<T> Encode(const std::vector<int>& values) {
  std::vector<T> encoded;
  for (const int value : values) encoded.push_back(T(value));
  return encoded;
}

template <Kind kKind, BStored kStored, typename T>
void CheckTile() {
  constexpr int kK = kRowBytes / sizeof(T);
  std::mt19937 random(7);
  std::vector<int> a(kM * kK), b(kN * kK);
  for (int& value : a) value = static_cast<int>(random() % 17) - 8;
  for (int& value : b) value = static_cast<int>(random() % 17) - 8;
  const std::vector<T> a_bytes = Encode<T>(a), b_bytes = Encode<T>(b);
  uint4 *a_device, *b_device;
  float* out;
  REQUIRE(cudaMalloc(&a_device, kM * kRowBytes) == cudaSuccess);
  REQUIRE(cudaMalloc(&b_device, kN * kRowBytes) == cudaSuccess);
  REQUIRE(cudaMalloc(&out, kM * kN * sizeof(float)) == cudaSuccess);
  REQUIRE(cudaMemcpy(a_device, a_bytes.data(), kM * kRowBytes, cudaMemcpyHostToDevice) == cudaSuccess);
  REQUIRE(cudaMemcpy(b_device, b_bytes.data(), kN * kRowBytes, cudaMemcpyHostToDevice) == cudaSuccess);
  const LaunchShape shape = {.grid = dim3(1), .block = dim3(32), .shared_bytes = (kM + kN) * kRowBytes};
  REQUIRE(Launch(Tile<kKind, kStored>, shape, a_device, b_device, out) == cudaSuccess);
  for (int m = 0; m < kM; ++m) {
    for (int n = 0; n < kN; ++n) {
      int want = 0;
      for (int k = 0; k < kK; ++k) want += a[m * kK + k] * (kStored == BStored::kByRow ? b[k * kN + n] : b[n * kK + k]);
      CHECK(out[m * kN + n] == want);
    }
  }
  cudaFree(a_device);
  cudaFree(b_device);
  cudaFree(out);
}

TEST_CASE("simt: ldmatrix and mma multiply matrices of bf16, half and int8") {
  CheckTile<Kind::kBf16, BStored::kByColumn, __nv_bfloat16>();
  CheckTile<Kind::kBf16, BStored::kByRow, __nv_bfloat16>();
  CheckTile<Kind::kF16, BStored::kByColumn, __half>();
  CheckTile<Kind::kF16, BStored::kByRow, __half>();
  CheckTile<Kind::kS8, BStored::kByColumn, int8_t>();
}

// 16 rows of 64 bytes, as they lie, or with the 16-byte pieces of a row swapped by the row.
template <bool kIsSwizzled>
__global__ void LoadRows(uint32_t* out) {
  uint4* shared = ptx::SharedMemory<uint4>();
  const int lane = threadIdx.x, row = lane % 16, piece = lane / 16;
  for (int i = lane; i < 64; i += 32) shared[i] = uint4{};
  __syncwarp();
  uint32_t r[4];
  ptx::LdMatrixX4(r, shared + row * 4 + (kIsSwizzled ? piece ^ (row / 2 & 3) : piece));
  out[lane] = r[0] + r[1] + r[2] + r[3];
}

TEST_CASE("simt: bank conflicts of ldmatrix are counted, and a swizzle has none") {
  uint32_t* out;
  REQUIRE(cudaMalloc(&out, 32 * sizeof(uint32_t)) == cudaSuccess);
  const LaunchShape shape = {.grid = dim3(1), .block = dim3(32), .shared_bytes = 1024};
  simt::TakeBankConflicts();
  REQUIRE(Launch(LoadRows<true>, shape, out) == cudaSuccess);
  CHECK(simt::TakeBankConflicts().ldmatrix == 0);
  REQUIRE(Launch(LoadRows<false>, shape, out) == cudaSuccess);
  CHECK(simt::TakeBankConflicts().ldmatrix == 4 * 3);  // four rows of each matrix share two groups of banks
  cudaFree(out);
}

}  // namespace
}  // namespace millrace::cuda
