// SPDX-License-Identifier: Apache-2.0
#pragma once
// The host's memory and cores as a Device. Calls are synchronous, so Wait has nothing to wait for. Made through
// MakeCpuDevice (kernels/device.h); one per engine.
#include <memory>
#include <string>
#include <vector>

#include "kernels/cpu/cpu_ops.h"
#include "kernels/device.h"

namespace millrace::cpu {

class CpuDevice final : public Device {
 public:
  // REQUIRES: as CpuOps.
  CpuDevice(int num_threads, CpuPath path) : ops_(num_threads, path) {}

  std::string name() const override;
  absl::StatusOr<std::unique_ptr<Buffer>> Allocate(size_t num_bytes) override;
  size_t available_bytes() const override;
  bool shares_host_memory() const override { return true; }
  absl::Status CopyToDevice(void* device, const void* host, size_t num_bytes) override;
  absl::Status CopyToHost(void* host, const void* device, size_t num_bytes) override;
  Ops& ops() override { return ops_; }
  absl::Status Wait() override { return absl::OkStatus(); }
  absl::StatusOr<std::vector<std::unique_ptr<Communicator>>> Connect(absl::Span<Device* const> devices) override;

 private:
  CpuOps ops_;
};

}  // namespace millrace::cpu
