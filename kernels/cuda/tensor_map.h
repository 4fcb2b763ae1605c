// SPDX-License-Identifier: Apache-2.0
#pragma once
// Descriptions of matrices for tensor copies (sm_90 and later), made on the host for each launch. Plain C++; the
// driver's encoder is found through the runtime, nothing is linked.
#include <cuda.h>
#include <cuda_runtime_api.h>

#include <cstdint>

namespace millrace::cuda {

// Rows of bytes. A box of kTensorBoxBytes is swizzled in shared memory as ptx::Swizzle::k128 has it, of one of another
// width the rows lie one after another; what lies outside the matrix is zeros there.
inline constexpr uint32_t kTensorBoxBytes = 128;
struct TensorMapSource {
  const void* data = nullptr;  // 16-byte aligned
  int64_t row_bytes = 0;
  int64_t num_rows = 0;
  int64_t stride_bytes = 0;              // a multiple of 16, at least row_bytes
  uint32_t box_rows = 0;                 // at most 256
  uint32_t box_bytes = kTensorBoxBytes;  // a multiple of 16, at most 256
};
// cudaErrorNotSupported: the driver has no tensor maps. cudaErrorInvalidValue: the source is not as above.
cudaError_t MakeTensorMap(const TensorMapSource& source, CUtensorMap& map);

}  // namespace millrace::cuda
