// SPDX-License-Identifier: Apache-2.0
#pragma once
// How every launcher launches: Launch(Kernel<...>, {grid, block, shared_bytes, stream, is_dependent}, arguments...).
#include <cuda_runtime.h>

#include <cstddef>
#include <type_traits>

namespace millrace::cuda {

struct LaunchShape {
  dim3 grid;
  dim3 block;
  size_t shared_bytes = 0;  // dynamic shared memory of a block
  cudaStream_t stream = nullptr;
  // May start before the stream's previous kernel is through: only for kernels that call ptx::GridDependencyWait()
  // before they touch what a predecessor reads or writes.
  bool is_dependent = false;
  // Blocks beside each other along x that run at once and reach each other's shared memory (sm_90 and later); the grid
  // is a multiple.
  unsigned cluster_blocks = 1;
};

// A shape as the runtime takes it.
class LaunchConfig {
 public:
  explicit LaunchConfig(const LaunchShape& shape) {
    if (shape.is_dependent) {
      cudaLaunchAttribute& dependent = attributes_[config_.numAttrs++];
      dependent.id = cudaLaunchAttributeProgrammaticStreamSerialization;
      dependent.val.programmaticStreamSerializationAllowed = 1;
    }
    if (shape.cluster_blocks > 1) {
      cudaLaunchAttribute& cluster = attributes_[config_.numAttrs++];
      cluster.id = cudaLaunchAttributeClusterDimension;
      cluster.val.clusterDim.x = shape.cluster_blocks;
      cluster.val.clusterDim.y = cluster.val.clusterDim.z = 1;
    }
    config_.gridDim = shape.grid;
    config_.blockDim = shape.block;
    config_.dynamicSmemBytes = shape.shared_bytes;
    config_.stream = shape.stream;
    config_.attrs = attributes_;
  }
  LaunchConfig(const LaunchConfig&) = delete;
  LaunchConfig& operator=(const LaunchConfig&) = delete;
  const cudaLaunchConfig_t* get() const { return &config_; }

 private:
  cudaLaunchAttribute attributes_[2] = {};
  cudaLaunchConfig_t config_ = {};
};

// Beyond 48 KB it must be asked for, and the kernel's static arrays, whose size is not known here, count too.
template <typename... Parameters>
cudaError_t AskForShared(void (*kernel)(Parameters...), size_t num_bytes) {
  if (num_bytes == 0) return cudaSuccess;
  return cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(num_bytes));
}

template <typename... Parameters, typename... Arguments>
cudaError_t Launch(void (*kernel)(Parameters...), const LaunchShape& shape, Arguments&&... arguments) {
  const cudaError_t error = AskForShared(kernel, shape.shared_bytes);
  if (error != cudaSuccess) return error;
  const LaunchConfig config(shape);
  return cudaLaunchKernelEx(config.get(), kernel, static_cast<std::type_identity_t<Parameters>>(arguments)...);
}

// How many of the launch's clusters the current device runs at once.
template <typename... Parameters>
cudaError_t CountActiveClusters(void (*kernel)(Parameters...), const LaunchShape& shape, int& count) {
  const cudaError_t error = AskForShared(kernel, shape.shared_bytes);
  if (error != cudaSuccess) return error;
  const LaunchConfig config(shape);
  return cudaOccupancyMaxActiveClusters(&count, kernel, config.get());
}

}  // namespace millrace::cuda
