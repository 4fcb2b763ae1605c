// SPDX-License-Identifier: Apache-2.0
// A stand-in for NCCL among emulated devices: ranks meet in the threads that launch, and add in the order of the ranks.
// It checks what the library would hang or fail on: every rank's calls must be the same. And like the library it takes
// memory when it first needs it.
#include "kernels/cuda/backend/nccl.h"

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <cstring>
#include <map>
#include <memory>
#include <mutex>
#include <vector>

#include "tests/simt/emulator/runtime.h"

namespace {

constexpr int kFloat16 = 6, kFloat32 = 7, kBFloat16 = 9;
constexpr size_t kMuch = size_t{1} << 22;  // elements
constexpr int kSuccess = 0, kInvalidArgument = 4, kInvalidUsage = 5;

// What a rank brings to a meeting.
struct Call {
  const void* send;
  void* receive;
  size_t count;
  int dtype;
  bool is_sum;
};

struct World {
  std::mutex mu;
  std::condition_variable changed;
  std::vector<Call> calls;
  size_t num_waiting = 0;
  uint64_t turn = 0;
  bool is_aborted = false;
  bool is_mismatched = false;

  // False: aborted before all came.
  bool Meet(size_t rank, const Call& call) {
    std::unique_lock<std::mutex> lock(mu);
    if (is_aborted) return false;
    calls[rank] = call;
    const uint64_t mine = turn;
    if (++num_waiting == calls.size()) {
      num_waiting = 0;
      ++turn;
      for (const Call& each : calls) {
        is_mismatched |= each.count != call.count || each.dtype != call.dtype || each.is_sum != call.is_sum;
      }
      changed.notify_all();
    }
    changed.wait(lock, [&] { return turn != mine || is_aborted; });
    return turn != mine;
  }
};

size_t BytesOf(int dtype) { return dtype == kFloat32 ? 4 : 2; }

float Load(const void* data, size_t index, int dtype) {
  if (dtype == kFloat32) return static_cast<const float*>(data)[index];
  if (dtype == kFloat16) return static_cast<float>(static_cast<const _Float16*>(data)[index]);
  const uint32_t bits = uint32_t{static_cast<const uint16_t*>(data)[index]} << 16;
  float value = 0;
  std::memcpy(&value, &bits, sizeof(value));
  return value;
}

void Store(void* data, size_t index, float value, int dtype) {
  if (dtype == kFloat32) {
    static_cast<float*>(data)[index] = value;
    return;
  }
  if (dtype == kFloat16) {
    static_cast<_Float16*>(data)[index] = static_cast<_Float16>(value);
    return;
  }
  uint32_t bits = 0;
  std::memcpy(&bits, &value, sizeof(bits));
  static_cast<uint16_t*>(data)[index] = static_cast<uint16_t>((bits + 0x7fff + ((bits >> 16) & 1)) >> 16);
}

std::mutex worlds_mu;
uint64_t num_worlds = 0;
std::map<uint64_t, std::shared_ptr<World>> worlds;

std::atomic<size_t> exchange_bytes{0};

// Memory that is taken at most once.
class Held {
 public:
  Held() = default;
  ~Held() { simt::TakeBytes(-static_cast<int64_t>(num_bytes_)); }
  Held(const Held&) = delete;
  Held& operator=(const Held&) = delete;
  void Take() {
    if (is_taken_) return;
    is_taken_ = true;
    num_bytes_ = exchange_bytes;
    simt::TakeBytes(static_cast<int64_t>(num_bytes_));
  }

 private:
  bool is_taken_ = false;
  size_t num_bytes_ = 0;
};

}  // namespace

struct ncclComm {
  std::shared_ptr<World> world;
  size_t rank;
  Held itself, small_sums, large_sums, gathers;
};

namespace {

cudaError_t Exchange(World& world, size_t rank, const Call& call) {
  if (!world.Meet(rank, call)) return cudaSuccess;
  const size_t num_ranks = world.calls.size();
  // This rank's share of every rank's result.
  const size_t begin = call.count * rank / num_ranks, end = call.count * (rank + 1) / num_ranks;
  if (call.is_sum) {
    for (size_t i = begin; i < end; ++i) {
      float sum = 0;
      for (const Call& each : world.calls) sum += Load(each.send, i, call.dtype);
      for (const Call& each : world.calls) Store(each.receive, i, sum, call.dtype);
    }
  } else {
    const size_t num_bytes = call.count * BytesOf(call.dtype);
    for (const Call& each : world.calls) {
      std::memmove(static_cast<char*>(each.receive) + rank * num_bytes, call.send, num_bytes);
    }
  }
  world.Meet(rank, call);
  return cudaSuccess;
}

int Launch(const Call& call, ncclComm* comm, cudaStream_t stream) {
  if (call.dtype != kFloat16 && call.dtype != kFloat32 && call.dtype != kBFloat16) return kInvalidArgument;
  (!call.is_sum ? comm->gathers : call.count < kMuch ? comm->small_sums : comm->large_sums).Take();
  const auto exchange = [world = comm->world, rank = comm->rank, call] { return Exchange(*world, rank, call); };
  return simt::RunOrRecord(stream, exchange) == cudaSuccess ? kSuccess : 1;
}

}  // namespace

namespace simt {
void SetExchangeBytes(size_t num_bytes) { exchange_bytes = num_bytes; }
}  // namespace simt

extern "C" {

int ncclGetUniqueId(ncclUniqueId* id) {
  const std::lock_guard<std::mutex> lock(worlds_mu);
  ++num_worlds;
  std::memcpy(id->internal, &num_worlds, sizeof(num_worlds));
  return kSuccess;
}

int ncclCommInitRank(ncclComm** comm, int num_ranks, ncclUniqueId id, int rank) {
  uint64_t key = 0;
  std::memcpy(&key, id.internal, sizeof(key));
  const std::lock_guard<std::mutex> lock(worlds_mu);
  std::shared_ptr<World>& world = worlds[key];
  if (world == nullptr) world = std::make_shared<World>();
  world->calls.resize(static_cast<size_t>(num_ranks));
  *comm = new ncclComm{
      .world = world, .rank = static_cast<size_t>(rank), .itself{}, .small_sums{}, .large_sums{}, .gathers{}};
  (*comm)->itself.Take();
  return kSuccess;
}

int ncclCommAbort(ncclComm* comm) {
  {
    const std::lock_guard<std::mutex> lock(comm->world->mu);
    comm->world->is_aborted = true;
    comm->world->changed.notify_all();
  }
  delete comm;
  return kSuccess;
}

int ncclCommGetAsyncError(ncclComm* comm, int* error) {
  const std::lock_guard<std::mutex> lock(comm->world->mu);
  *error = comm->world->is_mismatched ? kInvalidUsage : kSuccess;
  return kSuccess;
}

int ncclGroupStart() { return kSuccess; }
int ncclGroupEnd() { return kSuccess; }

int ncclAllReduce(const void* send, void* receive, size_t count, int dtype, int op, ncclComm* comm,
                  cudaStream_t stream) {
  if (op != 0) return kInvalidArgument;
  return Launch({send, receive, count, dtype, true}, comm, stream);
}
int ncclAllGather(const void* send, void* receive, size_t send_count, int dtype, ncclComm* comm, cudaStream_t stream) {
  return Launch({send, receive, send_count, dtype, false}, comm, stream);
}

const char* ncclGetErrorString(int result) {
  return result == kInvalidUsage ? "invalid usage" : result == kInvalidArgument ? "invalid argument" : "an error";
}
}
