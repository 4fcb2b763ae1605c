// SPDX-License-Identifier: Apache-2.0
#include "server/cli/percentiles.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "absl/strings/str_format.h"

namespace millrace {

double Percentile(std::vector<double> values, double share) {
  if (values.empty()) return 0;
  std::sort(values.begin(), values.end());
  const double rank = std::clamp(share, 0.0, 1.0) * static_cast<double>(values.size() - 1);
  const auto below = static_cast<size_t>(rank);
  const size_t above = std::min(below + 1, values.size() - 1);
  return values[below] + (values[above] - values[below]) * (rank - static_cast<double>(below));
}

double Mean(const std::vector<double>& values) {
  if (values.empty()) return 0;
  return std::accumulate(values.begin(), values.end(), 0.0) / static_cast<double>(values.size());
}

std::string FormatPercentiles(const std::vector<double>& values, const char* unit) {
  return absl::StrFormat("mean %.4g  p50 %.4g  p90 %.4g  p95 %.4g  p99 %.4g  max %.4g %s", Mean(values),
                         Percentile(values, 0.5), Percentile(values, 0.9), Percentile(values, 0.95),
                         Percentile(values, 0.99), Percentile(values, 1.0), unit);
}

}  // namespace millrace
