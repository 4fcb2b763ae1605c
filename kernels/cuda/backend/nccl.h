// SPDX-License-Identifier: Apache-2.0
#pragma once
// NVIDIA's library for exchanges among GPUs, opened at run time where several of them compute one model. Toolkits come
// without its header, so what is used of its interface is declared here: NCCL 2 keeps it from release to release.
#include <cuda_runtime_api.h>

#include <cstddef>

#include "absl/status/statusor.h"

extern "C" {
struct ncclComm;
struct ncclUniqueId {
  char internal[128];
};
int ncclGetUniqueId(ncclUniqueId* id);
int ncclCommInitRank(ncclComm** comm, int num_ranks, ncclUniqueId id, int rank);
int ncclCommAbort(ncclComm* comm);
int ncclCommGetAsyncError(ncclComm* comm, int* error);
int ncclGroupStart();
int ncclGroupEnd();
int ncclAllReduce(const void* send, void* receive, size_t count, int dtype, int op, ncclComm* comm,
                  cudaStream_t stream);
int ncclAllGather(const void* send, void* receive, size_t send_count, int dtype, ncclComm* comm, cudaStream_t stream);
const char* ncclGetErrorString(int result);
}

namespace millrace::cuda {

inline constexpr int kNcclSuccess = 0;
inline constexpr int kNcclInProgress = 7;
inline constexpr int kNcclFloat16 = 6;
inline constexpr int kNcclFloat32 = 7;
inline constexpr int kNcclBFloat16 = 9;
inline constexpr int kNcclSum = 0;

struct Nccl {
  // NotFound where there is no libnccl.so.2, or it lacks a function.
  static absl::StatusOr<Nccl> Open();

  decltype(&ncclGetUniqueId) get_unique_id = nullptr;
  decltype(&ncclCommInitRank) init_rank = nullptr;
  decltype(&ncclCommAbort) abort = nullptr;
  decltype(&ncclCommGetAsyncError) get_async_error = nullptr;
  decltype(&ncclGroupStart) group_start = nullptr;
  decltype(&ncclGroupEnd) group_end = nullptr;
  decltype(&ncclAllReduce) all_reduce = nullptr;
  decltype(&ncclAllGather) all_gather = nullptr;
  decltype(&ncclGetErrorString) error_string = nullptr;
};

}  // namespace millrace::cuda
