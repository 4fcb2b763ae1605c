// SPDX-License-Identifier: Apache-2.0
#pragma once
// Exchanges among GPUs of one process by NCCL, each on the stream of its device, where a recorded step takes them
// along.
#include <memory>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "kernels/communicator.h"
#include "kernels/cuda/backend/cuda_ops.h"
#include "kernels/cuda/backend/cuda_stream.h"

namespace millrace::cuda {

// A device; its stream and ops outlive the communicator, which takes the ops' recorded steps with it when it goes.
struct CudaRank {
  int ordinal;
  CudaStream* stream;
  CudaOps* ops;
};

// The ranks have exchanged when this returns, so that the library holds what it takes of the devices' memory. NotFound:
// there is no NCCL. Internal: its own words. ResourceExhausted: no memory for these exchanges.
absl::StatusOr<std::vector<std::unique_ptr<Communicator>>> ConnectCudaRanks(absl::Span<const CudaRank> ranks);

}  // namespace millrace::cuda
