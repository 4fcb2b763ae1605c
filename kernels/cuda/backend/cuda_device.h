// SPDX-License-Identifier: Apache-2.0
#pragma once
// One NVIDIA GPU as a Device: one stream, on which everything happens in order. Made through MakeCudaDevice
// (kernels/device.h); one for each rank of an engine.
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "kernels/cuda/backend/cuda_ops.h"
#include "kernels/cuda/backend/cuda_stream.h"
#include "kernels/device.h"

namespace millrace::cuda {

class CudaDevice final : public Device {
 public:
  // NotFound: no driver, no device or not that many. FailedPrecondition: a device older than sm_80.
  static absl::StatusOr<std::unique_ptr<Device>> Open(const CudaDeviceOptions& options);

  std::string name() const override { return name_; }
  absl::StatusOr<std::unique_ptr<Buffer>> Allocate(size_t num_bytes) override;
  size_t available_bytes() const override;
  bool shares_host_memory() const override { return false; }
  absl::Status CopyToDevice(void* device, const void* host, size_t num_bytes) override;
  absl::Status CopyToHost(void* host, const void* device, size_t num_bytes) override;
  CudaOps& ops() override { return ops_; }
  absl::Status Wait() override;
  absl::StatusOr<std::vector<std::unique_ptr<Communicator>>> Connect(absl::Span<Device* const> devices) override;

 private:
  CudaDevice(std::string name, std::unique_ptr<CudaStream> stream, const CudaOpsConfig& config)
      : name_(std::move(name)), ordinal_(config.ordinal), stream_(std::move(stream)), ops_(*stream_, config) {}

  const std::string name_;
  const int ordinal_;
  const std::unique_ptr<CudaStream> stream_;
  CudaOps ops_;
};

}  // namespace millrace::cuda
