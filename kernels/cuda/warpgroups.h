// SPDX-License-Identifier: Apache-2.0
#pragma once
// Whether kernels that multiply by warpgroups can run: asked once, when a device is opened.
#include <cuda_runtime_api.h>

namespace millrace::cuda {

// True where the current device is sm_90 and what was built for it is sm_90a: code for plain sm_90, which such a device
// takes as well, has those kernels as traps.
cudaError_t FindWarpgroups(bool& has_warpgroups);

}  // namespace millrace::cuda
