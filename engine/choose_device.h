// SPDX-License-Identifier: Apache-2.0
#pragma once
// From the words of --device to a device. Loading thread.
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "kernels/device.h"

namespace millrace {

// "cpu"; "cuda" (the first) or "cuda:N"; "auto": CUDA's first device where it can be opened, else the CPU.
// InvalidArgument: none of these. NotFound: CUDA is asked for and something is missing, which the message names.
absl::StatusOr<std::unique_ptr<Device>> ChooseDevice(const std::string& name, int num_cpu_threads);

}  // namespace millrace
