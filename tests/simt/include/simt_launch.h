// SPDX-License-Identifier: Apache-2.0
#pragma once
// The launch of a kernel with its arguments, kept by value so that a captured launch can be replayed.
#include <memory>
#include <tuple>
#include <type_traits>

#include "cuda_runtime_api.h"

namespace simt {
// Runs, or records while the stream captures. `arguments` is kept as long as the launch may run.
cudaError_t LaunchOrRecord(const cudaLaunchConfig_t& config, const void* kernel, void (*run)(const void* arguments),
                           std::shared_ptr<const void> arguments);

template <typename... Parameters>
struct KernelCall {
  void (*kernel)(Parameters...);
  std::tuple<std::remove_cv_t<std::remove_reference_t<Parameters>>...> values;
};
}  // namespace simt

template <typename... Parameters, typename... Arguments>
cudaError_t cudaLaunchKernelEx(const cudaLaunchConfig_t* config, void (*kernel)(Parameters...),
                               Arguments&&... arguments) {
  using Call = simt::KernelCall<Parameters...>;
  auto call = std::make_shared<const Call>(Call{kernel, {static_cast<Parameters>(arguments)...}});
  return simt::LaunchOrRecord(
      *config, reinterpret_cast<const void*>(kernel),
      [](const void* kept) {
        const Call& call = *static_cast<const Call*>(kept);
        std::apply(call.kernel, call.values);
      },
      std::move(call));
}
template <typename T>
cudaError_t cudaFuncSetAttribute(T* kernel, cudaFuncAttribute attribute, int value) {
  return cudaFuncSetAttribute(reinterpret_cast<const void*>(kernel), attribute, value);
}
template <typename T>
cudaError_t cudaOccupancyMaxActiveClusters(int* num_clusters, T* kernel, const cudaLaunchConfig_t* config) {
  return cudaOccupancyMaxActiveClusters(num_clusters, reinterpret_cast<const void*>(kernel), config);
}
template <typename T>
cudaError_t cudaOccupancyMaxActiveBlocksPerMultiprocessor(int* num_blocks, T* kernel, int block_threads,
                                                          size_t shared_bytes) {
  const size_t by_memory = 232448 / (shared_bytes + 1024);
  const size_t by_threads = 2048 / block_threads;
  *num_blocks = static_cast<int>(by_memory < by_threads ? by_memory : by_threads);
  return cudaSuccess;
}
