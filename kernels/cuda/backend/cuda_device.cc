// SPDX-License-Identifier: Apache-2.0
#include "kernels/cuda/backend/cuda_device.h"

#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "kernels/check.h"
#include "kernels/cuda/backend/cuda_communicator.h"
#include "kernels/cuda/matmul.h"
#include "kernels/cuda/warpgroups.h"
#include "kernels/status_macros.h"

namespace millrace::cuda {
namespace {

constexpr int kOldestMajor = 8;     // sm_80: asynchronous copies and bfloat16 on tensor cores
constexpr int kDependentMajor = 9;  // sm_90: programmatic dependent launch

absl::Status CheckOrdinal(int ordinal) {
  int num_devices = 0;
  const cudaError_t error = cudaGetDeviceCount(&num_devices);
  if (error == cudaErrorInsufficientDriver) {
    return absl::NotFoundError(
        "no CUDA device: the NVIDIA driver (libcuda.so.1) is not installed, or older than this build's CUDA 13");
  }
  if (error == cudaErrorNoDevice || (error == cudaSuccess && num_devices == 0)) {
    return absl::NotFoundError("no CUDA device: the NVIDIA driver is there but shows no device to this process");
  }
  if (error != cudaSuccess) return absl::NotFoundError(ToStatus(error, "looking for devices").message());
  if (ordinal < 0 || ordinal >= num_devices) {
    return absl::NotFoundError(
        absl::StrCat("no CUDA device ", ordinal, ": there are ", num_devices, ", numbered from 0"));
  }
  return absl::OkStatus();
}

absl::StatusOr<int> Attribute(cudaDeviceAttr attribute, int ordinal) {
  int value = 0;
  RETURN_IF_ERROR(ToStatus(cudaDeviceGetAttribute(&value, attribute, ordinal), "asking what the device is"));
  return value;
}

}  // namespace

absl::StatusOr<std::unique_ptr<Device>> CudaDevice::Open(const CudaDeviceOptions& options) {
  MILLRACE_CHECK(options.activation_dtype == DType::kBF16 || options.activation_dtype == DType::kF16,
                 "activations have 16 bits");
  const int ordinal = options.ordinal;
  RETURN_IF_ERROR(CheckOrdinal(ordinal));
  RETURN_IF_ERROR(ToStatus(cudaSetDevice(ordinal), "choosing the device"));
  ASSIGN_OR_RETURN(const int major, Attribute(cudaDevAttrComputeCapabilityMajor, ordinal));
  ASSIGN_OR_RETURN(const int minor, Attribute(cudaDevAttrComputeCapabilityMinor, ordinal));
  ASSIGN_OR_RETURN(const int num_multiprocessors, Attribute(cudaDevAttrMultiProcessorCount, ordinal));
  cudaDeviceProp properties{};
  RETURN_IF_ERROR(ToStatus(cudaGetDeviceProperties(&properties, ordinal), "asking what the device is"));
  if (major < kOldestMajor) {
    return absl::FailedPreconditionError(absl::StrCat("CUDA device ", ordinal, " (", properties.name, ", sm_", major,
                                                      minor, ") is too old: sm_80 (Ampere) or newer is needed"));
  }
  size_t free_bytes = 0, total_bytes = 0;
  RETURN_IF_ERROR(ToStatus(cudaMemGetInfo(&free_bytes, &total_bytes), "asking for the device's memory"));
  bool has_warpgroups = false;
  RETURN_IF_ERROR(ToStatus(FindWarpgroups(has_warpgroups), "asking what the kernels were built for"));
  std::optional<ResidentClusters> resident_clusters;
  if (has_warpgroups) resident_clusters = FindResidentClusters();
  std::string name = absl::StrFormat("cuda:%d (%s, sm_%d%d, %d SMs, %.0f GiB)", ordinal, properties.name, major, minor,
                                     num_multiprocessors, static_cast<double>(total_bytes) / (1 << 30));
  ASSIGN_OR_RETURN(std::unique_ptr<CudaStream> stream, CudaStream::Create());
  stream->set_overlaps_kernels(options.overlaps_kernels && major >= kDependentMajor);
  return std::unique_ptr<Device>(new CudaDevice(std::move(name), std::move(stream),
                                                {.ordinal = ordinal,
                                                 .num_multiprocessors = num_multiprocessors,
                                                 .has_warpgroups = has_warpgroups,
                                                 .resident_clusters = resident_clusters,
                                                 .uses_graphs = options.uses_graphs,
                                                 .activation_dtype = options.activation_dtype}));
}

absl::StatusOr<std::unique_ptr<Buffer>> CudaDevice::Allocate(size_t num_bytes) {
  static_cast<void>(cudaSetDevice(ordinal_));
  ASSIGN_OR_RETURN(std::unique_ptr<Buffer> buffer, DeviceMemory::Allocate(num_bytes, *stream_));
  return buffer;
}

size_t CudaDevice::available_bytes() const {
  size_t free_bytes = 0, total_bytes = 0;
  static_cast<void>(cudaSetDevice(ordinal_));
  return cudaMemGetInfo(&free_bytes, &total_bytes) == cudaSuccess ? free_bytes : 0;
}

absl::Status CudaDevice::CopyToDevice(void* device, const void* host, size_t num_bytes) {
  static_cast<void>(cudaSetDevice(ordinal_));
  if (num_bytes > 0) {
    stream_->Keep(cudaMemcpyAsync(device, host, num_bytes, cudaMemcpyHostToDevice, stream_->get()), "a copy");
  }
  return stream_->Synchronize();
}

absl::Status CudaDevice::CopyToHost(void* host, const void* device, size_t num_bytes) {
  static_cast<void>(cudaSetDevice(ordinal_));
  if (num_bytes > 0) {
    stream_->Keep(cudaMemcpyAsync(host, device, num_bytes, cudaMemcpyDeviceToHost, stream_->get()), "a copy");
  }
  return stream_->Synchronize();
}

absl::Status CudaDevice::Wait() { return stream_->Synchronize(); }

absl::StatusOr<std::vector<std::unique_ptr<Communicator>>> CudaDevice::Connect(absl::Span<Device* const> devices) {
  std::vector<CudaRank> ranks;
  for (Device* device : devices) {
    CudaDevice& rank = static_cast<CudaDevice&>(*device);
    ranks.push_back({.ordinal = rank.ordinal_, .stream = rank.stream_.get(), .ops = &rank.ops_});
  }
  return ConnectCudaRanks(ranks);
}

}  // namespace millrace::cuda
