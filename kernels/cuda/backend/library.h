// SPDX-License-Identifier: Apache-2.0
#pragma once
// The one door of libmillrace_cuda.so, known to both sides of it (kernels/cuda_loader.cc opens it at run time, so that
// the program starts where there is no driver). C++ objects pass: both sides are built together, which the version
// checks.
#include <memory>

#include "absl/status/statusor.h"
#include "kernels/device.h"

namespace millrace::cuda {

// Grows with every change of kernels/device.h, kernels/ops.h, kernels/expert_ops.h, kernels/step.h or kernels/tensor.h.
inline constexpr int kLibraryVersion = 5;
inline constexpr char kOpenSymbol[] = "millrace_cuda_open";

// Fills `device` and returns kLibraryVersion; a caller of another version gets it back with `device` untouched.
using OpenFunction = int(int caller_version, const CudaDeviceOptions* options,
                         absl::StatusOr<std::unique_ptr<Device>>* device);

}  // namespace millrace::cuda
