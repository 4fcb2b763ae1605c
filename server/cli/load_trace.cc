// SPDX-License-Identifier: Apache-2.0
#include "server/cli/load_trace.h"

#include <algorithm>
#include <cmath>
#include <random>
#include <string>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/time/time.h"

namespace millrace {
namespace {

// Far beyond any trace, and small enough that the gaps between two times are exact to a part of a second.
constexpr double kMaxSeconds = 1e12;

bool ParseSeconds(absl::string_view text, double& seconds) {
  if (absl::SimpleAtod(text, &seconds)) return std::abs(seconds) <= kMaxSeconds;
  absl::Time time;
  std::string error;
  if (!absl::ParseTime("%Y-%m-%d %H:%M:%E*S", text, &time, &error) &&
      !absl::ParseTime(absl::RFC3339_full, text, &time, &error)) {
    return false;
  }
  seconds = absl::ToDoubleSeconds(time - absl::UnixEpoch());
  return std::abs(seconds) <= kMaxSeconds;  // "infinite-future" is a time, too
}

}  // namespace

std::vector<Arrival> PoissonArrivals(int32_t num_requests, double rate, int32_t input_tokens, int32_t output_tokens,
                                     uint64_t seed) {
  std::mt19937_64 random(seed);
  std::vector<Arrival> arrivals;
  double seconds = 0;
  for (int32_t i = 0; i < num_requests; ++i) {
    arrivals.push_back({seconds, input_tokens, output_tokens});
    if (std::isfinite(rate)) seconds += std::exponential_distribution<double>(rate)(random);
  }
  return arrivals;
}

absl::StatusOr<std::vector<Arrival>> ParseTrace(std::string_view csv, int32_t num_requests, double speed) {
  std::vector<Arrival> arrivals;
  int line_number = 0;
  for (absl::string_view line : absl::StrSplit(absl::string_view(csv.data(), csv.size()), '\n')) {
    ++line_number;
    line = absl::StripAsciiWhitespace(line);
    if (line.empty()) continue;
    const std::vector<absl::string_view> cells = absl::StrSplit(line, ',');
    Arrival arrival;
    if (cells.size() < 3 || !ParseSeconds(absl::StripAsciiWhitespace(cells[0]), arrival.seconds) ||
        !absl::SimpleAtoi(cells[1], &arrival.input_tokens) || !absl::SimpleAtoi(cells[2], &arrival.output_tokens) ||
        arrival.input_tokens < 1 || arrival.output_tokens < 1) {
      if (line_number == 1) continue;  // the header
      return absl::InvalidArgumentError(
          absl::StrCat("trace line ", line_number, ": expected time,input tokens,output tokens"));
    }
    arrivals.push_back(arrival);
  }
  if (arrivals.empty()) return absl::InvalidArgumentError("the trace has no requests");
  std::sort(arrivals.begin(), arrivals.end(), [](const Arrival& a, const Arrival& b) { return a.seconds < b.seconds; });
  if (num_requests > 0 && arrivals.size() > static_cast<size_t>(num_requests)) {
    arrivals.resize(static_cast<size_t>(num_requests));
  }
  const double first = arrivals.front().seconds;
  for (Arrival& arrival : arrivals) arrival.seconds = (arrival.seconds - first) / speed;
  return arrivals;
}

}  // namespace millrace
