// SPDX-License-Identifier: Apache-2.0
#include "kernels/cpu/host_communicator.h"

#include <algorithm>
#include <cstdint>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "kernels/check.h"

namespace millrace::cpu {
namespace {

// Where the ranks meet. Shared by them; any thread.
class Meeting {
 public:
  explicit Meeting(int num_ranks) : matrices_(static_cast<size_t>(num_ranks)) {}

  // Shows this rank's matrix to the others and waits for theirs. Null: aborted, for every rank alike.
  const std::vector<Matrix>* Show(int rank, const Matrix& matrix) {
    absl::MutexLock lock(&mu_);
    if (!fault_.ok()) return nullptr;
    matrices_[static_cast<size_t>(rank)] = matrix;
    const uint64_t turn = Arrive();
    const auto is_over = [this, turn]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) { return turn_ != turn || !fault_.ok(); };
    mu_.Await(absl::Condition(&is_over));
    // Until all leave again nobody writes them, so they are read without the lock.
    return turn_ != turn ? &matrices_ : nullptr;
  }
  // Waits until no rank reads what the others showed. An abort does not keep a rank from coming here.
  void Leave() {
    absl::MutexLock lock(&mu_);
    const uint64_t turn = Arrive();
    const auto is_over = [this, turn]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) { return turn_ != turn; };
    mu_.Await(absl::Condition(&is_over));
  }

  void Abort(const absl::Status& why) {
    absl::MutexLock lock(&mu_);
    if (fault_.ok()) fault_ = why;
  }
  absl::Status status() const {
    absl::MutexLock lock(&mu_);
    return fault_;
  }

 private:
  // Returns the meeting that waits for the others; the last to come ends it.
  uint64_t Arrive() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) {
    if (++num_waiting_ < matrices_.size()) return turn_;
    num_waiting_ = 0;
    return turn_++;
  }

  mutable absl::Mutex mu_;
  std::vector<Matrix> matrices_;  // of the ranks; written under the lock
  size_t num_waiting_ ABSL_GUARDED_BY(mu_) = 0;
  uint64_t turn_ ABSL_GUARDED_BY(mu_) = 0;  // meetings held so far
  absl::Status fault_ ABSL_GUARDED_BY(mu_);
};

class HostCommunicator final : public Communicator {
 public:
  HostCommunicator(std::shared_ptr<Meeting> meeting, int rank) : meeting_(std::move(meeting)), rank_(rank) {}

  void AllReduceSum(const Matrix& matrix) override {
    MILLRACE_CHECK(matrix.dtype == DType::kF32 && matrix.stride == matrix.cols, "ranks add dense float32 matrices");
    const std::vector<Matrix>* matrices = meeting_->Show(rank_, matrix);
    if (matrices == nullptr) return;
    const int64_t num_ranks = static_cast<int64_t>(matrices->size()), count = matrix.rows * matrix.cols;
    AddUp(*matrices, count * rank_ / num_ranks, count * (rank_ + 1) / num_ranks);
    meeting_->Leave();
  }

  void GatherColumns(const Matrix& parts, const Matrix& whole) override {
    const std::vector<Matrix>* matrices = meeting_->Show(rank_, parts);
    if (matrices == nullptr) return;
    const int64_t num_ranks = static_cast<int64_t>(matrices->size());
    MILLRACE_CHECK(parts.rows == whole.rows * num_ranks && whole.cols == parts.cols * num_ranks,
                   "a row of the whole holds a row of each rank's part");
    for (int64_t rank = 0; rank < num_ranks; ++rank) {
      const float* from =
          static_cast<const float*>((*matrices)[static_cast<size_t>(rank)].data) + rank * whole.rows * parts.cols;
      float* out = static_cast<float*>(whole.data) + rank * parts.cols;
      for (int64_t row = 0; row < whole.rows; ++row) {
        std::copy_n(from + row * parts.cols, parts.cols, out + row * whole.cols);
      }
    }
    meeting_->Leave();
  }

  void Abort(const absl::Status& why) override { meeting_->Abort(why); }
  absl::Status status() const override { return meeting_->status(); }

 private:
  // Values [begin, end) of the sum, to every rank: nobody else touches them.
  static void AddUp(const std::vector<Matrix>& matrices, int64_t begin, int64_t end) {
    constexpr int64_t kChunk = 1024;
    float sums[kChunk];
    for (; begin < end; begin += kChunk) {
      const int64_t count = std::min(kChunk, end - begin);
      std::copy_n(static_cast<const float*>(matrices[0].data) + begin, count, sums);
      for (size_t rank = 1; rank < matrices.size(); ++rank) {
        const float* values = static_cast<const float*>(matrices[rank].data) + begin;
        for (int64_t i = 0; i < count; ++i) sums[i] += values[i];
      }
      for (const Matrix& matrix : matrices) std::copy_n(sums, count, static_cast<float*>(matrix.data) + begin);
    }
  }

  const std::shared_ptr<Meeting> meeting_;
  const int rank_;
};

}  // namespace

std::vector<std::unique_ptr<Communicator>> ConnectHostRanks(int num_ranks) {
  MILLRACE_CHECK(num_ranks >= 1, "there is a rank");
  auto meeting = std::make_shared<Meeting>(num_ranks);
  std::vector<std::unique_ptr<Communicator>> ranks;
  for (int rank = 0; rank < num_ranks; ++rank) ranks.push_back(std::make_unique<HostCommunicator>(meeting, rank));
  return ranks;
}

}  // namespace millrace::cpu
