// SPDX-License-Identifier: Apache-2.0
#pragma once
// NVIDIA's matrix library for what it does best: many rows times a dense 16-bit weight. Opened at run time where it is
// installed; an image may leave it out (it is larger than all the rest), and then our own kernels serve.
// Owned by CudaOps; engine thread.
#include <cuda_runtime_api.h>

#include <cstddef>
#include <memory>

#include "kernels/cuda/matmul.h"

namespace millrace::cuda {

class CublasLt {
 public:
  static constexpr size_t kWorkspaceBytes = size_t{32} << 20;

  // Null where there is no libcublasLt.so.13, or it does not start.
  static std::unique_ptr<CublasLt> Open();
  virtual ~CublasLt() = default;

  // False when it is not for this library, and nothing was launched. `workspace`: kWorkspaceBytes, 256-byte aligned.
  virtual bool Launch(const MatmulLaunch& launch, void* workspace, cudaStream_t stream) = 0;
};

}  // namespace millrace::cuda
