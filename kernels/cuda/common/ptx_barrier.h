// SPDX-License-Identifier: Apache-2.0
#pragma once
// What kernels of specialised warps need (sm_90a): barriers in shared memory that count arrivals and bytes, bulk and
// tensor copies that report to them, barriers of some warps, the fences between, and the same among the blocks of a
// cluster (launch.h; of one block where none was asked for). Device code only; elsewhere than
// on sm_90a the bodies trap. Under MILLRACE_SIMT the same names come from the emulator's header.
#include "kernels/cuda/common/ptx.h"
#ifdef MILLRACE_SIMT
#include <simt_ptx_barrier.h>
#else
#include <cuda.h>

#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
#define MILLRACE_SM90_ASM(...) asm volatile(__VA_ARGS__)
#define MILLRACE_IS_SM90A true
#else
#define MILLRACE_SM90_ASM(...) __trap()
#define MILLRACE_IS_SM90A false
#endif

namespace millrace::cuda::ptx {

inline constexpr bool kIsSm90a = MILLRACE_IS_SM90A;  // what is compiled for

// A phase of a barrier ends when `num_arrivals` have arrived and all bytes announced have come; then the next begins.
using Mbarrier = uint64_t;
__device__ __forceinline__ void MbarrierInit(Mbarrier* barrier, int num_arrivals) {
  MILLRACE_SM90_ASM("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(SharedAddress(barrier)),
                    "r"(num_arrivals) : "memory");
}
// After this thread's inits and before the barrier that shows them to others: copies may report to them.
__device__ __forceinline__ void MbarrierInitFence() {
  MILLRACE_SM90_ASM("fence.mbarrier_init.release.cluster;\n\tfence.proxy.async.shared::cta;" :: : "memory");
}
__device__ __forceinline__ void MbarrierArrive(Mbarrier* barrier) {
  MILLRACE_SM90_ASM("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(SharedAddress(barrier)) : "memory");
}
// As MbarrierArrive, at the barrier in the same place of the cluster's block of this rank. It tells that this thread
// has read what the other may have overwritten by copies; of writes for the other to read it tells nothing: that would
// take .release.cluster, which ptxas makes a fence of the whole device.
__device__ __forceinline__ void MbarrierArriveOf(int rank, Mbarrier* barrier) {
  MILLRACE_SM90_ASM(
      "{\n\t.reg .b32 theirs;\n\t"
      "mapa.shared::cluster.u32 theirs, %0, %1;\n\t"
      "mbarrier.arrive.shared::cluster.b64 _, [theirs];\n\t}" ::"r"(SharedAddress(barrier)),
      "r"(rank) : "memory");
}
// Arrives, and announces bytes that copies will bring in this phase.
__device__ __forceinline__ void MbarrierArriveExpect(Mbarrier* barrier, uint32_t num_bytes) {
  MILLRACE_SM90_ASM("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(SharedAddress(barrier)),
                    "r"(num_bytes) : "memory");
}
// Until the phase of this parity is over; the phase before the first counts as one of parity 1.
__device__ __forceinline__ void MbarrierWait(Mbarrier* barrier, uint32_t parity) {
  MILLRACE_SM90_ASM(
      "{\n\t.reg .pred is_over;\n\t"
      "again:\n\t"
      "mbarrier.try_wait.parity.shared::cta.b64 is_over, [%0], %1;\n\t"
      "@!is_over bra again;\n\t}" ::"r"(SharedAddress(barrier)),
      "r"(parity) : "memory");
}

// 16-byte aligned memory, a multiple of 16 bytes, by one thread; the bytes count for the barrier.
__device__ __forceinline__ void BulkCopy(void* shared, const void* global, uint32_t num_bytes, Mbarrier* barrier) {
  MILLRACE_SM90_ASM("cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];" ::"r"(
                        SharedAddress(shared)),
                    "l"(global), "r"(num_bytes), "r"(SharedAddress(barrier)) : "memory");
}
// The map's box at column x and row y; what lies outside the matrix becomes zeros and counts as well. The map is a
// __grid_constant__ parameter of the kernel.
__device__ __forceinline__ void TensorCopy(void* shared, const CUtensorMap* map, int x, int y, Mbarrier* barrier) {
  MILLRACE_SM90_ASM(
      "cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1, {%2, %3}], [%4];" ::"r"(
          SharedAddress(shared)),
      "l"(reinterpret_cast<uint64_t>(map)), "r"(x), "r"(y), "r"(SharedAddress(barrier)) : "memory");
}
// The same to the same place in every block of the cluster whose bit is set in `ranks`, each told at its own barrier in
// the place of this one.
__device__ __forceinline__ void TensorCopyTo(uint32_t ranks, void* shared, const CUtensorMap* map, int x, int y,
                                             Mbarrier* barrier) {
  MILLRACE_SM90_ASM(
      "cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes.multicast::cluster "
      "[%0], [%1, {%2, %3}], [%4], %5;" ::"r"(SharedAddress(shared)),
      "l"(reinterpret_cast<uint64_t>(map)), "r"(x), "r"(y), "r"(SharedAddress(barrier)),
      "h"(static_cast<uint16_t>(ranks)) : "memory");
}
__device__ __forceinline__ void PrefetchTensorMap(const CUtensorMap* map) {
  MILLRACE_SM90_ASM("prefetch.tensormap [%0];" ::"l"(reinterpret_cast<uint64_t>(map)) : "memory");
}

// This thread's writes of shared memory (asynchronous copies it has waited for too) before what wgmma and bulk copies
// do once they are told: between the write and the arrival that tells.
__device__ __forceinline__ void FenceAsyncProxy() { MILLRACE_SM90_ASM("fence.proxy.async.shared::cta;" :: : "memory"); }

// Barriers 1 to 15 of whole warps: `num_threads` of those that wait and those that only arrive.
__device__ __forceinline__ void NamedBarrierWait(int id, int num_threads) {
  asm volatile("bar.sync %0, %1;" ::"r"(id), "r"(num_threads) : "memory");
}
__device__ __forceinline__ void NamedBarrierArrive(int id, int num_threads) {
  asm volatile("bar.arrive %0, %1;" ::"r"(id), "r"(num_threads) : "memory");
}

// All threads of all the cluster's blocks meet; what they did before is there for what they do after.
__device__ __forceinline__ void ClusterSync() {
  MILLRACE_SM90_ASM("barrier.cluster.arrive.release;\n\tbarrier.cluster.wait.acquire;" :: : "memory");
}

// Registers of each thread of a warpgroup, all of which call it.
template <int kRegisters>
__device__ __forceinline__ void RaiseRegisters() {
  static_assert(kRegisters % 8 == 0 && kRegisters >= 24 && kRegisters <= 256);
  MILLRACE_SM90_ASM("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(kRegisters));
}
template <int kRegisters>
__device__ __forceinline__ void LowerRegisters() {
  static_assert(kRegisters % 8 == 0 && kRegisters >= 24 && kRegisters <= 256);
  MILLRACE_SM90_ASM("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(kRegisters));
}

}  // namespace millrace::cuda::ptx
#endif

namespace millrace::cuda::ptx {

// The first byte from `shared` on that is a multiple of `kBytes` in the address space that swizzles go by.
template <int kBytes>
__device__ __forceinline__ unsigned char* AlignShared(void* shared) {
  static_assert((kBytes & (kBytes - 1)) == 0);
  return static_cast<unsigned char*>(shared) + (0u - SharedAddress(shared)) % kBytes;
}

}  // namespace millrace::cuda::ptx
