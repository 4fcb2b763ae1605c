// SPDX-License-Identifier: Apache-2.0
#pragma once
// How the ranks that compute a model together exchange activations. One for each rank, made by Device::Connect for all
// of them; used by the rank's thread, Abort and status by any. Every rank makes the same calls in the same order: a
// call takes effect on all of them, in order with the ops of its own device.
#include "absl/status/status.h"
#include "kernels/tensor.h"

namespace millrace {

class Communicator {
 public:
  virtual ~Communicator() = default;

  // matrix = the sum of the ranks' matrices [T, C], the same bits on each. REQUIRES: stride = cols.
  virtual void AllReduceSum(const Matrix& matrix) = 0;
  // whole [R, N * C] = the ranks' parts side by side, on each. `parts` [N * R, C]: this rank's are rows [rank * R,
  // ...), the rest is scratch. REQUIRES: float32, strides = cols.
  virtual void GatherColumns(const Matrix& parts, const Matrix& whole) = 0;

  // Ends what ranks wait for in each other, now and from now on; what they exchanged means nothing any more. The first
  // reason stays. REQUIRES: not OK.
  virtual void Abort(const absl::Status& why) = 0;
  // The reason of Abort, or a fault of the exchange itself.
  virtual absl::Status status() const = 0;
};

}  // namespace millrace
