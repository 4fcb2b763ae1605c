// SPDX-License-Identifier: Apache-2.0
// out[t] = table[tokens[t]] * scale, as float32; zeros for a token that is in another rank's part of the table.
#include <algorithm>

#include "kernels/check.h"
#include "kernels/cpu/dtype_convert.h"
#include "kernels/cpu/op_context.h"
#include "kernels/ops.h"

namespace millrace::cpu {

void Embed(const EmbedArgs& args, const OpContext& context) {
  const int64_t cols = args.table.cols, num_tokens = args.whole_tokens > 0 ? args.whole_tokens : args.table.rows;
  context.pool.ParallelFor(static_cast<int64_t>(args.tokens.size()), [&](int64_t begin, int64_t end, int /*worker*/) {
    for (int64_t r = begin; r < end; ++r) {
      const int64_t token = args.tokens[static_cast<size_t>(r)];
      MILLRACE_CHECK(token >= 0 && token < num_tokens, "a token id is outside the embedding table");
      float* out = static_cast<float*>(args.out.data) + r * args.out.stride;
      const int64_t table_row = token - args.first_token, at = table_row * args.table.stride;
      if (table_row < 0 || table_row >= args.table.rows) {
        std::fill_n(out, cols, 0.0f);
      } else if (args.table.dtype == DType::kF32) {
        const float* row = static_cast<const float*>(args.table.data) + at;
        for (int64_t c = 0; c < cols; ++c) out[c] = row[c] * args.scale;
      } else {
        const uint16_t* row = static_cast<const uint16_t*>(args.table.data) + at;
        const bool is_bf16 = args.table.dtype == DType::kBF16;
        for (int64_t c = 0; c < cols; ++c)
          out[c] = (is_bf16 ? FloatFromBf16(row[c]) : FloatFromF16(row[c])) * args.scale;
      }
    }
  });
}

}  // namespace millrace::cpu
