// SPDX-License-Identifier: Apache-2.0
#include "server/cli/load_svg.h"

#include <algorithm>
#include <cmath>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "server/cli/percentiles.h"

namespace millrace {
namespace {

constexpr double kPanelWidth = 420, kPanelHeight = 250, kLeft = 60, kBottom = 40, kTop = 34, kRight = 16;
constexpr size_t kMaxPoints = 400;

struct Point {
  double x, y;
};

std::string Escape(const std::string& text) {
  std::string out;
  for (const char c : text) {
    if (c == '<') {
      out += "&lt;";
    } else if (c == '&') {
      out += "&amp;";
    } else {
      out += c;
    }
  }
  return out;
}

// A round number at least `value`: 1, 2 or 5 times a power of ten.
double RoundUp(double value) {
  if (value <= 0) return 1;
  const double power = std::pow(10, std::floor(std::log10(value)));
  for (const double step : {1.0, 2.0, 5.0, 10.0}) {
    if (value <= step * power * 1.0001) return step * power;
  }
  return 10 * power;
}

// One set of axes with a line; the axes begin at 0.
std::string Panel(double left, double top, const std::string& title, const char* x_label,
                  const std::vector<Point>& points) {
  double x_most = 0, y_most = 0;
  for (const Point& point : points) {
    x_most = std::max(x_most, point.x);
    y_most = std::max(y_most, point.y);
  }
  x_most = RoundUp(x_most);
  y_most = RoundUp(y_most);
  const double width = kPanelWidth - kLeft - kRight, height = kPanelHeight - kTop - kBottom;
  const auto x_of = [&](double x) { return left + kLeft + x / x_most * width; };
  const auto y_of = [&](double y) { return top + kTop + (1 - y / y_most) * height; };
  std::string out =
      absl::StrFormat("<text class=\"title\" x=\"%g\" y=\"%g\">%s</text>\n", left + kLeft, top + 20, Escape(title));
  for (int i = 0; i <= 4; ++i) {
    const double x = x_most * i / 4, y = y_most * i / 4;
    absl::StrAppendFormat(&out, "<line class=\"grid\" x1=\"%.1f\" y1=\"%.1f\" x2=\"%.1f\" y2=\"%.1f\"/>\n", x_of(0),
                          y_of(y), x_of(x_most), y_of(y));
    absl::StrAppendFormat(&out, "<text class=\"tick\" text-anchor=\"end\" x=\"%.1f\" y=\"%.1f\">%g</text>\n",
                          x_of(0) - 6, y_of(y) + 4, y);
    absl::StrAppendFormat(&out, "<text class=\"tick\" text-anchor=\"middle\" x=\"%.1f\" y=\"%.1f\">%g</text>\n",
                          x_of(x), y_of(0) + 16, x);
  }
  absl::StrAppendFormat(&out, "<text class=\"tick\" text-anchor=\"middle\" x=\"%.1f\" y=\"%.1f\">%s</text>\n",
                        x_of(x_most / 2), y_of(0) + 32, x_label);
  if (points.empty()) return out;
  out += "<polyline class=\"line\" points=\"";
  for (const Point& point : points) absl::StrAppendFormat(&out, "%.1f,%.1f ", x_of(point.x), y_of(point.y));
  out += "\"/>\n";
  return out;
}

// Share of values at or below x, in percent.
std::vector<Point> Distribution(std::vector<double> values, double scale) {
  std::vector<Point> points;
  if (values.empty()) return points;
  std::sort(values.begin(), values.end());
  points.push_back({values.front() * scale, 0});
  const size_t step = std::max<size_t>(1, values.size() / kMaxPoints);
  for (size_t i = 0; i < values.size(); i += step) {
    points.push_back({values[i] * scale, 100.0 * static_cast<double>(i + 1) / static_cast<double>(values.size())});
  }
  points.push_back({values.back() * scale, 100});
  return points;
}

std::vector<Point> Rate(const std::vector<double>& times) {
  std::vector<Point> points;
  if (times.empty()) return points;
  const double last = *std::max_element(times.begin(), times.end());
  const double bin = std::max(RoundUp(last / 100), 0.01);
  std::vector<double> counts(static_cast<size_t>(last / bin) + 1, 0);
  for (const double time : times) counts[static_cast<size_t>(std::max(0.0, time) / bin)] += 1;
  for (size_t i = 0; i < counts.size(); ++i) points.push_back({(static_cast<double>(i) + 0.5) * bin, counts[i] / bin});
  return points;
}

std::string Titled(const char* name, const std::vector<double>& values, double scale, const char* unit) {
  return absl::StrFormat("%s: p50 %.4g, p99 %.4g %s", name, Percentile(values, 0.5) * scale,
                         Percentile(values, 0.99) * scale, unit);
}

}  // namespace

std::string LoadSvg(const LoadPlot& plot) {
  std::string out = absl::StrFormat(
      "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 %g %g\" font-family=\"sans-serif\">\n"
      "<style>.title{font-size:13px;fill:#222}.tick{font-size:11px;fill:#555}.grid{stroke:#ddd}"
      ".line{fill:none;stroke:#1f6fb2;stroke-width:1.8}</style>\n"
      "<rect width=\"100%%\" height=\"100%%\" fill=\"#fff\"/>\n"
      "<text font-size=\"15\" x=\"16\" y=\"24\">%s</text>\n",
      2 * kPanelWidth, 2 * kPanelHeight + 36, Escape(plot.title));
  out += Panel(0, 36, Titled("time to first token", plot.first_token_seconds, 1, "s"), "seconds (share of requests, %)",
               Distribution(plot.first_token_seconds, 1));
  out += Panel(kPanelWidth, 36, Titled("between tokens", plot.inter_token_seconds, 1000, "ms"),
               "milliseconds (share of gaps, %)", Distribution(plot.inter_token_seconds, 1000));
  out += Panel(0, 36 + kPanelHeight, Titled("whole request", plot.total_seconds, 1, "s"),
               "seconds (share of requests, %)", Distribution(plot.total_seconds, 1));
  out += Panel(kPanelWidth, 36 + kPanelHeight, "throughput, tokens per second", "seconds since the start",
               Rate(plot.token_times));
  out += "</svg>\n";
  return out;
}

}  // namespace millrace
