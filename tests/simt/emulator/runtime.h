// SPDX-License-Identifier: Apache-2.0
#pragma once
// What the parts of the emulated runtime share: errors that last, and streams that record.
#include <cstdint>
#include <functional>
#include <vector>

#include "cuda_runtime_api.h"

namespace simt {

// Keeps an error for cudaGetLastError, and returns it.
cudaError_t Note(cudaError_t error);
// After a kernel failed the device is lost, as it would be: everything returns the error until the last one is taken.
cudaError_t DeviceState();
void LoseDevice();

// Runs the work, or keeps it when the stream captures or defers.
cudaError_t RunOrRecord(cudaStream_t stream, std::function<cudaError_t()> work);
bool IsDeferring(cudaStream_t stream);
// Whether this thread captures, which calls that wait or allocate do not allow: what it captures is lost then.
bool BreaksCapture();
// Memory of the device that its runtime takes, or gives back, for itself.
void TakeBytes(int64_t num_bytes);
// What every stream has deferred. The host waits.
void FinishStreams();

}  // namespace simt
