// SPDX-License-Identifier: Apache-2.0
#pragma once
// The CUDA backend as the tests of this folder open it. They are built twice: with the backend's own sources, compiled
// for the emulator of tests/simt, which runs anywhere; and as cuda_engine_gpu_tests, which opens libmillrace_cuda.so as
// the engine does and runs on a GPU. What only the emulator can tell is in the files emulated_*.
#include <catch2/catch.hpp>
#include <memory>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "kernels/device.h"
#include "kernels/ops.h"

namespace millrace::testing {

// Of a CPU the emulator makes small models, of a GPU those that fill its tiles.
extern const bool kIsEmulated;

absl::StatusOr<std::unique_ptr<Device>> OpenCuda(const CudaDeviceOptions& options);
// How many steps were replayed from a recording.
int NumReplays(Device& device);
// Why steps are not recorded; OK where they are.
absl::Status RecordingFault(Device& device);

inline std::unique_ptr<Device> Cuda(const CudaDeviceOptions& options = {}) {
  auto device = OpenCuda(options);
  REQUIRE(device.status().ToString() == "OK");
  return *std::move(device);
}

inline constexpr StepLimits kBackendLimits{.max_rows = 32,
                                           .max_logit_rows = 6,
                                           .max_sequences = 24,
                                           .max_sequence_pages = 1000,
                                           .max_inputs = 64,
                                           .max_outputs = 200,
                                           .vocab_tokens = 200,
                                           .num_heads = 2,
                                           .num_kv_heads = 1,
                                           .head_dim = 32,
                                           .page_tokens = 16};

}  // namespace millrace::testing
