// SPDX-License-Identifier: Apache-2.0
#include "engine/run/rope_table.h"

#include <algorithm>
#include <cmath>

namespace millrace {
namespace {

constexpr double kPi = 3.14159265358979323846;

double Llama3Frequency(const RopeParams& params, double frequency) {
  const double wavelength = 2.0 * kPi / frequency;
  const double low_wavelength = params.original_max_positions / params.low_freq_factor;
  const double high_wavelength = params.original_max_positions / params.high_freq_factor;
  if (wavelength < high_wavelength) return frequency;
  if (wavelength > low_wavelength) return frequency / params.factor;
  const double smooth = (params.original_max_positions / wavelength - params.low_freq_factor) /
                        (params.high_freq_factor - params.low_freq_factor);
  return (1.0 - smooth) * frequency / params.factor + smooth * frequency;
}

// The dimension whose wavelength makes `rotations` turns within the original context (YaRN, equation 17's bounds).
double YarnDimension(const RopeParams& params, double rotations, int32_t rotary_dim) {
  return rotary_dim * std::log(params.original_max_positions / (rotations * 2.0 * kPi)) /
         (2.0 * std::log(params.theta));
}

void ScaleYarn(const RopeParams& params, int32_t rotary_dim, std::vector<double>& frequencies) {
  double low = std::floor(YarnDimension(params, params.beta_fast, rotary_dim));
  double high = std::ceil(YarnDimension(params, params.beta_slow, rotary_dim));
  low = std::max(low, 0.0);
  high = std::min(high, rotary_dim - 1.0);
  if (low == high) high += 0.001;
  for (size_t i = 0; i < frequencies.size(); ++i) {
    const double ramp = std::clamp((static_cast<double>(i) - low) / (high - low), 0.0, 1.0);
    frequencies[i] = frequencies[i] / params.factor * ramp + frequencies[i] * (1.0 - ramp);
  }
}

}  // namespace

std::vector<double> RopeFrequencies(const RopeParams& params, int32_t rotary_dim) {
  std::vector<double> frequencies(static_cast<size_t>(rotary_dim / 2));
  for (size_t i = 0; i < frequencies.size(); ++i) {
    frequencies[i] = std::pow(params.theta, -2.0 * static_cast<double>(i) / rotary_dim);
  }
  switch (params.scaling) {
    case RopeScaling::kNone:
      break;
    case RopeScaling::kLinear:
      for (double& frequency : frequencies) frequency /= params.factor;
      break;
    case RopeScaling::kLlama3:
      for (double& frequency : frequencies) frequency = Llama3Frequency(params, frequency);
      break;
    case RopeScaling::kYarn:
      ScaleYarn(params, rotary_dim, frequencies);
      break;
  }
  for (size_t i = 0; i < std::min(frequencies.size(), params.frequency_divisors.size()); ++i) {
    frequencies[i] /= static_cast<double>(params.frequency_divisors[i]);
  }
  return frequencies;
}

double RopeAttentionFactor(const RopeParams& params) {
  if (params.scaling != RopeScaling::kYarn) return 1.0;
  if (params.attention_factor > 0) return params.attention_factor;
  return params.factor <= 1.0 ? 1.0 : 0.1 * std::log(params.factor) + 1.0;
}

size_t RopeTableBytes(int32_t rotary_dim, int64_t max_positions) {
  return static_cast<size_t>(max_positions) * static_cast<size_t>(rotary_dim / 2) * 2 * sizeof(float);
}

RopeTables::RopeTables(const RopeParams& params, int32_t rotary_dim, int64_t max_positions)
    : rotary_dim_(rotary_dim), is_interleaved_(params.interleaved) {
  const std::vector<double> frequencies = RopeFrequencies(params, rotary_dim);
  const double factor = RopeAttentionFactor(params);
  cos_.resize(static_cast<size_t>(max_positions) * frequencies.size());
  sin_.resize(cos_.size());
  size_t at = 0;
  for (int64_t position = 0; position < max_positions; ++position) {
    for (const double frequency : frequencies) {
      // Hugging Face keeps the frequencies and the angle in float32; the same rounding keeps long positions equal.
      const float angle = static_cast<float>(position) * static_cast<float>(frequency);
      cos_[at] = static_cast<float>(std::cos(static_cast<double>(angle)) * factor);
      sin_[at] = static_cast<float>(std::sin(static_cast<double>(angle)) * factor);
      ++at;
    }
  }
}

RopeTable RopeTables::table() const {
  return {.cos = cos_.data(), .sin = sin_.data(), .rotary_dim = rotary_dim_, .interleaved = is_interleaved_};
}

}  // namespace millrace
