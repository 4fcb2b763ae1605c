// SPDX-License-Identifier: Apache-2.0
// out[r] = x[rows[r]].
#include <cstring>

#include "kernels/cpu/op_context.h"
#include "kernels/ops.h"

namespace millrace::cpu {

void GatherRows(const GatherRowsArgs& args, const OpContext& /*context*/) {
  for (size_t r = 0; r < args.rows.size(); ++r) {
    const float* from = static_cast<const float*>(args.x.data) + args.rows[r] * args.x.stride;
    float* to = static_cast<float*>(args.out.data) + static_cast<int64_t>(r) * args.out.stride;
    std::memcpy(to, from, static_cast<size_t>(args.x.cols) * sizeof(float));
  }
}

}  // namespace millrace::cpu
