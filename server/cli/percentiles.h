// SPDX-License-Identifier: Apache-2.0
#pragma once
// Percentiles of measured values, by linear interpolation between ranks. Pure functions.
#include <string>
#include <vector>

namespace millrace {

// `share` from 0 to 1; 0 for no values.
double Percentile(std::vector<double> values, double share);
double Mean(const std::vector<double>& values);
// "mean 1.23  p50 1.20  p90 1.50  p95 1.60  p99 1.70  max 1.80 s"
std::string FormatPercentiles(const std::vector<double>& values, const char* unit);

}  // namespace millrace
