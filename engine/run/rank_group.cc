// SPDX-License-Identifier: Apache-2.0
#include "engine/run/rank_group.h"

#include <string_view>
#include <utility>

#include "engine/load/model_part.h"
#include "kernels/status_macros.h"

namespace millrace {
namespace {

absl::StatusOr<std::unique_ptr<Model>> LoadPart(const ModelInfo& part, LoadOptions load, const ModelLimits& limits,
                                                Device& device) {
  if (load.on_progress) {
    load.on_progress = [report = load.on_progress, ranks = part.part](std::string_view stage, double fraction) {
      report(stage, (ranks.rank + fraction) / ranks.num_ranks);
    };
  }
  ASSIGN_OR_RETURN(ModelWeights weights, LoadWeights(part, load, device));
  return Model::Create(part, std::move(weights), limits, device);
}

}  // namespace

RankGroup::RankGroup(std::vector<Rank> ranks) : ranks_(std::move(ranks)) {
  for (size_t rank = 0; rank < ranks_.size(); ++rank) threads_.emplace_back([this, rank] { Work(rank); });
}

RankGroup::~RankGroup() {
  {
    absl::MutexLock lock(&mu_);
    is_stopping_ = true;
  }
  for (std::thread& thread : threads_) thread.join();
}

void RankGroup::Start(std::function<void(Model&)> task, Then then) {
  Finish();
  absl::MutexLock lock(&mu_);
  task_ = std::move(task);
  then_ = then;
  num_busy_ = ranks_.size();
  ++num_started_;
}

void RankGroup::Finish() {
  absl::MutexLock lock(&mu_);
  const auto are_done = [this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) { return num_busy_ == 0; };
  mu_.Await(absl::Condition(&are_done));
}

void RankGroup::Settle() {
  {
    absl::MutexLock lock(&mu_);
    if (then_ == Then::kWait) return;
  }
  Start([](Model&) {}, Then::kWait);
}

void RankGroup::Work(size_t rank) {
  Model& model = *ranks_[rank].model;
  uint64_t num_done = 0;
  while (true) {
    const std::function<void(Model&)>* task = nullptr;
    Then then = Then::kGoOn;
    {
      absl::MutexLock lock(&mu_);
      const auto has_work = [&]()
                                ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) { return is_stopping_ || num_started_ != num_done; };
      mu_.Await(absl::Condition(&has_work));
      if (num_started_ == num_done) return;
      // Stays as it is until every rank has finished it.
      task = &task_;
      then = then_;
    }
    (*task)(model);
    // A fault stays in the communicator, where rank 0 finds it.
    if (then == Then::kWait) static_cast<void>(model.Wait());
    ++num_done;
    absl::MutexLock lock(&mu_);
    --num_busy_;
  }
}

absl::StatusOr<RankDevices> ConnectRanks(std::vector<std::unique_ptr<Device>> devices) {
  RankDevices ranks{.devices = std::move(devices), .communicators = {}};
  if (ranks.devices.size() == 1) return ranks;
  std::vector<Device*> connected;
  for (const auto& device : ranks.devices) connected.push_back(device.get());
  ASSIGN_OR_RETURN(ranks.communicators, connected[0]->Connect(connected));
  return ranks;
}

absl::StatusOr<std::unique_ptr<Model>> LoadModel(const ModelInfo& whole, const LoadOptions& load,
                                                 const ModelLimits& limits, RankDevices& ranks) {
  std::vector<std::unique_ptr<Device>>& devices = ranks.devices;
  if (devices.size() == 1) return LoadPart(whole, load, limits, *devices[0]);
  std::unique_ptr<Model> leader;
  std::vector<Rank> followers;
  for (size_t rank = 0; rank < devices.size(); ++rank) {
    ASSIGN_OR_RETURN(const ModelInfo part,
                     PartOf(whole, static_cast<int32_t>(rank), static_cast<int32_t>(devices.size())));
    ASSIGN_OR_RETURN(std::unique_ptr<Model> model, LoadPart(part, load, limits, *devices[rank]));
    model->Join(std::move(ranks.communicators[rank]));
    if (rank == 0) {
      leader = std::move(model);
    } else {
      followers.push_back({.device = std::move(devices[rank]), .model = std::move(model)});
    }
  }
  devices.resize(1);
  leader->Lead(std::make_unique<RankGroup>(std::move(followers)));
  return leader;
}

}  // namespace millrace
