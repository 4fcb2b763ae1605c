// SPDX-License-Identifier: Apache-2.0
// Rows to their experts and back: out[place] = x[rows[place]], and out[row] = residual[row] + sum of weight * x[place]
// in the order of the row's choices.
#include <cstring>

#include "kernels/cpu/expert_functions.h"

namespace millrace::cpu {

void DispatchRows(const DispatchArgs& args, const OpContext& context) {
  const size_t row_bytes = static_cast<size_t>(args.x.cols) * sizeof(float);
  context.pool.ParallelFor(args.out.rows, [&](int64_t begin, int64_t end, int /*worker*/) {
    for (int64_t place = begin; place < end; ++place) {
      const float* from = static_cast<const float*>(args.x.data) + args.routes.rows[place] * args.x.stride;
      std::memcpy(static_cast<float*>(args.out.data) + place * args.out.stride, from, row_bytes);
    }
  });
}

void CombineRows(const CombineArgs& args, const OpContext& context) {
  const size_t row_bytes = static_cast<size_t>(args.out.cols) * sizeof(float);
  const int num_choices = args.routes.num_choices;
  context.pool.ParallelFor(args.out.rows, [&](int64_t begin, int64_t end, int /*worker*/) {
    for (int64_t row = begin; row < end; ++row) {
      float* out = static_cast<float*>(args.out.data) + row * args.out.stride;
      if (args.residual == nullptr) {
        std::memset(out, 0, row_bytes);
      } else if (args.residual != args.out.data) {
        std::memcpy(out, static_cast<const float*>(args.residual) + row * args.out.stride, row_bytes);
      }
      for (int64_t choice = row * num_choices; choice < (row + 1) * num_choices; ++choice) {
        const float weight = args.routes.weights[choice];
        const float* x = static_cast<const float*>(args.x.data) + args.routes.places[choice] * args.x.stride;
        for (int64_t c = 0; c < args.out.cols; ++c) out[c] += weight * x[c];
      }
    }
  });
}

}  // namespace millrace::cpu
