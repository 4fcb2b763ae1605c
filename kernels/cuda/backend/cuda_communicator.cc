// SPDX-License-Identifier: Apache-2.0
#include "kernels/cuda/backend/cuda_communicator.h"

#include <cstdint>
#include <mutex>
#include <thread>
#include <utility>

#include "absl/strings/str_cat.h"
#include "kernels/check.h"
#include "kernels/cuda/backend/cuda_memory.h"
#include "kernels/cuda/backend/nccl.h"
#include "kernels/status_macros.h"

namespace millrace::cuda {
namespace {

int NcclType(DType dtype) {
  MILLRACE_CHECK(dtype == DType::kF32 || dtype == DType::kBF16 || dtype == DType::kF16, "ranks exchange floats");
  return dtype == DType::kF32 ? kNcclFloat32 : dtype == DType::kBF16 ? kNcclBFloat16 : kNcclFloat16;
}

// The communicators of all ranks, so that any of them can end what the others wait for.
class NcclGroup {
 public:
  NcclGroup(const Nccl& nccl, size_t num_ranks) : nccl_(nccl), comms_(num_ranks, nullptr) {}
  // REQUIRES: no recorded step uses a communicator any more.
  ~NcclGroup() {
    for (std::thread& thread : aborting_) thread.join();
    for (size_t rank = 0; rank < comms_.size(); ++rank) Leave(rank);
  }
  NcclGroup(const NcclGroup&) = delete;
  NcclGroup& operator=(const NcclGroup&) = delete;

  absl::Status Connect(absl::Span<const CudaRank> ranks) {
    ncclUniqueId id{};
    RETURN_IF_ERROR(ToStatus(nccl_.get_unique_id(&id), "an id"));
    RETURN_IF_ERROR(ToStatus(nccl_.group_start(), "connecting the ranks"));
    int result = kNcclSuccess;
    for (size_t rank = 0; rank < ranks.size() && result == kNcclSuccess; ++rank) {
      static_cast<void>(cudaSetDevice(ranks[rank].ordinal));
      result = nccl_.init_rank(&comms_[rank], static_cast<int>(ranks.size()), id, static_cast<int>(rank));
    }
    const int ended = nccl_.group_end();
    return ToStatus(result != kNcclSuccess ? result : ended, "connecting the ranks");
  }

  const Nccl& nccl() const { return nccl_; }
  // Null: aborted.
  ncclComm* comm(size_t rank) {
    const std::lock_guard<std::mutex> lock(mu_);
    return comms_[rank];
  }
  size_t num_ranks() const { return comms_.size(); }

  absl::Status ToStatus(int result, absl::string_view what) const {
    if (result == kNcclSuccess) return absl::OkStatus();
    return absl::InternalError(absl::StrCat("NCCL: ", what, ": ", nccl_.error_string(result)));
  }

  void Abort(const absl::Status& why) {
    const std::lock_guard<std::mutex> lock(mu_);
    if (!fault_.ok()) return;
    fault_ = why;
    // The library sets the flag that ends its kernels, and then waits until no recorded step uses the communicator.
    for (ncclComm*& comm : comms_) {
      aborting_.emplace_back([this, aborted = std::exchange(comm, nullptr)] {
        if (aborted != nullptr) static_cast<void>(nccl_.abort(aborted));
      });
    }
  }

  absl::Status status(size_t rank) {
    const std::lock_guard<std::mutex> lock(mu_);
    if (!fault_.ok()) return fault_;
    int error = kNcclSuccess;
    const int result = nccl_.get_async_error(comms_[rank], &error);
    if (result != kNcclSuccess) error = result;
    return ToStatus(error == kNcclInProgress ? kNcclSuccess : error, "an exchange");
  }

  // A rank goes. Not ncclCommDestroy, which may wait for ranks that this thread has yet to free.
  // REQUIRES: none of its recorded steps uses the communicator any more.
  void Leave(size_t rank) {
    const std::lock_guard<std::mutex> lock(mu_);
    if (ncclComm* comm = std::exchange(comms_[rank], nullptr)) static_cast<void>(nccl_.abort(comm));
  }

 private:
  const Nccl nccl_;
  std::vector<ncclComm*> comms_;
  std::mutex mu_;  // of what follows, and of changes to comms_
  absl::Status fault_;
  std::vector<std::thread> aborting_;
};

class CudaCommunicator final : public Communicator {
 public:
  CudaCommunicator(std::shared_ptr<NcclGroup> group, size_t rank, const CudaRank& device)
      : group_(std::move(group)), rank_(rank), stream_(*device.stream), ops_(*device.ops) {}
  ~CudaCommunicator() override {
    ops_.DropGraphs();
    group_->Leave(rank_);
  }

  void AllReduceSum(const Matrix& matrix) override {
    MILLRACE_CHECK(matrix.stride == matrix.cols, "ranks add dense matrices");
    ncclComm* comm = group_->comm(rank_);
    if (comm == nullptr) return;
    const size_t count = static_cast<size_t>(matrix.rows * matrix.cols);
    Check(group_->nccl().all_reduce(matrix.data, matrix.data, count, NcclType(matrix.dtype), kNcclSum, comm,
                                    stream_.get()),
          "adding up activations");
  }

  void GatherColumns(const Matrix& parts, const Matrix& whole) override {
    const int64_t num_ranks = static_cast<int64_t>(group_->num_ranks()), cols = parts.cols, rows = whole.rows;
    MILLRACE_CHECK(parts.rows == rows * num_ranks && whole.cols == cols * num_ranks && parts.dtype == DType::kF32,
                   "a row of the whole holds a row of each rank's part");
    ncclComm* comm = group_->comm(rank_);
    if (comm == nullptr) return;
    float* data = static_cast<float*>(parts.data);
    Check(group_->nccl().all_gather(data + static_cast<int64_t>(rank_) * rows * cols, data,
                                    static_cast<size_t>(rows * cols), kNcclFloat32, comm, stream_.get()),
          "gathering logits");
    const size_t row_bytes = static_cast<size_t>(cols) * sizeof(float);
    for (int64_t rank = 0; rank < num_ranks; ++rank) {
      stream_.Keep(cudaMemcpy2DAsync(static_cast<float*>(whole.data) + rank * cols,
                                     row_bytes * static_cast<size_t>(num_ranks), data + rank * rows * cols, row_bytes,
                                     row_bytes, static_cast<size_t>(rows), cudaMemcpyDeviceToDevice, stream_.get()),
                   "laying out gathered logits");
    }
  }

  void Abort(const absl::Status& why) override { group_->Abort(why); }
  absl::Status status() const override { return group_->status(rank_); }

 private:
  void Check(int result, absl::string_view what) {
    stream_.Keep(cudaSuccess, "an exchange");
    if (result != kNcclSuccess) group_->Abort(group_->ToStatus(result, what));
  }

  const std::shared_ptr<NcclGroup> group_;
  const size_t rank_;
  CudaStream& stream_;
  CudaOps& ops_;
};

using Communicators = std::vector<std::unique_ptr<Communicator>>;

// The library connects what an algorithm needs, and takes memory for it, when it first chooses that algorithm, by the
// kind and the size of an exchange: so one of each kind and magnitude. A step's are not larger than the largest, or not
// enough so to matter.
absl::Status ExchangeFirst(const Communicators& communicators, absl::Span<const CudaRank> ranks) {
  constexpr int64_t kLargestBytes = int64_t{1} << 24;
  const int64_t num_ranks = static_cast<int64_t>(ranks.size());
  std::vector<std::unique_ptr<DeviceMemory>> memory;
  for (const CudaRank& rank : ranks) {
    static_cast<void>(cudaSetDevice(rank.ordinal));
    ASSIGN_OR_RETURN(auto buffer, DeviceMemory::Allocate(2 * kLargestBytes, *rank.stream));
    memory.push_back(std::move(buffer));
  }
  const auto exchange = [&](size_t index) {
    const CudaRank& rank = ranks[index];
    Communicator& communicator = *communicators[index];
    static_cast<void>(cudaSetDevice(rank.ordinal));
    char* const data = static_cast<char*>(memory[index]->data());
    const auto view = [](void* at, DType dtype, int64_t rows, int64_t cols) {
      return Matrix{.data = at, .dtype = dtype, .rows = rows, .cols = cols, .stride = cols};
    };
    for (int64_t num_bytes = 1024; num_bytes <= kLargestBytes; num_bytes *= 4) {
      communicator.AllReduceSum(view(data, rank.ops->activation_dtype(), 1, num_bytes / 2));
      const int64_t cols = num_bytes / num_ranks / static_cast<int64_t>(sizeof(float));
      communicator.GatherColumns(view(data, DType::kF32, num_ranks, cols),
                                 view(data + kLargestBytes, DType::kF32, 1, num_ranks * cols));
    }
    if (const absl::Status status = rank.stream->Synchronize(); !status.ok()) communicator.Abort(status);
  };
  std::vector<std::thread> threads;
  for (size_t rank = 0; rank < ranks.size(); ++rank) threads.emplace_back(exchange, rank);
  for (std::thread& thread : threads) thread.join();
  for (const auto& communicator : communicators) RETURN_IF_ERROR(communicator->status());
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<std::vector<std::unique_ptr<Communicator>>> ConnectCudaRanks(absl::Span<const CudaRank> ranks) {
  ASSIGN_OR_RETURN(const Nccl nccl, Nccl::Open());
  auto group = std::make_shared<NcclGroup>(nccl, ranks.size());
  RETURN_IF_ERROR(group->Connect(ranks));
  Communicators communicators;
  for (size_t rank = 0; rank < ranks.size(); ++rank) {
    communicators.push_back(std::make_unique<CudaCommunicator>(group, rank, ranks[rank]));
  }
  RETURN_IF_ERROR(ExchangeFirst(communicators, ranks));
  return communicators;
}

}  // namespace millrace::cuda
