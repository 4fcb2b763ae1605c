// SPDX-License-Identifier: Apache-2.0
#include "kernels/cpu/cpu_device.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "kernels/cpu/cpu_features.h"
#include "kernels/cpu/host_communicator.h"
#include "kernels/cpu/page_buffer.h"
#include "kernels/status_macros.h"

namespace millrace {
namespace cpu {
namespace {

constexpr int kMaxThreads = 1024;

class CpuBuffer final : public Buffer {
 public:
  explicit CpuBuffer(PageBuffer pages) : pages_(std::move(pages)) {}
  void* data() override { return pages_.data(); }
  size_t num_bytes() const override { return pages_.num_bytes(); }

 private:
  PageBuffer pages_;
};

}  // namespace

std::string CpuDevice::name() const {
  const OpContext& context = ops_.context();
  const std::string_view path = CpuPathName(context.path);
  const int threads = context.pool.num_threads();
  return absl::StrCat("cpu (", absl::string_view(path.data(), path.size()), ", ", threads,
                      threads == 1 ? " thread)" : " threads)");
}

absl::StatusOr<std::unique_ptr<Buffer>> CpuDevice::Allocate(size_t num_bytes) {
  ASSIGN_OR_RETURN(PageBuffer pages, PageBuffer::Allocate(num_bytes));
  return std::make_unique<CpuBuffer>(std::move(pages));
}

size_t CpuDevice::available_bytes() const { return AvailableMemoryBytes(); }

absl::Status CpuDevice::CopyToDevice(void* device, const void* host, size_t num_bytes) {
  if (num_bytes > 0) std::memcpy(device, host, num_bytes);
  return absl::OkStatus();
}

absl::Status CpuDevice::CopyToHost(void* host, const void* device, size_t num_bytes) {
  return CopyToDevice(host, device, num_bytes);
}

absl::StatusOr<std::vector<std::unique_ptr<Communicator>>> CpuDevice::Connect(absl::Span<Device* const> devices) {
  return ConnectHostRanks(static_cast<int>(devices.size()));
}

}  // namespace cpu

absl::StatusOr<std::unique_ptr<Device>> MakeCpuDevice(const CpuDeviceOptions& options) {
  if (options.num_threads < 0 || options.num_threads > cpu::kMaxThreads) {
    return absl::InvalidArgumentError(
        absl::StrCat("num_threads is ", options.num_threads, ", not in 0..", cpu::kMaxThreads));
  }
  const CpuPath path = options.path == CpuPath::kAuto ? cpu::WidestCpuPath() : options.path;
  if (!cpu::HasCpuPath(path)) {
    const std::string_view name = cpu::CpuPathName(path);
    return absl::InvalidArgumentError(
        absl::StrCat("this processor lacks the instructions of ", absl::string_view(name.data(), name.size())));
  }
  const int num_threads = options.num_threads == 0 ? cpu::AvailableCores() : options.num_threads;
  return std::make_unique<cpu::CpuDevice>(std::max(num_threads / options.num_sharers, 1), path);
}

}  // namespace millrace
