// SPDX-License-Identifier: Apache-2.0
#include "kernels/cuda/backend/cuda_stream.h"

#include "absl/strings/str_cat.h"

namespace millrace::cuda {

absl::Status ToStatus(cudaError_t error, std::string_view what) {
  if (error == cudaSuccess) return absl::OkStatus();
  return absl::InternalError(absl::StrCat("CUDA: ", absl::string_view(what.data(), what.size()), ": ",
                                          cudaGetErrorString(error), " (", cudaGetErrorName(error), ")"));
}

absl::StatusOr<std::unique_ptr<CudaStream>> CudaStream::Create() {
  cudaStream_t stream = nullptr;
  if (const absl::Status status =
          ToStatus(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking), "creating a stream");
      !status.ok()) {
    return status;
  }
  return std::unique_ptr<CudaStream>(new CudaStream(stream));
}

CudaStream::~CudaStream() {
  static_cast<void>(cudaStreamSynchronize(stream_));
  static_cast<void>(cudaStreamDestroy(stream_));
}

void CudaStream::Keep(cudaError_t error, std::string_view what) {
  if (error != cudaSuccess && first_error_.ok()) first_error_ = ToStatus(error, what);
}

absl::Status CudaStream::Synchronize() {
  Keep(cudaStreamSynchronize(stream_), "a step");
  return first_error_;
}

CudaEvent::~CudaEvent() {
  if (event_ != nullptr) static_cast<void>(cudaEventDestroy(event_));
}

absl::Status CudaEvent::Create() {
  if (event_ != nullptr) return absl::OkStatus();
  return ToStatus(cudaEventCreateWithFlags(&event_, cudaEventDisableTiming), "creating an event");
}

void CudaEvent::Record(CudaStream& stream) { stream.Keep(cudaEventRecord(event_, stream.get()), "a step"); }

absl::Status CudaEvent::Synchronize(CudaStream& stream) {
  stream.Keep(cudaEventSynchronize(event_), "a step");
  return stream.first_error();
}

}  // namespace millrace::cuda
