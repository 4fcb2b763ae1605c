// SPDX-License-Identifier: Apache-2.0
#include "engine/choose_device.h"

#include <algorithm>
#include <cctype>
#include <memory>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "engine/load/model_part.h"
#include "kernels/device.h"
#include "kernels/status_macros.h"

namespace millrace {
namespace {

constexpr std::string_view kCuda = "cuda", kNumbered = "cuda:";

// -1: no such name.
int CudaOrdinal(const std::string& name) {
  if (name == kCuda) return 0;
  if (name.compare(0, kNumbered.size(), kNumbered) != 0) return -1;
  const std::string digits = name.substr(kNumbered.size());
  int ordinal = 0;
  const bool are_digits = std::all_of(digits.begin(), digits.end(), [](unsigned char c) { return std::isdigit(c); });
  return are_digits && absl::SimpleAtoi(digits, &ordinal) ? ordinal : -1;
}

absl::StatusOr<std::unique_ptr<Device>> OpenCuda(const std::string& name, const CudaDeviceOptions& cuda) {
  auto device = MakeCudaDevice(cuda);
  if (device.ok()) return device;
  return absl::Status(device.status().code(), absl::StrCat("--device ", name, ": ", device.status().message()));
}

absl::StatusOr<std::unique_ptr<Device>> FirstDevice(const std::string& name, const CpuDeviceOptions& cpu,
                                                    CudaDeviceOptions cuda) {
  if (name == "auto") {
    if (auto device = MakeCudaDevice(cuda); device.ok()) return device;
  }
  if (name == "auto" || name == "cpu") return MakeCpuDevice(cpu);
  cuda.ordinal = CudaOrdinal(name);
  if (cuda.ordinal < 0) {
    return absl::InvalidArgumentError(absl::StrCat("--device ", name, " is not one of auto, cpu, cuda, cuda:N"));
  }
  return OpenCuda(name, cuda);
}

}  // namespace

absl::StatusOr<RankDevices> ChooseDevices(const std::string& name, int num_cpu_threads, int num_ranks,
                                          DType activation_dtype) {
  if (num_ranks < 1 || num_ranks > kMaxRanks) {
    return absl::InvalidArgumentError(absl::StrCat("--tensor-parallel-size ", num_ranks, " is not in 1..", kMaxRanks));
  }
  const CpuDeviceOptions cpu{.num_threads = num_cpu_threads, .num_sharers = num_ranks};
  CudaDeviceOptions cuda{.activation_dtype = activation_dtype};
  std::vector<std::unique_ptr<Device>> devices;
  ASSIGN_OR_RETURN(std::unique_ptr<Device> first, FirstDevice(name, cpu, cuda));
  devices.push_back(std::move(first));
  while (static_cast<int>(devices.size()) < num_ranks) {
    cuda.ordinal = std::max(CudaOrdinal(name), 0) + static_cast<int>(devices.size());
    auto device = devices[0]->shares_host_memory() ? MakeCpuDevice(cpu) : OpenCuda(name, cuda);
    if (!device.ok()) {
      return absl::Status(device.status().code(),
                          absl::StrCat("--tensor-parallel-size ", num_ranks, ": ", device.status().message()));
    }
    devices.push_back(*std::move(device));
  }
  return ConnectRanks(std::move(devices));
}

size_t BytesForEach(const RankDevices& ranks) {
  const std::vector<std::unique_ptr<Device>>& devices = ranks.devices;
  size_t num_bytes = devices[0]->available_bytes();
  for (const auto& device : devices) num_bytes = std::min(num_bytes, device->available_bytes());
  return devices[0]->shares_host_memory() ? num_bytes / devices.size() : num_bytes;
}

}  // namespace millrace
