// SPDX-License-Identifier: Apache-2.0
#pragma once
// The ranks of an engine beside the first (docs/parallel.md): each a device, a part of the model and a thread that
// computes what rank 0 computes, at the same time. Owned by rank 0's Model; its calls are the engine thread's.
#include <cstdint>
#include <functional>
#include <memory>
#include <thread>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "engine/load/model_weights.h"
#include "engine/run/model.h"
#include "kernels/device.h"

namespace millrace {

struct Rank {
  std::unique_ptr<Device> device;
  std::unique_ptr<Model> model;  // joined to the others
};

class RankGroup {
 public:
  // What a rank does after its task: kWait lets its device's faults surface, which ends what others wait for in it.
  enum class Then { kGoOn, kWait };

  explicit RankGroup(std::vector<Rank> ranks);
  ~RankGroup();
  RankGroup(const RankGroup&) = delete;
  RankGroup& operator=(const RankGroup&) = delete;

  // Has every rank do `task`, once all have finished the one before.
  void Start(std::function<void(Model&)> task, Then then);
  // Waits until all have finished.
  void Finish();
  // Has their devices waited for, unless the last task was started so.
  void Settle();

 private:
  void Work(size_t rank);

  const std::vector<Rank> ranks_;
  absl::Mutex mu_;
  std::function<void(Model&)> task_ ABSL_GUARDED_BY(mu_);
  Then then_ ABSL_GUARDED_BY(mu_) = Then::kWait;
  uint64_t num_started_ ABSL_GUARDED_BY(mu_) = 0;
  size_t num_busy_ ABSL_GUARDED_BY(mu_) = 0;
  bool is_stopping_ ABSL_GUARDED_BY(mu_) = false;
  std::vector<std::thread> threads_;
};

// A device for each rank, and how it reaches the others, which takes of its memory.
struct RankDevices {
  std::vector<std::unique_ptr<Device>> devices;
  std::vector<std::unique_ptr<Communicator>> communicators;  // none where there is one device
};
absl::StatusOr<RankDevices> ConnectRanks(std::vector<std::unique_ptr<Device>> devices);

// A model over the ranks' devices, with a part on each: rank 0's, which leads the others and takes over all but its own
// device. With one device just the model. InvalidArgument: it does not divide. Loading thread.
absl::StatusOr<std::unique_ptr<Model>> LoadModel(const ModelInfo& whole, const LoadOptions& load,
                                                 const ModelLimits& limits, RankDevices& ranks);

}  // namespace millrace
