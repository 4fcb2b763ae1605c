// SPDX-License-Identifier: Apache-2.0
#pragma once
// The wrappers of kernels/cuda/common/ptx.h for the emulator; the arithmetic is tests/simt/reference_ptx.h's.
#include <cuda_runtime.h>

#include <cmath>
#include <cstdint>

#include "tests/simt/reference_ptx.h"

namespace simt {

struct MatrixArgument {
  uint32_t* registers;
  const void* row_address;
};
template <int kNumMatrices, bool kIsTransposed>
void LoadMatrices(const Lanes& lanes);

struct MmaArgument {
  void* d;
  const uint32_t* a;
  const uint32_t* b;
};
void MultiplyBf16(const Lanes& lanes);
void MultiplyF16(const Lanes& lanes);
void MultiplyS8(const Lanes& lanes);

template <int kNumMatrices, bool kIsTransposed>
void LoadMatrix(const char* name, uint32_t* registers, const void* row_address, Where where) {
  MatrixArgument argument = {registers, row_address};
  MeetWarp(name, kAllLanes, &argument, LoadMatrices<kNumMatrices, kIsTransposed>, where);
}
inline void Multiply(const char* name, MmaArgument argument, void (*execute)(const Lanes&), Where where) {
  MeetWarp(name, kAllLanes, &argument, execute, where);
}
// The read of a vector, which must be aligned.
template <typename T>
T LoadAligned(const void* address) {
  if (reinterpret_cast<uintptr_t>(address) % sizeof(T) != 0) Fail("a vector load from an address it is not aligned to");
  return *static_cast<const T*>(address);
}

}  // namespace simt

namespace millrace::cuda::ptx {

template <typename T>
T* SharedMemory() {
  return static_cast<T*>(simt::SharedBytes());
}
inline uint32_t SharedAddress(const void* shared) { return simt::AddressOf(shared); }

inline void CpAsync16(void* shared, const void* global, bool is_valid) {
  simt::CopyAsync(shared, global, 16, is_valid);
}
inline void CpAsync8(void* shared, const void* global, bool is_valid) { simt::CopyAsync(shared, global, 8, is_valid); }
inline void CpAsync4(void* shared, const void* global, bool is_valid) { simt::CopyAsync(shared, global, 4, is_valid); }
inline void CpAsyncCommit() { simt::CommitCopies(); }
template <int kPending>
void CpAsyncWait() {
  simt::WaitCopies(kPending);
}

inline void LdMatrixX1(uint32_t (&r)[1], const void* row_address, simt::Where where = SIMT_HERE) {
  simt::LoadMatrix<1, false>("LdMatrixX1", r, row_address, where);
}
inline void LdMatrixX2(uint32_t (&r)[2], const void* row_address, simt::Where where = SIMT_HERE) {
  simt::LoadMatrix<2, false>("LdMatrixX2", r, row_address, where);
}
inline void LdMatrixX4(uint32_t (&r)[4], const void* row_address, simt::Where where = SIMT_HERE) {
  simt::LoadMatrix<4, false>("LdMatrixX4", r, row_address, where);
}
inline void LdMatrixX2Trans(uint32_t (&r)[2], const void* row_address, simt::Where where = SIMT_HERE) {
  simt::LoadMatrix<2, true>("LdMatrixX2Trans", r, row_address, where);
}
inline void LdMatrixX4Trans(uint32_t (&r)[4], const void* row_address, simt::Where where = SIMT_HERE) {
  simt::LoadMatrix<4, true>("LdMatrixX4Trans", r, row_address, where);
}

// Element (row, column) lies in lane 4 * row + column / 2; a lane wants two of one column.
inline uint32_t MovMatrixTrans(uint32_t a, simt::Where where = SIMT_HERE) {
  const int lane = static_cast<int>(threadIdx.x % 32), from = 8 * (lane % 4) + lane / 8, shift = lane / 4 % 2 * 16;
  const uint32_t low = __shfl_sync(0xffffffffu, a, from, 32, where) >> shift & 0xffffu;
  const uint32_t high = __shfl_sync(0xffffffffu, a, from + 4, 32, where) >> shift & 0xffffu;
  return low | high << 16;
}

inline void MmaBf16(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2], simt::Where where = SIMT_HERE) {
  simt::Multiply("MmaBf16", {d, a, b}, simt::MultiplyBf16, where);
}
inline void MmaF16(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2], simt::Where where = SIMT_HERE) {
  simt::Multiply("MmaF16", {d, a, b}, simt::MultiplyF16, where);
}
inline void MmaS8(int32_t (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2], simt::Where where = SIMT_HERE) {
  simt::Multiply("MmaS8", {d, a, b}, simt::MultiplyS8, where);
}

template <int kTable>
uint32_t Lop3(uint32_t a, uint32_t b, uint32_t c) {
  return simt::reference::Lop3(kTable, a, b, c);
}
inline uint32_t Prmt(uint32_t a, uint32_t b, uint32_t selector) { return simt::reference::Prmt(a, b, selector); }

inline uint64_t StreamPolicy() { return 0; }
inline uint4 LoadStream16(const void* global, uint64_t /*policy*/ = 0) { return simt::LoadAligned<uint4>(global); }
inline uint4 LoadGlobal16(const void* global) { return simt::LoadAligned<uint4>(global); }
inline void PrefetchL2(const void*) {}
template <typename T>
T Pin(T value) {
  return value;
}
inline void GridDependencyWait() { simt::NoteGridDependencyWait(); }
inline void GridDependencyLaunch() { simt::NoteGridDependencyLaunch(); }

inline uint32_t E4m3x2ToHalf2(uint16_t x) { return simt::reference::E4m3x2ToHalf2(x); }
inline uint16_t FloatsToE4m3x2(float lo, float hi) { return simt::reference::FloatsToE4m3x2(lo, hi); }
inline float Exp2(float x) { return std::exp2(x); }
inline float Reciprocal(float x) { return 1.0f / x; }

}  // namespace millrace::cuda::ptx
