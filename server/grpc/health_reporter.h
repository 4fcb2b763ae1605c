// SPDX-License-Identifier: Apache-2.0
#pragma once
// Tells gRPC's own health service (grpc.health.v1) what ServerState says, from time to time, on gRPC's threads.
#include <grpcpp/alarm.h>
#include <grpcpp/grpcpp.h>

#include <functional>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"

namespace millrace {

class HealthReporter {
 public:
  // `service` (gRPC's own, of a started server) outlives the reporter.
  HealthReporter(grpc::HealthCheckServiceInterface* service, std::function<bool()> is_ready, absl::Duration interval);
  ~HealthReporter();  // waits for a report under way

  // NOT_SERVING for good.
  void Stop();

 private:
  void Arm() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void OnAlarm();
  void Report(bool is_ready) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);

  grpc::HealthCheckServiceInterface* const service_;
  const std::function<bool()> is_ready_;
  const absl::Duration interval_;
  absl::Mutex mu_;
  grpc::Alarm alarm_;
  bool is_armed_ ABSL_GUARDED_BY(mu_) = false;
  bool is_stopped_ ABSL_GUARDED_BY(mu_) = false;
  bool was_ready_ ABSL_GUARDED_BY(mu_) = false;
};

}  // namespace millrace
