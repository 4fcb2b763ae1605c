// SPDX-License-Identifier: Apache-2.0
#include "kernels/cuda/backend/nccl.h"

#include <dlfcn.h>

#include <type_traits>

#include "absl/strings/str_cat.h"

namespace millrace::cuda {

#ifdef MILLRACE_SIMT

absl::StatusOr<Nccl> Nccl::Open() {
  return Nccl{.get_unique_id = &ncclGetUniqueId,
              .init_rank = &ncclCommInitRank,
              .abort = &ncclCommAbort,
              .get_async_error = &ncclCommGetAsyncError,
              .group_start = &ncclGroupStart,
              .group_end = &ncclGroupEnd,
              .all_reduce = &ncclAllReduce,
              .all_gather = &ncclAllGather,
              .error_string = &ncclGetErrorString};
}

#else

absl::StatusOr<Nccl> Nccl::Open() {
  // Never closed: its kernels stay loaded.
  void* library = dlopen("libnccl.so.2", RTLD_NOW | RTLD_LOCAL);
  if (library == nullptr) return absl::NotFoundError(absl::StrCat("several GPUs need NCCL: ", dlerror()));
  Nccl nccl;
  const auto load = [library](auto& function, const char* name) {
    function = reinterpret_cast<std::remove_reference_t<decltype(function)> >(dlsym(library, name));
    return function != nullptr;
  };
  if (load(nccl.get_unique_id, "ncclGetUniqueId") && load(nccl.init_rank, "ncclCommInitRank") &&
      load(nccl.abort, "ncclCommAbort") && load(nccl.get_async_error, "ncclCommGetAsyncError") &&
      load(nccl.group_start, "ncclGroupStart") && load(nccl.group_end, "ncclGroupEnd") &&
      load(nccl.all_reduce, "ncclAllReduce") && load(nccl.all_gather, "ncclAllGather") &&
      load(nccl.error_string, "ncclGetErrorString")) {
    return nccl;
  }
  return absl::NotFoundError("libnccl.so.2 lacks a function of NCCL 2.4");
}

#endif

}  // namespace millrace::cuda
