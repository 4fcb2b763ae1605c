// SPDX-License-Identifier: Apache-2.0
// The host calls that are not memory: errors, the device, streams, events, graphs and launches.
#include "tests/simt/emulator/runtime.h"

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstring>
#include <deque>
#include <map>
#include <mutex>
#include <set>
#include <utility>

#include "cuda_runtime.h"
#include "tests/simt/emulator/block.h"

struct CUgraph_st {
  std::vector<std::function<cudaError_t()>> works;
};
struct CUgraphExec_st {
  size_t num_bytes = 0;
  std::shared_ptr<const std::vector<std::function<cudaError_t()>>> works;
};
struct CUstream_st {
  bool is_capturing = false;
  bool is_capture_broken = false;
  CUgraph_st recorded;
  bool is_deferring = false;
  std::deque<std::function<cudaError_t()>> deferred;
  uint64_t num_done = 0;
};
struct CUevent_st {
  std::chrono::steady_clock::time_point recorded_at;
  // Reached when the stream has done so much; null: reached.
  cudaStream_t stream = nullptr;
  uint64_t num_before = 0;
};

namespace simt {
namespace {

constexpr size_t kMaxSharedBytes = 232448;  // sm_90's 227 KB
constexpr size_t kDefaultSharedBytes = 48 * 1024;
// Static arrays count too; which of them are a kernel's is not known here.
constexpr size_t kUnaskedSharedBytes = kDefaultSharedBytes / 2;
constexpr int kNumMultiprocessors = 4;
constexpr int kNumDevices = 4;  // which share memory, and are lost together

struct State {
  std::mutex mu;
  cudaError_t device = cudaSuccess;
  std::map<const void*, int> shared_bytes;  // what kernels have asked for
  // Streams belong to one thread at a time, as the backend's does.
  int num_deferring = 0;
  std::set<cudaStream_t> streams;
  HostWaits waits;
  size_t graph_bytes = 0;
};
State& TheState() {
  static State state;
  return state;
}
thread_local cudaError_t last_error = cudaSuccess;
thread_local int current_device = 0;
thread_local std::set<cudaStream_t> capturing;  // by this thread

bool IsLaunchable(const cudaLaunchConfig_t& config) {
  const dim3 &grid = config.gridDim, &block = config.blockDim;
  if (grid.x == 0 || grid.y == 0 || grid.z == 0 || block.x == 0 || block.y == 0 || block.z == 0) return false;
  if (grid.x > 0x7fffffffu || grid.y > 65535 || grid.z > 65535 || block.z > 64) return false;
  return uint64_t{block.x} * block.y * block.z <= 1024;
}

// What the emulator takes as one block's threads.
bool IsCluster(const cudaLaunchConfig_t& config, unsigned num_blocks) {
  const dim3& block = config.blockDim;
  return num_blocks >= 1 && num_blocks <= kMaxClusterBlocks && config.gridDim.x % num_blocks == 0 &&
         uint64_t{block.x} * block.y * block.z * num_blocks <= kMaxBlockThreads;
}

// Of a launch's clusters, 1 without; 0 where the device would refuse them.
int ClusterBlocks(const cudaLaunchConfig_t& config) {
  int num_blocks = 1;
  for (unsigned int i = 0; i < config.numAttrs; ++i) {
    if (config.attrs[i].id != cudaLaunchAttributeClusterDimension) continue;
    const auto& cluster = config.attrs[i].val.clusterDim;
    if (cluster.y != 1 || cluster.z != 1 || !IsCluster(config, cluster.x)) return 0;
    num_blocks = static_cast<int>(cluster.x);
  }
  return num_blocks;
}

// Until the stream has done `num_done` works. What fails shows in the device's state.
void RunDeferred(cudaStream_t stream, uint64_t num_done) {
  while (stream->num_done < num_done && !stream->deferred.empty()) {
    const std::function<cudaError_t()> work = std::move(stream->deferred.front());
    stream->deferred.pop_front();
    ++stream->num_done;
    static_cast<void>(Note(work()));
  }
}

void RunAllDeferred(cudaStream_t stream) { RunDeferred(stream, stream->num_done + stream->deferred.size()); }

bool HasShared(const void* kernel, size_t num_bytes) {
  const std::lock_guard<std::mutex> lock(TheState().mu);
  const auto found = TheState().shared_bytes.find(kernel);
  const size_t limit = found == TheState().shared_bytes.end() ? kUnaskedSharedBytes : found->second;
  return num_bytes <= limit;
}

}  // namespace

cudaError_t Note(cudaError_t error) {
  if (error != cudaSuccess) last_error = error;
  return error;
}
cudaError_t DeviceState() {
  const std::lock_guard<std::mutex> lock(TheState().mu);
  return TheState().device;
}
void LoseDevice() {
  const std::lock_guard<std::mutex> lock(TheState().mu);
  TheState().device = cudaErrorLaunchFailure;
}

cudaError_t RunOrRecord(cudaStream_t stream, std::function<cudaError_t()> work) {
  if (stream != nullptr && stream->is_capturing) {
    if (stream->is_capture_broken) return Note(cudaErrorStreamCaptureInvalidated);
    stream->recorded.works.push_back(std::move(work));
    return cudaSuccess;
  }
  if (!IsDeferring(stream)) return Note(work());
  stream->deferred.push_back(std::move(work));
  return DeviceState();
}

bool BreaksCapture() {
  for (cudaStream_t stream : capturing) stream->is_capture_broken = true;
  return !capturing.empty();
}

bool IsDeferring(cudaStream_t stream) { return stream != nullptr && stream->is_deferring; }

void FinishStreams() {
  ++TheState().waits.num_for_streams;
  for (cudaStream_t stream : TheState().streams) RunAllDeferred(stream);
}

DeferredStreams::DeferredStreams() { ++TheState().num_deferring; }
DeferredStreams::~DeferredStreams() { --TheState().num_deferring; }

void SetGraphBytes(size_t num_bytes) { TheState().graph_bytes = num_bytes; }

bool HasDeferredWork() {
  const auto& streams = TheState().streams;
  return std::any_of(streams.begin(), streams.end(), [](cudaStream_t stream) { return !stream->deferred.empty(); });
}

HostWaits TakeHostWaits() { return std::exchange(TheState().waits, {}); }

cudaError_t LaunchOrRecord(const cudaLaunchConfig_t& config, const void* kernel, void (*run)(const void* arguments),
                           std::shared_ptr<const void> arguments) {
  if (!IsLaunchable(config)) return Note(cudaErrorInvalidConfiguration);
  if (!HasShared(kernel, config.dynamicSmemBytes)) return Note(cudaErrorInvalidValue);
  LaunchRequest request;
  request.cluster_blocks = ClusterBlocks(config);
  if (request.cluster_blocks == 0) return Note(cudaErrorInvalidConfiguration);
  request.kernel = kernel;
  request.grid = config.gridDim;
  request.block = config.blockDim;
  request.shared_bytes = config.dynamicSmemBytes;
  request.run = run;
  for (unsigned int i = 0; i < config.numAttrs; ++i) {
    const cudaLaunchAttribute& attribute = config.attrs[i];
    request.is_dependent |= attribute.id == cudaLaunchAttributeProgrammaticStreamSerialization &&
                            attribute.val.programmaticStreamSerializationAllowed != 0;
  }
  return RunOrRecord(config.stream, [request, arguments = std::move(arguments)]() mutable {
    if (DeviceState() != cudaSuccess) return DeviceState();
    request.arguments = arguments.get();
    if (RunKernel(request)) return cudaSuccess;
    LoseDevice();
    return cudaErrorLaunchFailure;
  });
}

}  // namespace simt

// A real device stays lost for the life of the process; here the next test may go on once the error was taken.
cudaError_t cudaGetLastError() {
  const std::lock_guard<std::mutex> lock(simt::TheState().mu);
  const cudaError_t device = std::exchange(simt::TheState().device, cudaSuccess);
  const cudaError_t error = std::exchange(simt::last_error, cudaSuccess);
  return error != cudaSuccess ? error : device;
}
cudaError_t cudaPeekAtLastError() { return simt::last_error != cudaSuccess ? simt::last_error : simt::DeviceState(); }

const char* cudaGetErrorName(cudaError_t error) {
  switch (error) {
    case cudaSuccess:
      return "cudaSuccess";
    case cudaErrorInvalidValue:
      return "cudaErrorInvalidValue";
    case cudaErrorMemoryAllocation:
      return "cudaErrorMemoryAllocation";
    case cudaErrorInvalidConfiguration:
      return "cudaErrorInvalidConfiguration";
    case cudaErrorInvalidDevice:
      return "cudaErrorInvalidDevice";
    case cudaErrorLaunchFailure:
      return "cudaErrorLaunchFailure";
    case cudaErrorStreamCaptureUnsupported:
      return "cudaErrorStreamCaptureUnsupported";
    case cudaErrorStreamCaptureInvalidated:
      return "cudaErrorStreamCaptureInvalidated";
    default:
      return "another CUDA error";
  }
}
const char* cudaGetErrorString(cudaError_t error) { return cudaGetErrorName(error); }

cudaError_t cudaGetDeviceCount(int* count) {
  *count = simt::kNumDevices;
  return cudaSuccess;
}
cudaError_t cudaSetDevice(int device) {
  if (device < 0 || device >= simt::kNumDevices) return simt::Note(cudaErrorInvalidDevice);
  simt::current_device = device;
  return cudaSuccess;
}
cudaError_t cudaGetDevice(int* device) {
  *device = simt::current_device;
  return cudaSuccess;
}
cudaError_t cudaGetDeviceProperties(cudaDeviceProp* properties, int device) {
  if (device < 0 || device >= simt::kNumDevices) return simt::Note(cudaErrorInvalidDevice);
  *properties = {};
  std::snprintf(properties->name, sizeof(properties->name), "emulated device");
  properties->totalGlobalMem = size_t{8} << 30;
  properties->sharedMemPerBlock = simt::kDefaultSharedBytes;
  properties->sharedMemPerBlockOptin = simt::kMaxSharedBytes;
  properties->sharedMemPerMultiprocessor = simt::kMaxSharedBytes + 1024;
  properties->regsPerBlock = 65536;
  properties->warpSize = 32;
  properties->maxThreadsPerBlock = 1024;
  properties->maxThreadsPerMultiProcessor = 2048;
  properties->multiProcessorCount = simt::kNumMultiprocessors;
  properties->major = 9;
  properties->l2CacheSize = 1 << 20;
  properties->memoryBusWidth = 64;
  return cudaSuccess;
}
cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int device) {
  cudaDeviceProp properties;
  const cudaError_t error = cudaGetDeviceProperties(&properties, device);
  if (error != cudaSuccess) return error;
  switch (attribute) {
    case cudaDevAttrMaxSharedMemoryPerBlock:
      *value = static_cast<int>(properties.sharedMemPerBlock);
      return cudaSuccess;
    case cudaDevAttrMultiProcessorCount:
      *value = properties.multiProcessorCount;
      return cudaSuccess;
    case cudaDevAttrL2CacheSize:
      *value = properties.l2CacheSize;
      return cudaSuccess;
    case cudaDevAttrComputeCapabilityMajor:
      *value = properties.major;
      return cudaSuccess;
    case cudaDevAttrComputeCapabilityMinor:
      *value = properties.minor;
      return cudaSuccess;
    case cudaDevAttrMaxSharedMemoryPerMultiprocessor:
      *value = static_cast<int>(properties.sharedMemPerMultiprocessor);
      return cudaSuccess;
    case cudaDevAttrMaxSharedMemoryPerBlockOptin:
      *value = static_cast<int>(properties.sharedMemPerBlockOptin);
      return cudaSuccess;
  }
  return simt::Note(cudaErrorInvalidValue);
}
cudaError_t cudaDeviceSynchronize() {
  if (simt::BreaksCapture()) return simt::Note(cudaErrorStreamCaptureUnsupported);
  simt::FinishStreams();
  return simt::Note(simt::DeviceState());
}
cudaError_t cudaDriverGetVersion(int* version) {
  *version = 13000;
  return cudaSuccess;
}
cudaError_t cudaRuntimeGetVersion(int* version) { return cudaDriverGetVersion(version); }

cudaError_t cudaFuncSetAttribute(const void* kernel, cudaFuncAttribute attribute, int value) {
  if (attribute != cudaFuncAttributeMaxDynamicSharedMemorySize) return cudaSuccess;
  if (value < 0 || value > static_cast<int>(simt::kMaxSharedBytes)) return simt::Note(cudaErrorInvalidValue);
  const std::lock_guard<std::mutex> lock(simt::TheState().mu);
  simt::TheState().shared_bytes[kernel] = value;
  return cudaSuccess;
}

// As if one GPC had all multiprocessors, and each room for one block.
cudaError_t cudaOccupancyMaxActiveClusters(int* num_clusters, const void* kernel, const cudaLaunchConfig_t* config) {
  const int cluster_blocks = simt::IsLaunchable(*config) ? simt::ClusterBlocks(*config) : 0;
  if (cluster_blocks == 0) return simt::Note(cudaErrorInvalidConfiguration);
  if (!simt::HasShared(kernel, config->dynamicSmemBytes)) return simt::Note(cudaErrorInvalidValue);
  *num_clusters = simt::kNumMultiprocessors / cluster_blocks;
  return cudaSuccess;
}

cudaError_t cudaStreamCreate(cudaStream_t* stream) {
  *stream = new CUstream_st();
  (*stream)->is_deferring = simt::TheState().num_deferring > 0;
  simt::TheState().streams.insert(*stream);
  return cudaSuccess;
}
cudaError_t cudaStreamCreateWithFlags(cudaStream_t* stream, unsigned int) { return cudaStreamCreate(stream); }
cudaError_t cudaStreamCreateWithPriority(cudaStream_t* stream, unsigned int, int) { return cudaStreamCreate(stream); }
cudaError_t cudaStreamDestroy(cudaStream_t stream) {
  simt::RunAllDeferred(stream);
  simt::TheState().streams.erase(stream);
  delete stream;
  return cudaSuccess;
}
cudaError_t cudaStreamSynchronize(cudaStream_t stream) {
  if (stream != nullptr && stream->is_capturing) {
    stream->is_capture_broken = true;
    return simt::Note(cudaErrorStreamCaptureUnsupported);
  }
  ++simt::TheState().waits.num_for_streams;
  if (stream != nullptr) simt::RunAllDeferred(stream);
  return simt::Note(simt::DeviceState());
}
cudaError_t cudaStreamQuery(cudaStream_t stream) {
  if (simt::IsDeferring(stream) && !stream->deferred.empty()) return cudaErrorNotReady;
  return simt::Note(simt::DeviceState());
}
cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t event, unsigned int) {
  if (event->stream == nullptr) return cudaSuccess;
  return simt::RunOrRecord(stream, [before = event->stream, num_done = event->num_before] {
    simt::RunDeferred(before, num_done);
    return cudaSuccess;
  });
}
cudaError_t cudaLaunchHostFunc(cudaStream_t stream, cudaHostFn_t function, void* user_data) {
  return simt::RunOrRecord(stream, [function, user_data] {
    function(user_data);
    return cudaSuccess;
  });
}

cudaError_t cudaEventCreate(cudaEvent_t* event) {
  *event = new CUevent_st();
  return cudaSuccess;
}
cudaError_t cudaEventCreateWithFlags(cudaEvent_t* event, unsigned int) { return cudaEventCreate(event); }
cudaError_t cudaEventDestroy(cudaEvent_t event) {
  delete event;
  return cudaSuccess;
}
cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream) {
  event->stream = simt::IsDeferring(stream) ? stream : nullptr;
  if (event->stream != nullptr) event->num_before = stream->num_done + stream->deferred.size() + 1;  // with this
  return simt::RunOrRecord(stream, [event] {
    event->recorded_at = std::chrono::steady_clock::now();
    return cudaSuccess;
  });
}
cudaError_t cudaEventSynchronize(cudaEvent_t event) {
  ++simt::TheState().waits.num_for_events;
  if (event->stream != nullptr) simt::RunDeferred(event->stream, event->num_before);
  return simt::Note(simt::DeviceState());
}
cudaError_t cudaEventQuery(cudaEvent_t event) {
  if (event->stream != nullptr && event->stream->num_done < event->num_before) return cudaErrorNotReady;
  return simt::Note(simt::DeviceState());
}
cudaError_t cudaEventElapsedTime(float* milliseconds, cudaEvent_t start, cudaEvent_t end) {
  *milliseconds = std::chrono::duration<float, std::milli>(end->recorded_at - start->recorded_at).count();
  return cudaSuccess;
}

cudaError_t cudaStreamBeginCapture(cudaStream_t stream, cudaStreamCaptureMode) {
  if (stream == nullptr || stream->is_capturing) return simt::Note(cudaErrorStreamCaptureUnsupported);
  stream->is_capturing = true;
  stream->is_capture_broken = false;
  stream->recorded.works.clear();
  simt::capturing.insert(stream);
  return cudaSuccess;
}
cudaError_t cudaStreamEndCapture(cudaStream_t stream, cudaGraph_t* graph) {
  *graph = nullptr;
  if (stream == nullptr || !stream->is_capturing) return simt::Note(cudaErrorInvalidValue);
  stream->is_capturing = false;
  simt::capturing.erase(stream);
  if (stream->is_capture_broken) return simt::Note(cudaErrorStreamCaptureInvalidated);
  *graph = new CUgraph_st(std::move(stream->recorded));
  stream->recorded.works.clear();
  return cudaSuccess;
}
cudaError_t cudaStreamIsCapturing(cudaStream_t stream, cudaStreamCaptureStatus* status) {
  const bool is_capturing = stream != nullptr && stream->is_capturing;
  *status = is_capturing ? cudaStreamCaptureStatusActive : cudaStreamCaptureStatusNone;
  return cudaSuccess;
}
cudaError_t cudaGraphInstantiate(cudaGraphExec_t* executable, cudaGraph_t graph, unsigned long long) {
  const size_t num_bytes = simt::TheState().graph_bytes;
  simt::TakeBytes(static_cast<int64_t>(num_bytes));
  *executable =
      new CUgraphExec_st{num_bytes, std::make_shared<const std::vector<std::function<cudaError_t()>>>(graph->works)};
  return cudaSuccess;
}
cudaError_t cudaGraphLaunch(cudaGraphExec_t executable, cudaStream_t stream) {
  return simt::RunOrRecord(stream, [works = executable->works] {
    for (const auto& work : *works) {
      const cudaError_t error = work();
      if (error != cudaSuccess) return error;
    }
    return cudaSuccess;
  });
}
cudaError_t cudaGraphUpload(cudaGraphExec_t, cudaStream_t) { return cudaSuccess; }
cudaError_t cudaGraphDestroy(cudaGraph_t graph) {
  delete graph;
  return cudaSuccess;
}
cudaError_t cudaGraphExecDestroy(cudaGraphExec_t executable) {
  simt::TakeBytes(-static_cast<int64_t>(executable->num_bytes));
  delete executable;
  return cudaSuccess;
}
