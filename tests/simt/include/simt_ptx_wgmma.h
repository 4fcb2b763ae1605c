// SPDX-License-Identifier: Apache-2.0
#pragma once
// The wrappers of kernels/cuda/common/ptx_wgmma.h for the emulator; the arithmetic is tests/simt/reference_wgmma.h's.
#include <cstdint>

#include "simt_ptx.h"

namespace simt {

enum class ProductType : uint8_t { kBf16, kF16, kS8 };

// One thread's part of a product of a warpgroup.
struct ProductArgument {
  ProductType type;
  int num_columns;
  void* d;            // [num_columns / 8][4]
  const uint32_t* a;  // [4], or null: a_descriptor
  uint64_t a_descriptor, b_descriptor;
  bool is_b_across_k, adds;
};
void FenceProducts(Where where);
void Multiply(const ProductArgument& argument, Where where);
void CommitProducts(Where where);
void WaitProducts(int num_pending, Where where);

}  // namespace simt

namespace millrace::cuda::ptx {

inline void WgmmaFence(simt::Where where = SIMT_HERE) { simt::FenceProducts(where); }
template <int kCount, typename Register>
void PinRegisters(Register (&)[kCount][4]) {}
inline void WgmmaCommit(simt::Where where = SIMT_HERE) { simt::CommitProducts(where); }
template <int kPending>
void WgmmaWait(simt::Where where = SIMT_HERE) {
  simt::WaitProducts(kPending, where);
}
inline void ComputeBeforeWait(float) {}
template <int kColumnTiles>
void WgmmaS8(int32_t (&d)[kColumnTiles][4], uint64_t a, uint64_t b, bool adds, simt::Where where = SIMT_HERE) {
  simt::Multiply({simt::ProductType::kS8, 8 * kColumnTiles, d, nullptr, a, b, false, adds}, where);
}
template <int kColumnTiles>
void WgmmaBf16(float (&d)[kColumnTiles][4], uint64_t a, uint64_t b, bool adds, simt::Where where = SIMT_HERE) {
  simt::Multiply({simt::ProductType::kBf16, 8 * kColumnTiles, d, nullptr, a, b, false, adds}, where);
}
template <int kColumnTiles>
void WgmmaF16(float (&d)[kColumnTiles][4], uint64_t a, uint64_t b, bool adds, simt::Where where = SIMT_HERE) {
  simt::Multiply({simt::ProductType::kF16, 8 * kColumnTiles, d, nullptr, a, b, false, adds}, where);
}
template <MatrixOrder kOrder, int kColumnTiles>
void WgmmaBf16(float (&d)[kColumnTiles][4], const uint32_t (&a)[4], uint64_t b, bool adds,
               simt::Where where = SIMT_HERE) {
  constexpr bool kIsAcross = kOrder == MatrixOrder::kAcrossK;
  simt::Multiply({simt::ProductType::kBf16, 8 * kColumnTiles, d, a, 0, b, kIsAcross, adds}, where);
}
template <MatrixOrder kOrder, int kColumnTiles>
void WgmmaF16(float (&d)[kColumnTiles][4], const uint32_t (&a)[4], uint64_t b, bool adds,
              simt::Where where = SIMT_HERE) {
  constexpr bool kIsAcross = kOrder == MatrixOrder::kAcrossK;
  simt::Multiply({simt::ProductType::kF16, 8 * kColumnTiles, d, a, 0, b, kIsAcross, adds}, where);
}

}  // namespace millrace::cuda::ptx
