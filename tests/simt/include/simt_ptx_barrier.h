// SPDX-License-Identifier: Apache-2.0
#pragma once
// The wrappers of kernels/cuda/common/ptx_barrier.h for the emulator.
#include <cuda.h>
#include <cuda_runtime.h>

#include <cstdint>

namespace simt {

void InitBarrier(uint64_t* barrier, int num_arrivals);
void FenceBarrierInits();
// Arrives, and announces bytes of copies.
void ArriveBarrier(uint64_t* barrier, uint32_t num_bytes);
// Arrives at the barrier in the same place of another block of the cluster.
void ArriveBarrierOf(int rank, uint64_t* barrier, Where where);
void WaitBarrier(uint64_t* barrier, uint32_t parity, Where where);
// Copies that land when nobody else can go on, or, by the seed, earlier.
void CopyBulk(void* shared, const void* global, uint32_t num_bytes, uint64_t* barrier);
void CopyTensor(void* shared, const CUtensorMap& map, int x, int y, uint64_t* barrier);
// To the same place in each block of the cluster that has its bit set; reports to its barrier there.
void CopyTensorTo(uint32_t ranks, void* shared, const CUtensorMap& map, int x, int y, uint64_t* barrier);
void FenceAsyncProxy(Where where);
void MeetNamedBarrier(int id, int num_threads, bool waits, Where where);

}  // namespace simt

namespace millrace::cuda::ptx {

inline constexpr bool kIsSm90a = true;
using Mbarrier = uint64_t;
inline void MbarrierInit(Mbarrier* barrier, int num_arrivals) { simt::InitBarrier(barrier, num_arrivals); }
inline void MbarrierInitFence() { simt::FenceBarrierInits(); }
inline void MbarrierArrive(Mbarrier* barrier) { simt::ArriveBarrier(barrier, 0); }
inline void MbarrierArriveOf(int rank, Mbarrier* barrier, simt::Where where = SIMT_HERE) {
  simt::ArriveBarrierOf(rank, barrier, where);
}
inline void ClusterSync(simt::Where where = SIMT_HERE) { simt::MeetCluster(where); }
inline void MbarrierArriveExpect(Mbarrier* barrier, uint32_t num_bytes) { simt::ArriveBarrier(barrier, num_bytes); }
inline void MbarrierWait(Mbarrier* barrier, uint32_t parity, simt::Where where = SIMT_HERE) {
  simt::WaitBarrier(barrier, parity, where);
}
inline void BulkCopy(void* shared, const void* global, uint32_t num_bytes, Mbarrier* barrier) {
  simt::CopyBulk(shared, global, num_bytes, barrier);
}
inline void TensorCopy(void* shared, const CUtensorMap* map, int x, int y, Mbarrier* barrier) {
  simt::CopyTensor(shared, *map, x, y, barrier);
}
inline void TensorCopyTo(uint32_t ranks, void* shared, const CUtensorMap* map, int x, int y, Mbarrier* barrier) {
  simt::CopyTensorTo(ranks, shared, *map, x, y, barrier);
}
inline void PrefetchTensorMap(const CUtensorMap*) {}
inline void FenceAsyncProxy(simt::Where where = SIMT_HERE) { simt::FenceAsyncProxy(where); }
inline void NamedBarrierWait(int id, int num_threads, simt::Where where = SIMT_HERE) {
  simt::MeetNamedBarrier(id, num_threads, true, where);
}
inline void NamedBarrierArrive(int id, int num_threads, simt::Where where = SIMT_HERE) {
  simt::MeetNamedBarrier(id, num_threads, false, where);
}
template <int kRegisters>
void RaiseRegisters() {}
template <int kRegisters>
void LowerRegisters() {}

}  // namespace millrace::cuda::ptx
