// SPDX-License-Identifier: Apache-2.0
#include "engine/choose_device.h"

#include <algorithm>
#include <cctype>
#include <string_view>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"

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

}  // namespace

absl::StatusOr<std::unique_ptr<Device>> ChooseDevice(const std::string& name, int num_cpu_threads) {
  if (name == "auto") {
    if (auto device = MakeCudaDevice({}); device.ok()) return device;
  }
  if (name == "auto" || name == "cpu") return MakeCpuDevice({.num_threads = num_cpu_threads});
  const int ordinal = CudaOrdinal(name);
  if (ordinal < 0) {
    return absl::InvalidArgumentError(absl::StrCat("--device ", name, " is not one of auto, cpu, cuda, cuda:N"));
  }
  auto device = MakeCudaDevice({.ordinal = ordinal});
  if (device.ok()) return device;
  return absl::Status(device.status().code(), absl::StrCat("--device ", name, ": ", device.status().message()));
}

}  // namespace millrace
