// SPDX-License-Identifier: Apache-2.0
#pragma once
// Attention over a KvMemory in double precision, with a bound of what a kernel may err by.
#include <algorithm>
#include <cmath>
#include <vector>

#include "tests/cuda/kv_memory.h"

namespace millrace::cuda_test {

// One head of one row in double, and what rounding may do to each element of it.
struct HeadReference {
  std::vector<double> out, tolerance;
};

// `q` [D]; the row sees tokens [first, seen) of `pages`. Where the bound comes from:
//   scores    float32 sums of D products, each sum truncated at worst, and q in the KV type's precision when it has
//             less of it than q's own: error e, so that a weight errs by a factor exp(e)
//   weights   rounded to `weight_dtype` once; near zero half precision errs by 2^-25 of the largest weight
//   output    float32 sums over the tokens, then one rounding to q's dtype
inline HeadReference ReferenceHead(const KvMemory& kv, const std::vector<int32_t>& pages, const std::vector<float>& q,
                                   int kv_head, int first, int seen, float scale, DType q_dtype) {
  const int dim = kv.shape().head_dim, count = seen - first;
  std::vector<double> weights(static_cast<size_t>(count));
  double largest = -INFINITY, score_magnitude = 0, value_magnitude = 0;
  for (int t = first; t < seen; ++t) {
    const size_t vector = kv.VectorOf(pages, t, kv_head);
    double score = 0, magnitude = 0;
    for (int d = 0; d < dim; ++d) {
      const double product = static_cast<double>(q[static_cast<size_t>(d)]) * kv.Key(vector, d);
      score += product, magnitude += std::fabs(product);
      value_magnitude = std::max(value_magnitude, std::fabs(kv.Value(vector, d)));
    }
    weights[static_cast<size_t>(t - first)] = score * scale;
    largest = std::max(largest, score * scale);
    score_magnitude = std::max(score_magnitude, magnitude * std::fabs(scale));
  }
  double sum = 0;
  for (double& weight : weights) sum += weight = std::exp(weight - largest);
  HeadReference result{.out = std::vector<double>(static_cast<size_t>(dim)), .tolerance = {}};
  std::vector<double> magnitude(static_cast<size_t>(dim));
  for (int t = first; t < seen; ++t) {
    const double weight = weights[static_cast<size_t>(t - first)] / sum;
    const size_t vector = kv.VectorOf(pages, t, kv_head);
    for (int d = 0; d < dim; ++d) {
      result.out[static_cast<size_t>(d)] += weight * kv.Value(vector, d);
      magnitude[static_cast<size_t>(d)] += weight * std::fabs(kv.Value(vector, d));
    }
  }
  const DType weight_dtype = kv.shape().dtype == DType::kBF16 ? DType::kBF16 : DType::kF16;
  const double q_rounding =
      q_dtype == DType::kF16 && weight_dtype == DType::kBF16 ? HalfSpacing(DType::kBF16) : 0x1p-24;
  const double score_error = score_magnitude * ((dim + 16) * 0x1p-23 + q_rounding) + 0x1p-20;
  const double relative = std::expm1(2 * score_error) + HalfSpacing(weight_dtype) + (count + 16) * 0x1p-23;
  const double absolute = count * 0x1p-25 * value_magnitude / sum;
  for (int d = 0; d < dim; ++d) {
    const double error = magnitude[static_cast<size_t>(d)] * relative + absolute;
    const double rounding = (std::fabs(result.out[static_cast<size_t>(d)]) + error) * HalfSpacing(q_dtype) + 0x1p-25;
    result.tolerance.push_back(error + rounding);
  }
  return result;
}

}  // namespace millrace::cuda_test
