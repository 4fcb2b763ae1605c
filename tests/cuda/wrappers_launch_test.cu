// SPDX-License-Identifier: Apache-2.0
// What kernels and the backend take for granted of a device and its driver, asked one by one: sizes, shared memory
// beyond the default, registers that warpgroups hand over, dependent launches, and recorded ones. Run first on a GPU.
#include <cstdint>
#include <cstdio>
#include <string>
#include <utility>
#include <vector>

#include "kernels/cuda/backend/graph_bytes.h"
#include "kernels/cuda/common/launch.h"
#include "kernels/cuda/common/ptx_barrier.h"
#include "tests/cuda/harness.h"

namespace millrace::cuda {
namespace {

using cuda_test::DeviceArray;
using cuda_test::Random;
using cuda_test::RequireSuccess;

#ifdef MILLRACE_SIMT
constexpr int kNumBlocks = 4;
constexpr int kNumSteps = 16;
#else
constexpr int kNumBlocks = 500;  // more than run at once
constexpr int kNumSteps = 200;
#endif
constexpr int kThreads = 128;
constexpr size_t kLargeShared = 90 * 1024;
constexpr size_t kLargestShared = 225 * 1024;  // of the warpgroup kernels

cudaDeviceProp Properties() {
  cudaDeviceProp properties = {};
  RequireSuccess(cudaGetDeviceProperties(&properties, 0), "the device's properties");
  return properties;
}

KERNEL_TEST("device: it has what the kernels are laid out for") {
  const cudaDeviceProp device = Properties();
  int driver = 0, runtime = 0;
  size_t free_bytes = 0, total_bytes = 0;
  RequireSuccess(cudaDriverGetVersion(&driver), "the driver's version");
  RequireSuccess(cudaRuntimeGetVersion(&runtime), "the runtime's version");
  RequireSuccess(cudaMemGetInfo(&free_bytes, &total_bytes), "the device's memory");
  std::printf("  %s, sm_%d%d, %d multiprocessors, %zu bytes of shared memory for a block, %d registers, %d of L2\n",
              device.name, device.major, device.minor, device.multiProcessorCount, device.sharedMemPerBlockOptin,
              device.regsPerBlock, device.l2CacheSize);
  std::printf("  CUDA: driver %d, runtime %d; %zu of %zu MiB free\n", driver, runtime, free_bytes >> 20,
              total_bytes >> 20);
  EXPECT(driver >= runtime);
  EXPECT(device.regsPerBlock >= 65536);
  EXPECT(device.sharedMemPerBlockOptin >= 99 * 1024);
  EXPECT(device.major != 9 || device.sharedMemPerBlockOptin >= 227 * 1024);
}

constexpr int kFixedWords = 1024;
__global__ void __launch_bounds__(kThreads) FillKernel(int num_words, uint32_t* sum) {
  __shared__ uint32_t fixed[kFixedWords];
  uint32_t* words = ptx::SharedMemory<uint32_t>();
  const int thread = static_cast<int>(threadIdx.x);
  for (int i = thread; i < num_words; i += kThreads) words[i] = static_cast<uint32_t>(i);
  for (int i = thread; i < kFixedWords; i += kThreads) fixed[i] = static_cast<uint32_t>(i);
  __syncthreads();  // all is written
  uint32_t own = 0;
  for (int i = thread; i < num_words; i += kThreads) own += words[num_words - 1 - i];
  for (int i = thread; i < kFixedWords; i += kThreads) own += fixed[kFixedWords - 1 - i];
  atomicAdd(sum, own);
}

KERNEL_TEST("launches: static arrays beside the default's dynamic memory, and up to all that a block may have") {
  constexpr size_t kFixedBytes = kFixedWords * sizeof(uint32_t);
  const size_t most = Properties().sharedMemPerBlockOptin - kFixedBytes;
  for (const size_t num_bytes : {size_t{44} << 10, size_t{48} << 10, most}) {
    DeviceArray<uint32_t> sum(std::vector<uint32_t>{0});
    const auto num_words = static_cast<uint32_t>(num_bytes / sizeof(uint32_t));
    const LaunchShape shape = {.grid = dim3(1), .block = dim3(kThreads), .shared_bytes = num_bytes};
    EXPECT(Launch(FillKernel, shape, static_cast<int>(num_words), sum.data()) == cudaSuccess) << num_bytes;
    uint32_t want = 0;
    for (uint32_t i = 0; i < num_words; ++i) want += i;
    for (uint32_t i = 0; i < kFixedWords; ++i) want += i;
    EXPECT(sum.Download()[0] == want) << num_bytes;
  }
}

// Of blocks that have a multiprocessor each.
int CountClusters(unsigned cluster_blocks, unsigned num_asked) {
  int count = 0;
  RequireSuccess(CountActiveClusters(FillKernel,
                                     {.grid = dim3(cluster_blocks * num_asked),
                                      .block = dim3(kThreads),
                                      .shared_bytes = kLargestShared - kFixedWords * sizeof(uint32_t),
                                      .cluster_blocks = cluster_blocks},
                                     count),
                 "the number of clusters");
  return count;
}

KERNEL_TEST("clusters: a device tells how many of two and of four blocks it runs at once, whatever the grid") {
  const cudaDeviceProp device = Properties();
  if (device.major != 9) return;
  for (const unsigned cluster_blocks : {2u, 4u}) {
    const int count = CountClusters(cluster_blocks, 1024);
    std::printf("  %d clusters of %u on %d multiprocessors\n", count, cluster_blocks, device.multiProcessorCount);
    EXPECT(count >= 1 && count * static_cast<int>(cluster_blocks) <= device.multiProcessorCount) << count;
    EXPECT(CountClusters(cluster_blocks, 1) == count) << "of a grid of one";
  }
}

// As the warpgroup kernels are: two groups that multiply and one that fetches.
constexpr int kGroup = 128;
__global__ void __launch_bounds__(3 * kGroup, 1) HandOverKernel(int* out) {
  int* const own = out + blockIdx.x * blockDim.x + threadIdx.x;
  if (threadIdx.x < 2 * kGroup) {
    ptx::RaiseRegisters<232>();
    ptx::NamedBarrierWait(1, 2 * kGroup);
    *own = 232;
  } else {
    ptx::LowerRegisters<40>();
    *own = 40;
  }
}

KERNEL_TEST("registers: groups that multiply get what the one that fetches gives back") {
  if (Properties().major != 9) return;
  DeviceArray<int> out(static_cast<size_t>(kNumBlocks) * 3 * kGroup);
  EXPECT(Launch(HandOverKernel, {.grid = dim3(kNumBlocks), .block = dim3(3 * kGroup)}, out.data()) == cudaSuccess);
  const std::vector<int> got = out.Download();
  for (size_t i = 0; i < got.size(); ++i) EXPECT(got[i] == (i / kGroup % 3 < 2 ? 232 : 40)) << i;
}

// Whoever comes before another one's wait, or is let through too early, changes the result.
constexpr int kCount = kNumBlocks * kThreads;
__host__ __device__ uint32_t Mixed(uint32_t value, uint32_t salt) { return value * 2654435761u + salt; }
__host__ __device__ int Partner(int i) { return static_cast<int>((int64_t{i} * 31 + 17) % kCount); }
__global__ void __launch_bounds__(kThreads) MixKernel(const uint32_t* from, uint32_t* to, uint32_t salt) {
  ptx::GridDependencyLaunch();
  ptx::GridDependencyWait();
  const int i = static_cast<int>(blockIdx.x) * kThreads + static_cast<int>(threadIdx.x);
  to[i] = Mixed(from[Partner(i)], salt);
}

struct Chain {
  DeviceArray<uint32_t> a, b, spare;
  const bool has_clusters = Properties().major == 9;
  explicit Chain(const std::vector<uint32_t>& values) : a(values), b(values.size()), spare(values.size()) {}

  // With a launch of much shared memory, and two of clusters besides.
  void Run(cudaStream_t stream) {
    for (int step = 0; step < kNumSteps; ++step) {
      uint32_t* const from = step % 2 == 0 ? a.data() : b.data();
      uint32_t* const to = step % 2 == 0 ? b.data() : a.data();
      LaunchShape shape = {.grid = dim3(kNumBlocks),
                           .block = dim3(kThreads),
                           .shared_bytes = step == 3 ? kLargeShared : 0,
                           .stream = stream,
                           .is_dependent = true};
      const bool is_of_clusters = (step == 8 || step == 11) && has_clusters;
      if (is_of_clusters) shape.shared_bytes = kLargestShared, shape.cluster_blocks = step == 8 ? 2 : 4;
      EXPECT(Launch(MixKernel, shape, from, to, static_cast<uint32_t>(step)) == cudaSuccess) << "step" << step;
      if (step == 5) CopyAway(to, stream);
    }
  }
  // There and back, so that a dependent launch comes after what is no kernel.
  void CopyAway(uint32_t* values, cudaStream_t stream) {
    EXPECT(cudaMemcpyAsync(spare.data(), values, a.num_bytes(), cudaMemcpyDeviceToDevice, stream) == cudaSuccess);
    EXPECT(cudaMemsetAsync(values, 0, a.num_bytes(), stream) == cudaSuccess);
    EXPECT(cudaMemcpyAsync(values, spare.data(), a.num_bytes(), cudaMemcpyDeviceToDevice, stream) == cudaSuccess);
  }
};

void MixOnHost(std::vector<uint32_t>& values) {
  for (uint32_t step = 0; step < kNumSteps; ++step) {
    std::vector<uint32_t> next(values.size());
    for (int i = 0; i < kCount; ++i) {
      next[static_cast<size_t>(i)] = Mixed(values[static_cast<size_t>(Partner(i))], step);
    }
    values = std::move(next);
  }
}

// Behind everything that was asked for before it was made.
struct Stream {
  cudaStream_t stream = nullptr;
  Stream() {
    RequireSuccess(cudaDeviceSynchronize(), "a wait");
    RequireSuccess(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking), "a stream");
  }
  Stream(const Stream&) = delete;
  Stream& operator=(const Stream&) = delete;
  ~Stream() { cudaStreamDestroy(stream); }

  template <typename Body>
  cudaGraph_t Record(const Body& body) const {
    cudaGraph_t graph = nullptr;
    RequireSuccess(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal), "the beginning of a capture");
    body();
    RequireSuccess(cudaStreamEndCapture(stream, &graph), "the end of a capture");
    return graph;
  }
};

void TellEdges([[maybe_unused]] cudaGraph_t graph) {
#ifndef MILLRACE_SIMT
  size_t num_edges = 0, num_programmatic = 0;
  RequireSuccess(cudaGraphGetEdges(graph, nullptr, nullptr, nullptr, &num_edges), "the number of edges");
  std::vector<cudaGraphNode_t> from(num_edges), to(num_edges);
  std::vector<cudaGraphEdgeData> edges(num_edges);
  RequireSuccess(cudaGraphGetEdges(graph, from.data(), to.data(), edges.data(), &num_edges), "the edges");
  for (const cudaGraphEdgeData& edge : edges) {
    num_programmatic += edge.type == cudaGraphDependencyTypeProgrammatic ? 1 : 0;
  }
  std::printf("  %zu of %zu edges of the recorded chain are programmatic\n", num_programmatic, num_edges);
#endif
}

KERNEL_TEST("dependent launches: a chain of them keeps its order, launched and replayed, copies in its midst") {
  constexpr int kNumReplays = 5;
  static_assert(kNumSteps % 2 == 0, "ends where it began");
  Random random(3);
  std::vector<uint32_t> values(kCount);
  for (uint32_t& value : values) value = random.Bits();
  Chain chain(values);
  const Stream stream;
  chain.Run(stream.stream);
  MixOnHost(values);
  EXPECT(chain.a.Download() == values) << "launched";
  cudaGraph_t graph = stream.Record([&] { chain.Run(stream.stream); });
  TellEdges(graph);
  cudaGraphExec_t executable = nullptr;
  RequireSuccess(cudaGraphInstantiate(&executable, graph, 0), "a graph with dependent launches");
  for (int i = 0; i < kNumReplays; ++i) {
    RequireSuccess(cudaGraphLaunch(executable, stream.stream), "its launch");
    MixOnHost(values);
  }
  EXPECT(chain.a.Download() == values) << "replayed";
  cudaGraphExecDestroy(executable);
  cudaGraphDestroy(graph);
}

struct Payload {
  uint32_t words[128];  // as much as the largest kernels are given
};
__global__ void PayloadKernel(const Payload payload, uint32_t* out) {
  ptx::GridDependencyWait();
  ptx::GridDependencyLaunch();
  if (threadIdx.x == 0) *out = payload.words[5];
}

size_t FreeBytes() {
  size_t free_bytes = 0, total_bytes = 0;
  RequireSuccess(cudaDeviceSynchronize(), "a wait");
  RequireSuccess(cudaMemGetInfo(&free_bytes, &total_bytes), "the device's memory");
  return free_bytes;
}

KERNEL_TEST("graphs: a recorded kernel takes no more memory than the plan counts for it") {
  constexpr int kLayers = 32, kNodes = kOtherNodes + kLayerNodes * kLayers, kNumGraphs = 8;
  DeviceArray<uint32_t> out(1);
  const Stream stream;
  EXPECT(Launch(PayloadKernel, {.grid = dim3(1), .block = dim3(32)}, Payload{}, out.data()) ==
         cudaSuccess);  // loads it
  cudaGraph_t graph = stream.Record([&] {
    const LaunchShape shape = {.grid = dim3(1), .block = dim3(32), .stream = stream.stream, .is_dependent = true};
    for (int i = 0; i < kNodes; ++i) EXPECT(Launch(PayloadKernel, shape, Payload{}, out.data()) == cudaSuccess);
  });
  std::vector<cudaGraphExec_t> executables(kNumGraphs + 1, nullptr);
  size_t free_before = 0;
  for (size_t i = 0; i < executables.size(); ++i) {
    RequireSuccess(cudaGraphInstantiate(&executables[i], graph, 0), "a graph");
    RequireSuccess(cudaGraphLaunch(executables[i], stream.stream), "its launch");
    if (i == 0) free_before = FreeBytes();  // what the first takes once for all is no graph's
  }
  const size_t free_after = FreeBytes();
  const size_t taken = free_before > free_after ? free_before - free_after : 0;
  std::printf("  %d graphs of %d kernels take %zu KiB of the device's memory, %zu bytes a kernel\n", kNumGraphs, kNodes,
              taken >> 10, taken / kNumGraphs / kNodes);
  EXPECT(taken <= kNumGraphs * GraphBytes(kLayers)) << "the plan has" << kNumGraphs * GraphBytes(kLayers);
  for (cudaGraphExec_t executable : executables) cudaGraphExecDestroy(executable);
  cudaGraphDestroy(graph);
}

}  // namespace
}  // namespace millrace::cuda
