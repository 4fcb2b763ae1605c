// SPDX-License-Identifier: Apache-2.0
#include "server/grpc/health_reporter.h"

#include <utility>

#include "absl/time/clock.h"

namespace millrace {
namespace {

// "" (the server as a whole) is reported by SetServingStatus(bool) too.
constexpr const char* kServices[] = {"millrace.v1.Inference", "millrace.v1.Agents", "inference.GRPCInferenceService"};

}  // namespace

HealthReporter::HealthReporter(grpc::HealthCheckServiceInterface* service, std::function<bool()> is_ready,
                               absl::Duration interval)
    : service_(service), is_ready_(std::move(is_ready)), interval_(interval) {
  absl::MutexLock lock(&mu_);
  for (const char* name : kServices) service_->SetServingStatus(name, false);
  service_->SetServingStatus(false);
  Report(is_ready_());
  Arm();
}

HealthReporter::~HealthReporter() {
  Stop();
  alarm_.Cancel();
  absl::MutexLock lock(&mu_);
  mu_.Await(absl::Condition(+[](bool* is_armed) { return !*is_armed; }, &is_armed_));
}

void HealthReporter::Arm() {
  is_armed_ = true;
  alarm_.Set(absl::ToChronoTime(absl::Now() + interval_), [this](bool) { OnAlarm(); });
}

void HealthReporter::OnAlarm() {
  absl::MutexLock lock(&mu_);
  if (is_stopped_) {
    is_armed_ = false;
    return;
  }
  Report(is_ready_());
  Arm();
}

void HealthReporter::Report(bool is_ready) {
  if (is_ready == was_ready_) return;
  was_ready_ = is_ready;
  service_->SetServingStatus(is_ready);
  for (const char* name : kServices) service_->SetServingStatus(name, is_ready);
}

void HealthReporter::Stop() {
  absl::MutexLock lock(&mu_);
  is_stopped_ = true;
  Report(false);
}

}  // namespace millrace
