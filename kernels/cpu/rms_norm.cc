// SPDX-License-Identifier: Apache-2.0
// out = x / sqrt(mean(x^2) + eps) * weight, row by row (arXiv 1910.07467).
#include <cmath>

#include "kernels/cpu/elementwise.h"
#include "kernels/cpu/op_context.h"
#include "kernels/ops.h"

namespace millrace::cpu {

void RmsNorm(const RmsNormArgs& args, const OpContext& context) {
  const int64_t cols = args.x.cols;
  context.pool.ParallelFor(args.x.rows, [&](int64_t begin, int64_t end, int /*worker*/) {
    for (int64_t r = begin; r < end; ++r) {
      const float* x = static_cast<const float*>(args.x.data) + r * args.x.stride;
      float* out = static_cast<float*>(args.out.data) + r * args.out.stride;
      if (context.path == CpuPath::kAvx512) {
        RmsNormRowAvx512(x, args.weight, args.eps, cols, out);
        continue;
      }
      if (context.path == CpuPath::kAvx2) {
        RmsNormRowAvx2(x, args.weight, args.eps, cols, out);
        continue;
      }
      // Sixteen partial sums in a fixed order: exact enough for long rows and the same for every batch.
      float sums[16] = {};
      for (int64_t c = 0; c < cols; ++c) sums[c % 16] += x[c] * x[c];
      float sum = 0;
      for (const float part : sums) sum += part;
      const float scale = 1.0f / std::sqrt(sum / static_cast<float>(cols) + args.eps);
      for (int64_t c = 0; c < cols; ++c) out[c] = x[c] * scale * args.weight[c];
    }
  });
}

}  // namespace millrace::cpu
