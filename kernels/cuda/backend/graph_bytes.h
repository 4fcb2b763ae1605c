// SPDX-License-Identifier: Apache-2.0
#pragma once
// What the memory plan counts for a recorded step. Plain C++; tests/cuda/wrappers_launch_test.cu holds it against a
// device.
#include <cstddef>

namespace millrace::cuda {

// The driver says nothing of it: others have found about 10 KB for a kernel, and memory taken in pieces of 2 MiB.
inline constexpr size_t kGraphNodeBytes = size_t{16} << 10;
inline constexpr size_t kGraphPieceBytes = size_t{2} << 20;
// Ten kernels a layer and thirteen with experts; more where a large matrix is expanded in parts or ranks meet.
inline constexpr int kLayerNodes = 16;
inline constexpr int kOtherNodes = 16;

constexpr size_t GraphBytes(int num_layers) {
  const size_t num_bytes = static_cast<size_t>(kOtherNodes + kLayerNodes * num_layers) * kGraphNodeBytes;
  return (num_bytes + kGraphPieceBytes - 1) / kGraphPieceBytes * kGraphPieceBytes;
}

}  // namespace millrace::cuda
