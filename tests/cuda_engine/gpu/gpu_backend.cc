// SPDX-License-Identifier: Apache-2.0
// The backend of cuda_engine_gpu_tests, by its loader. Without a GPU the program says so in one line and exits with 77.
#define CATCH_CONFIG_EXTERNAL_INTERFACES
#include <cuda_runtime_api.h>

#include <catch2/catch.hpp>
#include <cstdio>
#include <cstdlib>
#include <string>

#include "kernels/cuda/backend/cuda_device.h"
#include "tests/cuda_engine/cuda_backend.h"

namespace millrace::testing {

const bool kIsEmulated = false;

absl::StatusOr<std::unique_ptr<Device>> OpenCuda(const CudaDeviceOptions& options) { return MakeCudaDevice(options); }
// Both sides of the library's door are built together; of the library only virtual functions are called.
int NumReplays(Device& device) { return static_cast<cuda::CudaDevice&>(device).ops().num_replays(); }
absl::Status RecordingFault(Device& device) { return static_cast<cuda::CudaDevice&>(device).ops().recording_fault(); }

namespace {

class NeedsGpu final : public Catch::TestEventListenerBase {
 public:
  using TestEventListenerBase::TestEventListenerBase;

  void testRunStarting(const Catch::TestRunInfo& /*info*/) override {
    constexpr int kSkipped = 77;
    const auto device = OpenCuda({});
    if (device.ok()) {
      std::printf("on %s\n", (*device)->name().c_str());
      return;
    }
    std::printf("skipped: whole models on a GPU: %s\n", std::string(device.status().message()).c_str());
    std::exit(kSkipped);
  }
};

CATCH_REGISTER_LISTENER(NeedsGpu)

}  // namespace
}  // namespace millrace::testing
