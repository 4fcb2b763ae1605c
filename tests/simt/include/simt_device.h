// SPDX-License-Identifier: Apache-2.0
#pragma once
// CUDA's keywords and built-in device functions.
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <type_traits>

#include "simt_core.h"
#include "simt_warp.h"

#define __global__
#define __device__
#define __host__
#define __constant__
#define __forceinline__ inline __attribute__((always_inline))
#define __align__(n) __attribute__((aligned(n)))
#define __launch_bounds__(...)
#define __grid_constant__
// In a section of its own, which the emulator fills with NaN at the start of every block.
#define __shared__ static __attribute__((section("simt_shared")))

[[noreturn]] inline void __trap() { simt::Fail("__trap"); }
inline void __syncthreads(simt::Where where = SIMT_HERE) { simt::MeetBlock(false, where); }
inline int __syncthreads_count(int predicate, simt::Where where = SIMT_HERE) {
  return simt::MeetBlock(predicate != 0, where);
}
inline int __syncthreads_or(int predicate, simt::Where where = SIMT_HERE) {
  return simt::MeetBlock(predicate != 0, where) > 0;
}
inline int __syncthreads_and(int predicate, simt::Where where = SIMT_HERE) {
  return simt::MeetBlock(predicate == 0, where) == 0;
}
// Memory is in order anyway: other blocks have run or have not begun.
inline void __threadfence() {}
inline void __threadfence_block() {}
inline void __threadfence_system() {}

// Threads give way at collectives only, so a plain read and write is atomic. Not instrumented: NoteAccess says it all.
#define SIMT_ATOMIC __attribute__((no_sanitize("thread"))) inline
template <typename T>
using SimtArgument = std::type_identity_t<T>;
template <typename T>
SIMT_ATOMIC T atomicAdd(T* address, SimtArgument<T> value) {
  simt::NoteAccess(address, sizeof(T), simt::Access::kAtomic);
  const T old = *address;
  *address = old + value;
  return old;
}
template <typename T>
SIMT_ATOMIC T atomicMax(T* address, SimtArgument<T> value) {
  simt::NoteAccess(address, sizeof(T), simt::Access::kAtomic);
  const T old = *address;
  if (old < value) *address = value;
  return old;
}
template <typename T>
SIMT_ATOMIC T atomicMin(T* address, SimtArgument<T> value) {
  simt::NoteAccess(address, sizeof(T), simt::Access::kAtomic);
  const T old = *address;
  if (value < old) *address = value;
  return old;
}
template <typename T>
SIMT_ATOMIC T atomicExch(T* address, SimtArgument<T> value) {
  simt::NoteAccess(address, sizeof(T), simt::Access::kAtomic);
  const T old = *address;
  *address = value;
  return old;
}
template <typename T>
SIMT_ATOMIC T atomicCAS(T* address, SimtArgument<T> expected, SimtArgument<T> value) {
  simt::NoteAccess(address, sizeof(T), simt::Access::kAtomic);
  const T old = *address;
  if (old == expected) *address = value;
  return old;
}
template <typename T>
SIMT_ATOMIC T atomicOr(T* address, SimtArgument<T> value) {
  simt::NoteAccess(address, sizeof(T), simt::Access::kAtomic);
  const T old = *address;
  *address = old | value;
  return old;
}
template <typename T>
SIMT_ATOMIC T atomicAnd(T* address, SimtArgument<T> value) {
  simt::NoteAccess(address, sizeof(T), simt::Access::kAtomic);
  const T old = *address;
  *address = old & value;
  return old;
}
// As CUDA's: counts up, and from `limit` on back to 0.
SIMT_ATOMIC unsigned int atomicInc(unsigned int* address, unsigned int limit) {
  simt::NoteAccess(address, sizeof(*address), simt::Access::kAtomic);
  const unsigned int old = *address;
  *address = old >= limit ? 0 : old + 1;
  return old;
}
#undef SIMT_ATOMIC

template <typename T>
T __ldg(const T* address) {
  return *address;
}
template <typename T>
T __ldcs(const T* address) {
  return *address;
}
template <typename T>
T __ldcg(const T* address) {
  return *address;
}
template <typename T>
void __stcs(T* address, SimtArgument<T> value) {
  *address = value;
}
template <typename T>
void __stcg(T* address, SimtArgument<T> value) {
  *address = value;
}

inline int __dp4a(int a, int b, int c) {
  for (int i = 0; i < 4; ++i) {
    c +=
        static_cast<int8_t>(static_cast<uint32_t>(a) >> 8 * i) * static_cast<int8_t>(static_cast<uint32_t>(b) >> 8 * i);
  }
  return c;
}
inline int __popc(unsigned int x) { return __builtin_popcount(x); }
inline int __popcll(unsigned long long x) { return __builtin_popcountll(x); }
inline int __clz(int x) { return x == 0 ? 32 : __builtin_clz(static_cast<unsigned int>(x)); }
inline int __ffs(int x) { return __builtin_ffs(x); }
inline unsigned int __brev(unsigned int x) { return __builtin_bitreverse32(x); }
inline unsigned int __umulhi(unsigned int a, unsigned int b) {
  return static_cast<unsigned int>(uint64_t{a} * b >> 32);
}
inline unsigned long long __umul64hi(unsigned long long a, unsigned long long b) {
  return static_cast<unsigned long long>(static_cast<unsigned __int128>(a) * b >> 64);
}
inline unsigned int __funnelshift_l(unsigned int low, unsigned int high, unsigned int shift) {
  return static_cast<unsigned int>((uint64_t{high} << 32 | low) << (shift & 31) >> 32);
}
inline unsigned int __funnelshift_r(unsigned int low, unsigned int high, unsigned int shift) {
  return static_cast<unsigned int>((uint64_t{high} << 32 | low) >> (shift & 31));
}

inline int __float_as_int(float x) { return __builtin_bit_cast(int, x); }
inline unsigned int __float_as_uint(float x) { return __builtin_bit_cast(unsigned int, x); }
inline float __int_as_float(int x) { return __builtin_bit_cast(float, x); }
inline float __uint_as_float(unsigned int x) { return __builtin_bit_cast(float, x); }
inline int __float2int_rn(float x) { return static_cast<int>(std::nearbyint(x)); }
inline int __float2int_rd(float x) { return static_cast<int>(std::floor(x)); }
inline int __float2int_rz(float x) { return static_cast<int>(x); }
inline unsigned int __float2uint_rn(float x) { return static_cast<unsigned int>(std::nearbyint(x)); }
inline float __int2float_rn(int x) { return static_cast<float>(x); }
inline float __uint2float_rn(unsigned int x) { return static_cast<float>(x); }
inline float __fadd_rn(float a, float b) { return a + b; }
inline float __fsub_rn(float a, float b) { return a - b; }
inline float __fmul_rn(float a, float b) { return a * b; }
inline float __fmaf_rn(float a, float b, float c) { return __builtin_fmaf(a, b, c); }
inline float __fdiv_rn(float a, float b) { return a / b; }
inline float __frcp_rn(float a) { return 1.0f / a; }
inline float __fsqrt_rn(float a) { return __builtin_sqrtf(a); }
inline float __fdividef(float a, float b) { return a / b; }
inline float __expf(float x) { return __builtin_expf(x); }
inline float __exp10f(float x) { return __builtin_powf(10.0f, x); }
inline float __logf(float x) { return __builtin_logf(x); }
inline float __log2f(float x) { return __builtin_log2f(x); }
inline float __sinf(float x) { return __builtin_sinf(x); }
inline float __cosf(float x) { return __builtin_cosf(x); }
inline float __saturatef(float x) { return x > 0 ? (x < 1 ? x : 1.0f) : 0.0f; }
inline float rsqrtf(float x) { return 1.0f / __builtin_sqrtf(x); }

#define SIMT_MIN_MAX(T)                               \
  constexpr T min(T a, T b) { return b < a ? b : a; } \
  constexpr T max(T a, T b) { return a < b ? b : a; }
SIMT_MIN_MAX(int)
SIMT_MIN_MAX(unsigned int)
SIMT_MIN_MAX(long)
SIMT_MIN_MAX(unsigned long)
SIMT_MIN_MAX(long long)
SIMT_MIN_MAX(unsigned long long)
#undef SIMT_MIN_MAX
inline float min(float a, float b) { return __builtin_fminf(a, b); }
inline float max(float a, float b) { return __builtin_fmaxf(a, b); }
inline double min(double a, double b) { return __builtin_fmin(a, b); }
inline double max(double a, double b) { return __builtin_fmax(a, b); }
