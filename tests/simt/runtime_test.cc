// SPDX-License-Identifier: Apache-2.0
// The emulated runtime: what it refuses as the real one does, and captured work that runs again.
#include <catch2/catch.hpp>
#include <cmath>
#include <cstdint>
#include <functional>
#include <vector>

#include "kernels/cuda/common/launch.h"
#include "kernels/cuda/common/ptx.h"
#include "kernels/cuda/common/ptx_barrier.h"

namespace millrace::cuda {
namespace {

__global__ void Add(float* values, float amount, int count) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i < count) values[i] += amount;
}

__global__ void TouchLastShared(int num_bytes) { ptx::SharedMemory<char>()[num_bytes - 1 - threadIdx.x] = 1; }

TEST_CASE("simt: new memory is NaN and counted while it is there") {
  size_t before, during, after, total;
  REQUIRE(cudaMemGetInfo(&before, &total) == cudaSuccess);
  float* values;
  REQUIRE(cudaMalloc(&values, 100 * sizeof(float)) == cudaSuccess);
  CHECK(reinterpret_cast<uintptr_t>(values) % 256 == 0);
  for (int i = 0; i < 100; ++i) CHECK(std::isnan(values[i]));
  cudaMemGetInfo(&during, &total);
  CHECK(before - during == 100 * sizeof(float));
  CHECK(cudaFree(values) == cudaSuccess);
  cudaMemGetInfo(&after, &total);
  CHECK(after == before);
  CHECK(cudaMemcpy(nullptr, nullptr, 0, cudaMemcpyHostToDevice) == cudaSuccess);
  void* memory;
  CHECK(cudaMalloc(&memory, total + 1) == cudaErrorMemoryAllocation);
  CHECK(cudaGetLastError() == cudaErrorMemoryAllocation);
  CHECK(cudaGetLastError() == cudaSuccess);
}

TEST_CASE("simt: launches the device would refuse are refused") {
  CHECK(Launch(TouchLastShared, {.grid = dim3(1), .block = dim3(1025)}, 1) == cudaErrorInvalidConfiguration);
  CHECK(Launch(TouchLastShared, {.grid = dim3(0), .block = dim3(32)}, 1) == cudaErrorInvalidConfiguration);
  CHECK(Launch(TouchLastShared, {.grid = dim3(1, 65536), .block = dim3(32)}, 1) == cudaErrorInvalidConfiguration);
  CHECK(Launch(TouchLastShared, {.grid = dim3(1), .block = dim3(32), .shared_bytes = 300000}, 300000) ==
        cudaErrorInvalidValue);
  CHECK(Launch(TouchLastShared, {.grid = dim3(1), .block = dim3(32), .shared_bytes = 100000}, 100000) == cudaSuccess);
  // More than the default takes an attribute, which Launch sets and this does not; so does all of the default, beside
  // which a kernel may have static arrays.
  cudaLaunchConfig_t config = {};
  config.blockDim = dim3(32);
  for (const size_t num_bytes : {size_t{60000}, size_t{48 * 1024}}) {
    config.dynamicSmemBytes = num_bytes;
    CHECK(cudaLaunchKernelEx(&config, Add, nullptr, 0.0f, 0) == cudaErrorInvalidValue);
  }
  cudaGetLastError();
  CHECK(Launch(TouchLastShared, {.grid = dim3(1), .block = dim3(32), .shared_bytes = 48 * 1024}, 48 * 1024) ==
        cudaSuccess);
}

__global__ void MeetAndCount(int* count) {
  ptx::ClusterSync();
  if (threadIdx.x == 0) *count += 1 + static_cast<int>(blockIdx.x);
}

TEST_CASE("simt: clusters of up to four blocks run, 1536 threads together, and are counted as the device has room") {
  int* count;
  REQUIRE(cudaMalloc(&count, sizeof(int)) == cudaSuccess);
  *count = 0;
  static_cast<void>(simt::TakeClusterBlocks());
  LaunchShape shape = {.grid = dim3(8), .block = dim3(384), .cluster_blocks = 4};
  CHECK(Launch(MeetAndCount, shape, count) == cudaSuccess);
  CHECK(*count == 36);
  CHECK(simt::TakeClusterBlocks() == 4);
  shape.block = dim3(416);
  CHECK(Launch(MeetAndCount, shape, count) == cudaErrorInvalidConfiguration);
  shape = {.grid = dim3(6), .block = dim3(32), .cluster_blocks = 4};
  CHECK(Launch(MeetAndCount, shape, count) == cudaErrorInvalidConfiguration);
  CHECK(simt::TakeClusterBlocks() == 0);
  cudaLaunchAttribute cluster = {};
  cluster.id = cudaLaunchAttributeClusterDimension;
  cudaLaunchConfig_t config = {.gridDim = dim3(12), .blockDim = dim3(384), .attrs = &cluster, .numAttrs = 1};
  int num_clusters = 0;
  for (const unsigned num_blocks : {1u, 2u, 4u}) {
    cluster.val.clusterDim = {num_blocks, 1, 1};
    CHECK(cudaOccupancyMaxActiveClusters(&num_clusters, MeetAndCount, &config) == cudaSuccess);
    CHECK(num_clusters == 4 / static_cast<int>(num_blocks));
  }
  config.dynamicSmemBytes = 100000;  // which nobody asked for
  CHECK(cudaOccupancyMaxActiveClusters(&num_clusters, MeetAndCount, &config) == cudaErrorInvalidValue);
  cluster.val.clusterDim = {8, 1, 1};
  CHECK(cudaOccupancyMaxActiveClusters(&num_clusters, MeetAndCount, &config) == cudaErrorInvalidConfiguration);
  cudaGetLastError();
  cudaFree(count);
}

TEST_CASE("simt: captured launches and copies run when the graph is launched, with the arguments of the capture") {
  constexpr int kCount = 100;
  float *values, *copy;
  REQUIRE(cudaMalloc(&values, kCount * sizeof(float)) == cudaSuccess);
  REQUIRE(cudaMalloc(&copy, kCount * sizeof(float)) == cudaSuccess);
  REQUIRE(cudaMemset(values, 0, kCount * sizeof(float)) == cudaSuccess);
  cudaStream_t stream;
  REQUIRE(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking) == cudaSuccess);
  REQUIRE(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal) == cudaSuccess);
  float amount = 1;
  CHECK(Launch(Add, {.grid = dim3(2), .block = dim3(64), .stream = stream}, values, amount, kCount) == cudaSuccess);
  amount = 100;
  CHECK(cudaMemcpyAsync(copy, values, kCount * sizeof(float), cudaMemcpyDeviceToDevice, stream) == cudaSuccess);
  cudaGraph_t graph;
  REQUIRE(cudaStreamEndCapture(stream, &graph) == cudaSuccess);
  CHECK(values[0] == 0);
  cudaGraphExec_t executable;
  REQUIRE(cudaGraphInstantiate(&executable, graph, 0) == cudaSuccess);
  REQUIRE(cudaGraphDestroy(graph) == cudaSuccess);
  for (int i = 1; i <= 3; ++i) {
    REQUIRE(cudaGraphLaunch(executable, stream) == cudaSuccess);
    REQUIRE(cudaStreamSynchronize(stream) == cudaSuccess);
    CHECK(values[kCount - 1] == i);
    CHECK(copy[kCount - 1] == i);
  }
  cudaGraphExecDestroy(executable);
  cudaStreamDestroy(stream);
  cudaFree(values);
  cudaFree(copy);
}

TEST_CASE("simt: what waits or allocates is refused while the thread captures, and what it captured is lost") {
  float* values;
  REQUIRE(cudaMalloc(&values, sizeof(float)) == cudaSuccess);
  cudaStream_t stream;
  REQUIRE(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking) == cudaSuccess);
  void* memory = nullptr;
  const std::vector<std::function<cudaError_t()>> calls = {
      [&] { return cudaStreamSynchronize(stream); },
      [] { return cudaDeviceSynchronize(); },
      [&] { return cudaMalloc(&memory, 1); },
      [&] { return cudaFree(values); },
      [&] { return cudaMallocHost(&memory, 1); },
      [&] { return cudaMemset(values, 0, sizeof(float)); },
      [&] { return cudaMemcpy(values, values, sizeof(float), cudaMemcpyDeviceToDevice); }};
  for (size_t i = 0; i < calls.size(); ++i) {
    CAPTURE(i);
    REQUIRE(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal) == cudaSuccess);
    CHECK(calls[i]() == cudaErrorStreamCaptureUnsupported);
    CHECK(Launch(Add, {.grid = dim3(1), .block = dim3(1), .stream = stream}, values, 1.0f, 1) ==
          cudaErrorStreamCaptureInvalidated);
    cudaGraph_t graph;
    CHECK(cudaStreamEndCapture(stream, &graph) == cudaErrorStreamCaptureInvalidated);
    CHECK(graph == nullptr);
    cudaGetLastError();
  }
  cudaStreamDestroy(stream);
  CHECK(cudaFree(values) == cudaSuccess);
}

TEST_CASE("simt: deferred work runs when the host waits for it, as far as the host waits") {
  float* values;
  float* pinned;
  REQUIRE(cudaMalloc(&values, sizeof(float)) == cudaSuccess);
  REQUIRE(cudaHostAlloc(reinterpret_cast<void**>(&pinned), sizeof(float), cudaHostAllocDefault) == cudaSuccess);
  cudaStream_t stream;
  cudaEvent_t event;
  {
    const simt::DeferredStreams deferred;
    REQUIRE(cudaStreamCreate(&stream) == cudaSuccess);
    REQUIRE(cudaEventCreate(&event) == cudaSuccess);
  }
  const LaunchShape shape = {.grid = dim3(1), .block = dim3(1), .stream = stream};
  static_cast<void>(simt::TakeHostWaits());
  *pinned = 1;
  CHECK(cudaMemcpyAsync(values, pinned, sizeof(float), cudaMemcpyHostToDevice, stream) == cudaSuccess);
  *pinned = 2;  // too early: this is what will be copied
  CHECK(Launch(Add, shape, values, 10.0f, 1) == cudaSuccess);
  CHECK(cudaEventRecord(event, stream) == cudaSuccess);
  CHECK(Launch(Add, shape, values, 100.0f, 1) == cudaSuccess);
  CHECK(simt::HasDeferredWork());
  CHECK(std::isnan(*values));
  CHECK(cudaEventQuery(event) == cudaErrorNotReady);
  CHECK(cudaEventSynchronize(event) == cudaSuccess);
  CHECK(*values == 12);
  CHECK(cudaEventQuery(event) == cudaSuccess);
  CHECK(simt::HasDeferredWork());
  float pageable = 0;
  CHECK(cudaMemcpyAsync(&pageable, values, sizeof(float), cudaMemcpyDeviceToHost, stream) == cudaSuccess);
  CHECK(pageable == 112);  // there when the call returns
  CHECK(cudaMemcpyAsync(values, &pageable, sizeof(float), cudaMemcpyHostToDevice, stream) == cudaSuccess);
  pageable = 5;  // too late to be copied
  CHECK(*values == 112);
  CHECK(simt::HasDeferredWork());
  CHECK(cudaStreamSynchronize(stream) == cudaSuccess);
  CHECK(*values == 112);
  const simt::HostWaits waits = simt::TakeHostWaits();
  CHECK(waits.num_for_events == 1);
  CHECK(waits.num_for_streams == 2);  // one of them the copy's
  cudaEventDestroy(event);
  cudaStreamDestroy(stream);
  cudaFree(values);
  cudaFreeHost(pinned);
}

}  // namespace
}  // namespace millrace::cuda
