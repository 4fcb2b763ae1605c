// SPDX-License-Identifier: Apache-2.0
#pragma once
// The picture of a load test: four plots in one SVG, written by hand. Pure.
#include <string>
#include <vector>

namespace millrace {

struct LoadPlot {
  std::string title;
  std::vector<double> first_token_seconds;  // one per answered request
  std::vector<double> inter_token_seconds;  // one per gap
  std::vector<double> total_seconds;        // one per answered request
  std::vector<double> token_times;          // seconds after the start at which each token came
};

std::string LoadSvg(const LoadPlot& plot);

}  // namespace millrace
