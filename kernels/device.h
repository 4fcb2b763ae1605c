// SPDX-License-Identifier: Apache-2.0
#pragma once
// A place with memory and arithmetic. One Device for each rank of an engine, used by that rank's thread only (memory
// may be allocated by the loading thread before that). No backend type appears here.
#include <cstddef>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "kernels/communicator.h"
#include "kernels/tensor.h"

namespace millrace {

class Ops;

// Device memory, freed when dropped. Aligned to 64 bytes, zeroed.
class Buffer {
 public:
  virtual ~Buffer() = default;
  virtual void* data() = 0;
  virtual size_t num_bytes() const = 0;
};

class Device {
 public:
  virtual ~Device() = default;
  virtual std::string name() const = 0;  // "cpu (avx512-vnni-bf16, 2 threads)"
  // ResourceExhausted when the memory is not to be had, with the size in the message.
  virtual absl::StatusOr<std::unique_ptr<Buffer>> Allocate(size_t num_bytes) = 0;
  virtual size_t available_bytes() const = 0;  // free memory, the cgroup's limit respected
  // Whether the host may read and write a Buffer's memory, and ops may be given the host's.
  virtual bool shares_host_memory() const = 0;
  // Copies `num_bytes` between the host's memory and the device's, after everything launched so far; done on return.
  virtual absl::Status CopyToDevice(void* device, const void* host, size_t num_bytes) = 0;
  virtual absl::Status CopyToHost(void* host, const void* device, size_t num_bytes) = 0;
  virtual Ops& ops() = 0;
  // Waits for everything launched so far; asynchronous faults surface here and only here.
  virtual absl::Status Wait() = 0;
  // Makes ranks of `devices`, this one first: a communicator for each, in their order. REQUIRES: all of one kind.
  virtual absl::StatusOr<std::vector<std::unique_ptr<Communicator>>> Connect(absl::Span<Device* const> /*devices*/) {
    return absl::UnimplementedError(name() + " does not compute with other devices");
  }
};

enum class CpuPath { kAuto, kReference, kAvx2, kAvx512 };  // kAuto: the widest this processor has

struct CpuDeviceOptions {
  int num_threads = 0;            // 0: the available cores (affinity and cgroup quota respected)
  CpuPath path = CpuPath::kAuto;  // a path the processor lacks is InvalidArgument
  int num_sharers = 1;            // devices among which the threads are divided, at least one for each
};
absl::StatusOr<std::unique_ptr<Device>> MakeCpuDevice(const CpuDeviceOptions& options);

struct CudaDeviceOptions {
  int ordinal = 0;                        // which of the devices the driver shows
  bool uses_graphs = true;                // decode steps are recorded and replayed
  bool overlaps_kernels = true;           // from sm_90 on a kernel may start before the one before it is through
  DType activation_dtype = DType::kBF16;  // kF16, too: finer, in a narrower range
};
// NotFound says which is missing: the backend's library, the driver or the device. FailedPrecondition: it is too old.
absl::StatusOr<std::unique_ptr<Device>> MakeCudaDevice(const CudaDeviceOptions& options);

}  // namespace millrace
