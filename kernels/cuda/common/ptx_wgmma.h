// SPDX-License-Identifier: Apache-2.0
#pragma once
// Products of a warpgroup (four warps, the first a multiple of 4) on tensor cores, sm_90a: d = a * b (+ d) of 64 x N,
// asynchronous. B, and A where it is not in registers, lie in shared memory as a descriptor says. Device code only;
// elsewhere the bodies trap. Under MILLRACE_SIMT the same names come from the emulator's header.
//
//   WgmmaFence    after registers that a product takes or adds to were written, before the product
//   WgmmaCommit   products since the last one are a group
//   WgmmaWait<n>  at most n groups are unfinished: until then neither sums nor operands may be touched
//
// With g = lane / 4 and t = lane % 4, warp w of the group holds rows 16w ..: d[j] is columns 8j + 2t, 8j + 2t + 1 of
// row 16w + g, then of row 16w + g + 8. A in registers as of MmaBf16.
#include "kernels/cuda/common/ptx_barrier.h"

namespace millrace::cuda::ptx {

enum class Swizzle : uint8_t { kNone = 0, k128 = 1, k64 = 2, k32 = 3 };
// Whether neighbours in memory are neighbours along k, or along the rows of A and columns of B (16-bit types only).
enum class MatrixOrder : uint8_t { kAlongK, kAcrossK };

// Rows of the swizzle's width; its 16-byte pieces p of row r lie at p ^ (r % 8) (k128), of memory aligned to 8 rows.
// `stride_bytes` leads from 8 rows to the next 8: rows of the matrix where kAlongK, of k where kAcrossK. There,
// `leading_bytes` leads to the next swizzle's width of columns; kAlongK it is not looked at.
__device__ __forceinline__ uint64_t MatrixDescriptor(const void* shared, Swizzle swizzle, uint32_t leading_bytes,
                                                     uint32_t stride_bytes) {
  const uint64_t start = SharedAddress(shared) >> 4 & 0x3fff;
  return start | static_cast<uint64_t>(leading_bytes >> 4) << 16 | static_cast<uint64_t>(stride_bytes >> 4) << 32 |
         static_cast<uint64_t>(swizzle) << 62;
}
// A descriptor of what lies some bytes (a multiple of 16) further on.
__device__ __forceinline__ uint64_t Advance(uint64_t descriptor, uint32_t num_bytes) {
  return descriptor + (num_bytes >> 4);
}

}  // namespace millrace::cuda::ptx

#ifdef MILLRACE_SIMT
#include <simt_ptx_wgmma.h>
#else
#include "kernels/cuda/common/ptx_wgmma_lists.h"

namespace millrace::cuda::ptx {

__device__ __forceinline__ void WgmmaFence() { MILLRACE_SM90_ASM("wgmma.fence.sync.aligned;" :: : "memory"); }
__device__ __forceinline__ void WgmmaCommit() { MILLRACE_SM90_ASM("wgmma.commit_group.sync.aligned;" :: : "memory"); }
template <int kPending>
__device__ __forceinline__ void WgmmaWait() {
  MILLRACE_SM90_ASM("wgmma.wait_group.sync.aligned %0;" ::"n"(kPending) : "memory");
}
// Before a WgmmaWait: what `value`, which is never negative, is made of is computed while products go on. ptxas is free
// to wait first and does; across a branch it moves nothing.
__device__ __forceinline__ void ComputeBeforeWait(float value) {
  MILLRACE_SM90_ASM(
      "{\n\t.reg .pred never;\n\tsetp.lt.f32 never, %0, 0f00000000;\n\t@never nanosleep.u32 1;\n\t}" ::"f"(
          value) : "memory");
}

// Both operands in shared memory, along k. `x`, `y`, `z`: the operands after the sums' registers.
#define MILLRACE_WGMMA_SHARED(name, type, columns, shape, registers, sums, constraint, x, y, z, tail)     \
  __device__ __forceinline__ void name(type(&d)[columns / 8][4], uint64_t a, uint64_t b, bool adds) {     \
    MILLRACE_SM90_ASM("{\n\t.reg .pred adds;\n\tsetp.ne.b32 adds, %" z                                    \
                      ", 0;\n\t"                                                                          \
                      "wgmma.mma_async.sync.aligned." shape " {" registers "}, %" x ", %" y ", adds" tail \
                      ";\n\t}" : sums(constraint, d, 0) : "l"(a),                                         \
                      "l"(b), "r"(static_cast<int>(adds)));                                               \
  }
#define MILLRACE_WGMMA_S8(columns, sums, x, y, z)                                                     \
  MILLRACE_WGMMA_SHARED(WgmmaS8, int32_t, columns, "m64n" #columns "k32.s32.s8.s8", MILLRACE_D##sums, \
                        MILLRACE_SUMS##sums, "+r", x, y, z, "")
MILLRACE_WGMMA_S8(16, 8, "8", "9", "10")
MILLRACE_WGMMA_S8(32, 16, "16", "17", "18")
MILLRACE_WGMMA_S8(48, 24, "24", "25", "26")
MILLRACE_WGMMA_S8(64, 32, "32", "33", "34")
MILLRACE_WGMMA_S8(80, 40, "40", "41", "42")
MILLRACE_WGMMA_S8(96, 48, "48", "49", "50")
MILLRACE_WGMMA_S8(112, 56, "56", "57", "58")
MILLRACE_WGMMA_S8(128, 64, "64", "65", "66")
MILLRACE_WGMMA_S8(144, 72, "72", "73", "74")
MILLRACE_WGMMA_S8(160, 80, "80", "81", "82")
MILLRACE_WGMMA_S8(176, 88, "88", "89", "90")
MILLRACE_WGMMA_S8(192, 96, "96", "97", "98")
MILLRACE_WGMMA_S8(208, 104, "104", "105", "106")
MILLRACE_WGMMA_S8(224, 112, "112", "113", "114")
MILLRACE_WGMMA_S8(240, 120, "120", "121", "122")
MILLRACE_WGMMA_S8(256, 128, "128", "129", "130")
MILLRACE_WGMMA_SHARED(WgmmaBf16, float, 128, "m64n128k16.f32.bf16.bf16", MILLRACE_D64, MILLRACE_SUMS64, "+f", "64",
                      "65", "66", ", 1, 1, 0, 0")
MILLRACE_WGMMA_SHARED(WgmmaF16, float, 128, "m64n128k16.f32.f16.f16", MILLRACE_D64, MILLRACE_SUMS64, "+f", "64", "65",
                      "66", ", 1, 1, 0, 0")

// A in registers. The last number of the tail transposes B.
#define MILLRACE_WGMMA_REGISTERS(name, columns, shape, registers, sums, w, x, y, z, p, b_operand, tail)           \
  __device__ __forceinline__ void name(float(&d)[columns / 8][4], const uint32_t(&a)[4], uint64_t b, bool adds) { \
    MILLRACE_SM90_ASM("{\n\t.reg .pred adds;\n\tsetp.ne.b32 adds, %" p                                            \
                      ", 0;\n\t"                                                                                  \
                      "wgmma.mma_async.sync.aligned." shape " {" registers "}, {%" w ", %" x ", %" y ", %" z      \
                      "}, %" b_operand ", adds" tail ";\n\t}" : sums("+f", d, 0) : "r"(a[0]),                     \
                      "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"(static_cast<int>(adds)));                      \
  }
#define MILLRACE_WGMMA_BF16(order, columns, sums, w, x, y, z, p, b_operand, transposes)                      \
  MILLRACE_WGMMA_REGISTERS(WgmmaBf16##order, columns, "m64n" #columns "k16.f32.bf16.bf16", MILLRACE_D##sums, \
                           MILLRACE_SUMS##sums, w, x, y, z, p, b_operand, ", 1, 1, " transposes)
#define MILLRACE_WGMMA_F16(order, columns, sums, w, x, y, z, p, b_operand, transposes)                    \
  MILLRACE_WGMMA_REGISTERS(WgmmaF16##order, columns, "m64n" #columns "k16.f32.f16.f16", MILLRACE_D##sums, \
                           MILLRACE_SUMS##sums, w, x, y, z, p, b_operand, ", 1, 1, " transposes)
MILLRACE_WGMMA_BF16(AlongK, 16, 8, "8", "9", "10", "11", "13", "12", "0")
MILLRACE_WGMMA_BF16(AlongK, 32, 16, "16", "17", "18", "19", "21", "20", "0")
MILLRACE_WGMMA_BF16(AlongK, 48, 24, "24", "25", "26", "27", "29", "28", "0")
MILLRACE_WGMMA_BF16(AlongK, 64, 32, "32", "33", "34", "35", "37", "36", "0")
MILLRACE_WGMMA_BF16(AlongK, 80, 40, "40", "41", "42", "43", "45", "44", "0")
MILLRACE_WGMMA_BF16(AlongK, 96, 48, "48", "49", "50", "51", "53", "52", "0")
MILLRACE_WGMMA_BF16(AlongK, 112, 56, "56", "57", "58", "59", "61", "60", "0")
MILLRACE_WGMMA_BF16(AlongK, 128, 64, "64", "65", "66", "67", "69", "68", "0")
MILLRACE_WGMMA_BF16(AlongK, 144, 72, "72", "73", "74", "75", "77", "76", "0")
MILLRACE_WGMMA_BF16(AlongK, 160, 80, "80", "81", "82", "83", "85", "84", "0")
MILLRACE_WGMMA_BF16(AlongK, 176, 88, "88", "89", "90", "91", "93", "92", "0")
MILLRACE_WGMMA_BF16(AlongK, 192, 96, "96", "97", "98", "99", "101", "100", "0")
MILLRACE_WGMMA_BF16(AlongK, 208, 104, "104", "105", "106", "107", "109", "108", "0")
MILLRACE_WGMMA_BF16(AlongK, 224, 112, "112", "113", "114", "115", "117", "116", "0")
MILLRACE_WGMMA_BF16(AlongK, 240, 120, "120", "121", "122", "123", "125", "124", "0")
MILLRACE_WGMMA_BF16(AlongK, 256, 128, "128", "129", "130", "131", "133", "132", "0")
MILLRACE_WGMMA_BF16(AcrossK, 64, 32, "32", "33", "34", "35", "37", "36", "1")
MILLRACE_WGMMA_BF16(AcrossK, 128, 64, "64", "65", "66", "67", "69", "68", "1")
MILLRACE_WGMMA_F16(AlongK, 64, 32, "32", "33", "34", "35", "37", "36", "0")
MILLRACE_WGMMA_F16(AlongK, 128, 64, "64", "65", "66", "67", "69", "68", "0")
MILLRACE_WGMMA_F16(AcrossK, 64, 32, "32", "33", "34", "35", "37", "36", "1")
MILLRACE_WGMMA_F16(AcrossK, 128, 64, "64", "65", "66", "67", "69", "68", "1")

// No compiler writes these registers later than here, or reads them earlier: operands before WgmmaFence, sums after the
// last WgmmaWait.
template <int kCount>
__device__ __forceinline__ void PinRegisters(uint32_t (&r)[kCount][4]) {
#pragma unroll
  for (int i = 0; i < kCount; ++i) asm volatile("" : "+r"(r[i][0]), "+r"(r[i][1]), "+r"(r[i][2]), "+r"(r[i][3]));
}
template <int kCount>
__device__ __forceinline__ void PinRegisters(int32_t (&r)[kCount][4]) {
#pragma unroll
  for (int i = 0; i < kCount; ++i) asm volatile("" : "+r"(r[i][0]), "+r"(r[i][1]), "+r"(r[i][2]), "+r"(r[i][3]));
}
template <int kCount>
__device__ __forceinline__ void PinRegisters(float (&r)[kCount][4]) {
#pragma unroll
  for (int i = 0; i < kCount; ++i) asm volatile("" : "+f"(r[i][0]), "+f"(r[i][1]), "+f"(r[i][2]), "+f"(r[i][3]));
}

// By the order of B.
template <MatrixOrder kOrder, int kColumnTiles>
__device__ __forceinline__ void WgmmaBf16(float (&d)[kColumnTiles][4], const uint32_t (&a)[4], uint64_t b, bool adds) {
  if constexpr (kOrder == MatrixOrder::kAlongK) {
    WgmmaBf16AlongK(d, a, b, adds);
  } else {
    WgmmaBf16AcrossK(d, a, b, adds);
  }
}
template <MatrixOrder kOrder, int kColumnTiles>
__device__ __forceinline__ void WgmmaF16(float (&d)[kColumnTiles][4], const uint32_t (&a)[4], uint64_t b, bool adds) {
  if constexpr (kOrder == MatrixOrder::kAlongK) {
    WgmmaF16AlongK(d, a, b, adds);
  } else {
    WgmmaF16AcrossK(d, a, b, adds);
  }
}

}  // namespace millrace::cuda::ptx
#endif
