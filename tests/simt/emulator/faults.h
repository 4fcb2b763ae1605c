// SPDX-License-Identifier: Apache-2.0
#pragma once
// Mistakes that a test plants in a kernel while it runs, to see that they are found: a wrapper that waits, fences or
// copies does otherwise than it says where it is called at one place.
#include <compare>
#include <cstdint>
#include <string_view>
#include <vector>

namespace simt {

struct Call {
  std::string_view wrapper;
  int place = 0;                 // the line, or a named barrier's number
  const void* object = nullptr;  // a barrier in shared memory, a tensor's data
  auto operator<=>(const Call&) const = default;
};
enum class FaultKind : uint8_t {
  kSkipped,          // no wait, no fence
  kOtherPhase,       // waits for the other parity
  kNextBox,          // copies the box below
  kHalfTheArrivals,  // does not wait for the others
};
struct PlantedFault {
  Call call;
  FaultKind kind;
};

// Of all kernels that run until the fault is taken out again.
void PlantFault(const PlantedFault& fault);
void TakeOutFault();
// What was called since RecordCalls, each once; ends the recording.
void RecordCalls();
std::vector<Call> TakeCalls();

// The emulator's: whether the running call goes wrong in this way.
bool IsFaulty(const Call& call, FaultKind kind);

}  // namespace simt
