// SPDX-License-Identifier: Apache-2.0
#include "kernels/communicator.h"

#include <catch2/catch.hpp>
#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "kernels/device.h"
#include "tests/support/reference.h"

namespace millrace {
namespace {

using testing::RandomFloats;

class Ranks {
 public:
  explicit Ranks(int num_ranks) {
    for (int rank = 0; rank < num_ranks; ++rank) {
      devices_.push_back(*MakeCpuDevice({.num_threads = 1}));
      pointers_.push_back(devices_.back().get());
    }
    auto connected = pointers_[0]->Connect(pointers_);
    REQUIRE(connected.ok());
    communicators_ = *std::move(connected);
  }
  size_t size() const { return communicators_.size(); }
  Communicator& operator[](size_t rank) { return *communicators_[rank]; }

  // On a thread for each rank; returns when all have returned.
  void Run(const std::function<void(size_t rank, Communicator& communicator)>& body) {
    std::vector<std::thread> threads;
    for (size_t rank = 0; rank < size(); ++rank) threads.emplace_back([&, rank] { body(rank, *communicators_[rank]); });
    for (std::thread& thread : threads) thread.join();
  }

 private:
  std::vector<std::unique_ptr<Device>> devices_;
  std::vector<Device*> pointers_;
  std::vector<std::unique_ptr<Communicator>> communicators_;
};

Matrix View(std::vector<float>& values, int64_t rows) {
  const int64_t cols = static_cast<int64_t>(values.size()) / rows;
  return {.data = values.data(), .dtype = DType::kF32, .rows = rows, .cols = cols, .stride = cols};
}

TEST_CASE("Communicator: a sum is that of the ranks in their order, bit for bit on each of them", "[communicator]") {
  const int num_ranks = GENERATE(1, 2, 3, 4, 8);
  const int64_t cols = GENERATE(1, 3, 64, 1500);
  constexpr int64_t kRows = 5;
  CAPTURE(num_ranks, cols);
  Ranks ranks(num_ranks);
  std::vector<std::vector<float>> values;
  for (int rank = 0; rank < num_ranks; ++rank)
    values.push_back(RandomFloats(kRows * cols, static_cast<uint32_t>(rank)));
  std::vector<float> expected = values[0];
  for (size_t rank = 1; rank < values.size(); ++rank) {
    for (size_t i = 0; i < expected.size(); ++i) expected[i] += values[rank][i];
  }
  // Several in a row: what one leaves the next finds.
  for (int turn = 0; turn < 3; ++turn) {
    auto mine = values;
    ranks.Run([&](size_t rank, Communicator& communicator) { communicator.AllReduceSum(View(mine[rank], kRows)); });
    for (const auto& each : mine) CHECK(each == expected);
  }
}

TEST_CASE("Communicator: gathered columns lie side by side in the order of the ranks", "[communicator]") {
  const int num_ranks = GENERATE(1, 2, 4);
  constexpr int64_t kRows = 3, kCols = 7;
  Ranks ranks(num_ranks);
  std::vector<std::vector<float>> wholes(ranks.size(), std::vector<float>(kRows * kCols * ranks.size(), -1.0f));
  const auto value = [](size_t rank, int64_t row, int64_t col) {
    return static_cast<float>(rank * 100 + static_cast<size_t>(row * 10 + col));
  };
  ranks.Run([&](size_t rank, Communicator& communicator) {
    std::vector<float> parts(kRows * kCols * ranks.size(), -2.0f);
    for (int64_t row = 0; row < kRows; ++row) {
      for (int64_t col = 0; col < kCols; ++col) {
        parts[rank * kRows * kCols + static_cast<size_t>(row * kCols + col)] = value(rank, row, col);
      }
    }
    communicator.GatherColumns(View(parts, kRows * num_ranks), View(wholes[rank], kRows));
  });
  for (const auto& whole : wholes) {
    size_t at = 0;
    for (int64_t row = 0; row < kRows; ++row) {
      for (size_t rank = 0; rank < ranks.size(); ++rank) {
        for (int64_t col = 0; col < kCols; ++col) CHECK(whole[at++] == value(rank, row, col));
      }
    }
  }
}

TEST_CASE("Communicator: an abort ends what others wait for, and the first reason stays", "[communicator]") {
  Ranks ranks(3);
  std::vector<std::vector<float>> values(3, std::vector<float>(8, 1.0f));
  ranks.Run([&](size_t rank, Communicator& communicator) {
    // Before or while the others wait: they return either way.
    if (rank == 2) return communicator.Abort(absl::InternalError("the card fell out"));
    communicator.AllReduceSum(View(values[rank], 1));
    communicator.AllReduceSum(View(values[rank], 1));
  });
  ranks[0].Abort(absl::InternalError("another"));
  for (size_t rank = 0; rank < ranks.size(); ++rank) {
    CHECK(ranks[rank].status() == absl::InternalError("the card fell out"));
    ranks[rank].AllReduceSum(View(values[rank], 1));  // alone, and yet it returns
    ranks[rank].GatherColumns(View(values[rank], 1), View(values[rank], 1));
  }
}

}  // namespace
}  // namespace millrace
