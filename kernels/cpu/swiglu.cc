// SPDX-License-Identifier: Apache-2.0
// out = gate * sigmoid(gate) * up (arXiv 2002.05202).
#include <cmath>

#include "kernels/cpu/elementwise.h"
#include "kernels/cpu/op_context.h"
#include "kernels/ops.h"

namespace millrace::cpu {

void SwiGlu(const SwiGluArgs& args, const OpContext& context) {
  const int64_t cols = args.out.cols;
  context.pool.ParallelFor(args.out.rows, [&](int64_t begin, int64_t end, int /*worker*/) {
    for (int64_t r = begin; r < end; ++r) {
      const float* gate = static_cast<const float*>(args.gate_up.data) + r * args.gate_up.stride;
      const float* up = gate + cols;
      float* out = static_cast<float*>(args.out.data) + r * args.out.stride;
      if (context.path == CpuPath::kAvx512) {
        SwiGluRowAvx512(gate, up, cols, out);
        continue;
      }
      if (context.path == CpuPath::kAvx2) {
        SwiGluRowAvx2(gate, up, cols, out);
        continue;
      }
      for (int64_t c = 0; c < cols; ++c) out[c] = gate[c] / (1.0f + std::exp(-gate[c])) * up[c];
    }
  });
}

}  // namespace millrace::cpu
