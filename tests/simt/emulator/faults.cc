// SPDX-License-Identifier: Apache-2.0
#include "tests/simt/emulator/faults.h"

#include <optional>
#include <set>

namespace simt {
namespace {

struct Faults {
  std::optional<PlantedFault> planted;
  std::set<Call> calls;
  bool is_recording = false;
};
Faults& TheFaults() {
  static Faults faults;
  return faults;
}

}  // namespace

void PlantFault(const PlantedFault& fault) { TheFaults().planted = fault; }
void TakeOutFault() { TheFaults().planted.reset(); }

void RecordCalls() {
  TheFaults().calls.clear();
  TheFaults().is_recording = true;
}
std::vector<Call> TakeCalls() {
  TheFaults().is_recording = false;
  return {TheFaults().calls.begin(), TheFaults().calls.end()};
}

bool IsFaulty(const Call& call, FaultKind kind) {
  Faults& faults = TheFaults();
  if (faults.is_recording) faults.calls.insert(call);
  return faults.planted.has_value() && faults.planted->kind == kind && faults.planted->call == call;
}

}  // namespace simt
