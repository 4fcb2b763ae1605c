// SPDX-License-Identifier: Apache-2.0
#include "engine/load/dummy_weights.h"

#include <cmath>
#include <functional>

namespace millrace {
namespace {

// SplitMix64 (Steele, Lea, Flood 2014).
uint64_t Scramble(uint64_t x) {
  x += 0x9e3779b97f4a7c15u;
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
  return x ^ (x >> 31);
}

// Not std::hash: the weights must be the same everywhere.
uint64_t HashName(const std::string& name, uint64_t seed) {
  uint64_t hash = Scramble(seed);
  for (const char c : name) hash = Scramble(hash ^ static_cast<uint8_t>(c));
  return hash;
}

class DummyTensors final : public TensorSource {
 public:
  explicit DummyTensors(uint64_t seed) : seed_(seed) {}

  bool Has(const std::string& /*name*/) const override { return true; }

  absl::StatusOr<MatrixRows> Matrix(const std::string& name, int64_t n, int64_t k) override {
    const uint64_t base = HashName(name, seed_);
    // Uniform in +-sqrt(3/K): variance 1/K.
    const float scale = std::sqrt(3.0f / static_cast<float>(k)) / 32768.0f;
    return MatrixRows{.n = n,
                      .k = k,
                      .read =
                          [base, scale, k](int64_t row, float* out) {
                            uint64_t state = Scramble(base ^ static_cast<uint64_t>(row));
                            for (int64_t i = 0; i < k; i += 4) {
                              state = Scramble(state);
                              for (int64_t j = 0; j < 4 && i + j < k; ++j) {
                                out[i + j] = static_cast<float>(static_cast<int16_t>(state >> (16 * j))) * scale;
                              }
                            }
                          },
                      .stored = {}};
  }
  absl::StatusOr<std::vector<float>> Vector(const std::string& name, int64_t n) override {
    const bool is_bias = name.size() > 5 && name.compare(name.size() - 5, 5, ".bias") == 0;
    return std::vector<float>(static_cast<size_t>(n), is_bias ? 0.0f : 1.0f);
  }

 private:
  const uint64_t seed_;
};

}  // namespace

std::unique_ptr<TensorSource> MakeDummyTensors(uint64_t seed) { return std::make_unique<DummyTensors>(seed); }

}  // namespace millrace
