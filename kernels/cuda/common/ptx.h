// SPDX-License-Identifier: Apache-2.0
#pragma once
// Every instruction the kernels need that C++ has no word for; asm stands nowhere else. Device code only. Under
// MILLRACE_SIMT the same names come from the emulator's header, and tests/cuda/wrappers_conformance_test.cu holds both
// against each other on a GPU: a wrapper added here goes there too.
#ifdef MILLRACE_SIMT
#include <simt_ptx.h>
#else
#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include <cstdint>

namespace millrace::cuda::ptx {

// The block's dynamic shared memory, 128-byte aligned.
template <typename T>
__device__ __forceinline__ T* SharedMemory() {
  extern __shared__ __align__(128) unsigned char millrace_shared_bytes[];
  return reinterpret_cast<T*>(millrace_shared_bytes);
}
__device__ __forceinline__ uint32_t SharedAddress(const void* shared) {
  return static_cast<uint32_t>(__cvta_generic_to_shared(shared));
}

// Asynchronous copies global -> shared of naturally aligned pieces, zero-filled when !is_valid (the source is then not
// read). The data is there for the copying thread after CpAsyncWait, for others after a barrier that follows it.
__device__ __forceinline__ void CpAsync16(void* shared, const void* global, bool is_valid) {
  const int bytes = is_valid ? 16 : 0;  // past L1: what is staged in shared memory is not asked for again
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(SharedAddress(shared)), "l"(global), "r"(bytes)
               : "memory");
}
__device__ __forceinline__ void CpAsync8(void* shared, const void* global, bool is_valid) {
  const int bytes = is_valid ? 8 : 0;
  asm volatile("cp.async.ca.shared.global [%0], [%1], 8, %2;" ::"r"(SharedAddress(shared)), "l"(global), "r"(bytes)
               : "memory");
}
__device__ __forceinline__ void CpAsync4(void* shared, const void* global, bool is_valid) {
  const int bytes = is_valid ? 4 : 0;
  asm volatile("cp.async.ca.shared.global [%0], [%1], 4, %2;" ::"r"(SharedAddress(shared)), "l"(global), "r"(bytes)
               : "memory");
}
__device__ __forceinline__ void CpAsyncCommit() { asm volatile("cp.async.commit_group;" ::: "memory"); }
// Until at most kPending of this thread's groups are unfinished.
template <int kPending>
__device__ __forceinline__ void CpAsyncWait() {
  asm volatile("cp.async.wait_group %0;" ::"n"(kPending) : "memory");
}

// 8x8 matrices of 16-bit elements: lanes 8i .. 8i+7 give the addresses of matrix i's rows (16 bytes each, aligned);
// lane l receives row l/4, columns 2(l%4) and 2(l%4)+1 of matrix i in r[i]; Trans: of the transposed matrix.
__device__ __forceinline__ void LdMatrixX1(uint32_t (&r)[1], const void* row_address) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x1.shared.b16 {%0}, [%1];"
               : "=r"(r[0])
               : "r"(SharedAddress(row_address))
               : "memory");
}
__device__ __forceinline__ void LdMatrixX2(uint32_t (&r)[2], const void* row_address) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x2.shared.b16 {%0, %1}, [%2];"
               : "=r"(r[0]), "=r"(r[1])
               : "r"(SharedAddress(row_address))
               : "memory");
}
__device__ __forceinline__ void LdMatrixX4(uint32_t (&r)[4], const void* row_address) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(SharedAddress(row_address))
               : "memory");
}
__device__ __forceinline__ void LdMatrixX2Trans(uint32_t (&r)[2], const void* row_address) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x2.trans.shared.b16 {%0, %1}, [%2];"
               : "=r"(r[0]), "=r"(r[1])
               : "r"(SharedAddress(row_address))
               : "memory");
}
__device__ __forceinline__ void LdMatrixX4Trans(uint32_t (&r)[4], const void* row_address) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(SharedAddress(row_address))
               : "memory");
}

// The transpose of an 8x8 matrix of 16-bit elements that lies in registers as LdMatrixX1 leaves one.
__device__ __forceinline__ uint32_t MovMatrixTrans(uint32_t a) {
  uint32_t d;
  asm volatile("movmatrix.sync.aligned.m8n8.trans.b16 %0, %1;" : "=r"(d) : "r"(a));
  return d;
}

// d += a * b on tensor cores, A row-major, B column-major; with g = lane / 4, t = lane % 4 and e elements a register:
//   a[0..3]: rows g, g+8, g, g+8; columns e*t .. for a[0], a[1], the second half of K for a[2], a[3]
//   b[0..1]: column g; rows e*t .. and the second half of K.  d[0..3]: row g columns 2t, 2t+1, then row g+8
__device__ __forceinline__ void MmaBf16(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
      "{%0, %1, %2, %3};"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}
__device__ __forceinline__ void MmaF16(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
      "{%0, %1, %2, %3};"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}
__device__ __forceinline__ void MmaS8(int32_t (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
  asm volatile(
      "mma.sync.aligned.m16n8k32.row.col.s32.s8.s8.s32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
      "{%0, %1, %2, %3};"
      : "+r"(d[0]), "+r"(d[1]), "+r"(d[2]), "+r"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

// Any function of three bits, by its truth table: f(0xf0, 0xcc, 0xaa).
template <int kTable>
__device__ __forceinline__ uint32_t Lop3(uint32_t a, uint32_t b, uint32_t c) {
  uint32_t d;
  asm("lop3.b32 %0, %1, %2, %3, %4;" : "=r"(d) : "r"(a), "r"(b), "r"(c), "n"(kTable));
  return d;
}
// Byte i of the result is byte (selector >> 4i) & 7 of b:a; with bit 3 of that nibble, its sign eight times.
__device__ __forceinline__ uint32_t Prmt(uint32_t a, uint32_t b, uint32_t selector) {
  uint32_t d;
  asm("prmt.b32 %0, %1, %2, %3;" : "=r"(d) : "r"(a), "r"(b), "r"(selector));
  return d;
}

// Read-only data that is used once, such as weights: not kept in L1, first to leave L2. The policy is made once.
__device__ __forceinline__ uint64_t StreamPolicy() {
  uint64_t policy;
  asm volatile("createpolicy.fractional.L2::evict_first.b64 %0, 1.0;" : "=l"(policy));
  return policy;
}
__device__ __forceinline__ uint4 LoadStream16(const void* global, uint64_t policy) {
  uint4 v;
  asm volatile("ld.global.nc.L1::no_allocate.L2::cache_hint.v4.u32 {%0, %1, %2, %3}, [%4], %5;"
               : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w)
               : "l"(global), "l"(policy));
  return v;
}
__device__ __forceinline__ uint4 LoadStream16(const void* global) { return LoadStream16(global, StreamPolicy()); }
// What a predecessor wrote, from a pointer that has been pinned: not before a GridDependencyWait that comes first.
__device__ __forceinline__ uint4 LoadGlobal16(const void* global) {
  uint4 v;
  asm volatile("ld.global.v4.u32 {%0, %1, %2, %3}, [%4];"
               : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w)
               : "l"(global)
               : "memory");
  return v;
}
__device__ __forceinline__ void PrefetchL2(const void* global) {
  asm volatile("prefetch.global.L2 [%0];" ::"l"(global));
}

// The same value (a pointer or of 32 bits), of which the compiler forgets where it came from: it stays in a register
// instead of being computed anew at every use, or is computed here and not earlier.
template <typename T>
__device__ __forceinline__ T Pin(T value) {
  if constexpr (sizeof(T) == 8) {
    asm volatile("" : "+l"(value));
  } else {
    asm volatile("" : "+r"(value));
  }
  return value;
}

// Programmatic dependent launch: nothing a predecessor touches before the wait; the launch lets the next kernel start.
__device__ __forceinline__ void GridDependencyWait() {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}
__device__ __forceinline__ void GridDependencyLaunch() {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
#endif
}

// Approximate: within 2 units of the last place, subnormals are zero.
__device__ __forceinline__ float Exp2(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}
__device__ __forceinline__ float Reciprocal(float x) {
  float y;
  asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}

}  // namespace millrace::cuda::ptx

#include "kernels/cuda/common/ptx_e4m3.h"
#endif
