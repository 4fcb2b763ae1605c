// SPDX-License-Identifier: Apache-2.0
// What only the emulator can tell of the CUDA backend's host side: memory to the byte, and recorded steps and
// communicators whose size is set.
#include <cuda_runtime.h>

#include <catch2/catch.hpp>
#include <memory>
#include <thread>
#include <utility>
#include <vector>

#include "engine/choose_device.h"
#include "kernels/cuda/backend/cuda_device.h"
#include "kernels/cuda/backend/cuda_weight.h"
#include "kernels/cuda/backend/graph_cache.h"
#include "kernels/ops.h"
#include "tests/cuda_engine/cuda_backend.h"

namespace millrace {
namespace {

TEST_CASE("CudaOps: what is reserved is what the plan counts", "[cuda]") {
  const std::unique_ptr<Device> device = testing::Cuda();
  const size_t before = device->available_bytes();
  REQUIRE(device->ops().ReserveWorkspace(testing::kBackendLimits).ok());
  const size_t taken = before - device->available_bytes();
  const size_t planned = device->ops().WorkspaceBytes(testing::kBackendLimits);
  CHECK(taken > 0);
  CHECK(taken <= planned);
  // The rest is for graphs, of which there are none yet.
  CHECK(planned - taken <= cuda::GraphCache::NumBytes(24, 0) + 8 * 256);
}

// Each rank's first exchanges beyond those of connecting: a row, and more than any step's.
void ExchangeAgain(const RankDevices& ranks, int64_t cols) {
  std::vector<std::unique_ptr<Buffer>> buffers;
  std::vector<std::thread> threads;
  for (const auto& device : ranks.devices) buffers.push_back(*device->Allocate(static_cast<size_t>(4 * cols)));
  for (size_t rank = 0; rank < buffers.size(); ++rank) {
    threads.emplace_back([&ranks, cols, rank, data = buffers[rank]->data()] {
      Communicator& communicator = *ranks.communicators[rank];
      communicator.AllReduceSum({.data = data, .dtype = DType::kBF16, .rows = 1, .cols = cols, .stride = cols});
      communicator.GatherColumns(
          {.data = data, .rows = 2, .cols = cols / 4, .stride = cols / 4},
          {.data = static_cast<float*>(data) + cols / 2, .rows = 1, .cols = cols / 2, .stride = cols / 2});
    });
  }
  for (std::thread& thread : threads) thread.join();
}

TEST_CASE("CUDA ranks: what their exchanges take is taken before the memory that is planned with is measured",
          "[cuda][ranks]") {
  simt::SetExchangeBytes(size_t{1} << 20);
  std::vector<std::unique_ptr<Device>> devices;
  for (int ordinal = 0; ordinal < 2; ++ordinal) devices.push_back(testing::Cuda({.ordinal = ordinal}));
  const size_t before = devices[0]->available_bytes();
  {
    auto ranks = ConnectRanks(std::move(devices));
    REQUIRE(ranks.status().ToString() == "OK");
    // The emulated devices have one memory. Of each rank: the communicator, small sums, large ones, gathering.
    CHECK(BytesForEach(*ranks) == before - 2 * (size_t{4} << 20));
    for (const int64_t cols : {int64_t{8}, int64_t{1} << 23}) ExchangeAgain(*ranks, cols);
    CHECK(BytesForEach(*ranks) == before - 2 * (size_t{4} << 20));
  }
  CHECK(testing::Cuda()->available_bytes() >= before);
  simt::SetExchangeBytes(0);
}

TEST_CASE("CudaOps: int8 times many rows runs in clusters as large as the device has room for", "[cuda]") {
  constexpr int64_t kRows = 80, kChannels = 256, kInputs = 512;
  const std::unique_ptr<Device> device = testing::Cuda();
  StepLimits limits = testing::kBackendLimits;
  limits.max_rows = kRows;
  limits.max_inputs = kInputs;
  limits.max_outputs = kChannels;
  REQUIRE(device->ops().ReserveWorkspace(limits).ok());
  const std::vector<int8_t> values(kChannels * kInputs, 3);
  const std::vector<float> scales(kChannels, 0.5f);
  const auto weight = device->ops().Pack(
      {.format = WeightFormat::kInt8, .n = kChannels, .k = kInputs, .values = values.data(), .scales = scales.data()});
  REQUIRE(weight.ok());
  const std::vector<uint16_t> ones(kRows * kInputs, 0x3f80);
  const auto x = *device->Allocate(ones.size() * sizeof(uint16_t));
  const auto out = *device->Allocate(kRows * kChannels * sizeof(uint16_t));
  REQUIRE(device->CopyToDevice(x->data(), ones.data(), ones.size() * sizeof(uint16_t)).ok());
  static_cast<void>(simt::TakeClusterBlocks());
  device->ops().Matmul(
      {.x = {.data = x->data(), .dtype = DType::kBF16, .rows = kRows, .cols = kInputs, .stride = kInputs},
       .w = weight->get(),
       .out = {.data = out->data(), .dtype = DType::kBF16, .rows = kRows, .cols = kChannels, .stride = kChannels}});
  REQUIRE(device->Wait().ok());
  CHECK(simt::TakeClusterBlocks() == 4);  // of as many multiprocessors
  std::vector<uint16_t> got(kRows * kChannels);
  REQUIRE(device->CopyToHost(got.data(), out->data(), got.size() * sizeof(uint16_t)).ok());
  CHECK(got == std::vector<uint16_t>(got.size(), 0x4440));  // 768
}

TEST_CASE("GraphCache: rows are rounded up to what is recorded, and never beyond what was reserved", "[cuda]") {
  const cuda::GraphCache cache(20);
  CHECK(cache.RoundedRows(1) == 1);
  CHECK(cache.RoundedRows(3) == 4);
  CHECK(cache.RoundedRows(5) == 8);
  CHECK(cache.RoundedRows(17) == 20);
  CHECK(cache.RoundedRows(20) == 20);
  CHECK(cache.RoundedRows(21) == 0);
  CHECK(cuda::GraphCache(0).RoundedRows(1) == 0);
  CHECK(cache.RecordedRows() == std::vector<int64_t>{1, 2, 4, 8, 12, 16, 20});
  CHECK(cuda::GraphCache(16).RecordedRows() == std::vector<int64_t>{1, 2, 4, 8, 12, 16});
  CHECK(cuda::GraphCache(0).RecordedRows().empty());
  CHECK(cuda::GraphCache(4096).RoundedRows(513) == 0);
  CHECK(cuda::GraphCache::NumBytes(0, 32) == 0);
  CHECK(cuda::GraphCache::NumBytes(8, 32) < cuda::GraphCache::NumBytes(64, 32));
  // Some 10 KB for each of ten kernels a layer.
  CHECK(cuda::GraphCache::NumBytes(1, 32) > 32 * 10 * (10 << 10));
}

TEST_CASE("CudaOps: every rounded number of rows is recorded before the first request, and what that takes is measured",
          "[cuda]") {
  StepLimits limits = testing::kBackendLimits;
  limits.max_sequences = 6;
  const std::unique_ptr<Device> device = testing::Cuda();
  Ops& ops = device->ops();
  REQUIRE(ops.ReserveWorkspace(limits).ok());
  std::vector<int64_t> called;
  const auto forward = [&](const StepInputs& inputs) {
    CHECK(inputs.slots[0] < 0);
    ops.BeginStep(inputs);
    ops.Replay([&](int64_t num_rows) { called.push_back(num_rows); });
  };
  SECTION("within the plan") {
    simt::SetGraphBytes(size_t{1} << 20);
    CHECK(ops.RecordSteps(forward).ToString() == "OK");
    CHECK(called == std::vector<int64_t>{1, 2, 4, 6, 1, 2, 4, 6});
    const std::vector<int32_t> tokens(5, 0);
    const std::vector<int64_t> slots(5, -1);
    const std::vector<AttentionSequence> sequences(5);
    forward({.tokens = tokens, .positions = tokens, .slots = slots, .sequences = sequences});
    CHECK(called.size() == 8);  // replayed at once
    CHECK(testing::NumReplays(*device) == 5);
  }
  SECTION("beyond it, where memory is left") {
    simt::SetGraphBytes(size_t{3} << 20);
    CHECK(ops.RecordSteps(forward).ToString() == "OK");
  }
  SECTION("beyond it, where hardly any is left") {
    simt::SetGraphBytes(size_t{1995} << 20);  // of 8 GiB, four times
    const absl::Status status = ops.RecordSteps(forward);
    CHECK(status.code() == absl::StatusCode::kResourceExhausted);
    CHECK_THAT(std::string(status.message()), Catch::Contains("take 7980 MiB") && Catch::Contains("has 8 MiB"));
  }
  simt::SetGraphBytes(0);
}

TEST_CASE("CudaWeight: what lies as the device has it is uploaded from where it is", "[cuda]") {
  const std::vector<uint16_t> dense(4 * 16, 0x3f80);
  const std::vector<int8_t> bytes(4 * 16, 3);
  const std::vector<float> scales(4, 0.5f);
  WeightSource source = {.n = 4, .k = 16, .dtype = DType::kBF16, .values = dense.data()};
  const auto same = cuda::PackOnHost(source, DType::kBF16);
  REQUIRE(same.ok());
  CHECK(same->parts[0].data() == reinterpret_cast<const uint8_t*>(dense.data()));
  CHECK(same->parts[0].size() == dense.size() * sizeof(uint16_t));
  CHECK(same->weight.stride == 16);
  const auto rounded = cuda::PackOnHost(source, DType::kF16);
  REQUIRE(rounded.ok());
  CHECK(rounded->parts[0].data() == rounded->packed[0].data());
  source.k = 12;
  const auto padded = cuda::PackOnHost(source, DType::kBF16);
  REQUIRE(padded.ok());
  CHECK(padded->parts[0].size() == 4 * 16 * sizeof(uint16_t));
  source = {.format = WeightFormat::kInt8, .n = 4, .k = 16, .values = bytes.data(), .scales = scales.data()};
  const auto int8 = cuda::PackOnHost(source, DType::kBF16);
  REQUIRE(int8.ok());
  CHECK(int8->parts[0].data() == reinterpret_cast<const uint8_t*>(bytes.data()));
  CHECK(int8->parts[1].data() == reinterpret_cast<const uint8_t*>(scales.data()));
  CHECK(int8->parts[1].size() == scales.size() * sizeof(float));
}

TEST_CASE("GraphCache: what cannot be recorded is called instead, and is no fault", "[cuda]") {
  auto stream = cuda::CudaStream::Create();
  REQUIRE(stream.ok());
  cuda::GraphCache cache(8);
  int num_calls = 0;
  const auto body = [&] {
    ++num_calls;
    (*stream)->Keep(cudaStreamSynchronize((*stream)->get()), "a wait");  // not while a stream records
  };
  for (int i = 0; i < 3; ++i) cache.Run(4, **stream, body);
  CHECK(cache.num_replays() == 0);
  CHECK(num_calls >= 3);
  CHECK((*stream)->Synchronize().ok());
  CHECK(cache.RoundedRows(4) == 0);
  CHECK_THAT(std::string(cache.fault().message()), Catch::Contains("CUDA: a wait: "));
}

}  // namespace
}  // namespace millrace
