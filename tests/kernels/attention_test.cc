// SPDX-License-Identifier: Apache-2.0
#include <catch2/catch.hpp>
#include <cmath>
#include <vector>

#include "kernels/device.h"
#include "tests/support/kv_fixture.h"

namespace millrace {
namespace {

using testing::AttentionShape;
using testing::KvFixture;
using testing::RandomFloats;

std::vector<CpuPath> Paths() {
  std::vector<CpuPath> paths = {CpuPath::kReference};
  for (const CpuPath path : {CpuPath::kAvx2, CpuPath::kAvx512}) {
    if (MakeCpuDevice({.num_threads = 1, .path = path}).ok()) paths.push_back(path);
  }
  return paths;
}

std::unique_ptr<Device> MakeDevice(CpuPath path, int num_threads) {
  auto device = MakeCpuDevice({.num_threads = num_threads, .path = path});
  REQUIRE(device.ok());
  return std::move(*device);
}

// One sequence's random queries, keys and values, and attention over them cut in any way.
struct Sequence {
  Sequence(const AttentionShape& shape_in, int num_tokens_in, uint32_t seed)
      : shape(shape_in),
        num_tokens(num_tokens_in),
        kv(shape, num_tokens, seed),
        q(RandomFloats(int64_t{num_tokens} * shape.num_heads * shape.head_dim, seed + 1)),
        k(RandomFloats(int64_t{num_tokens} * shape.num_kv_heads * shape.head_dim, seed + 2)),
        v(RandomFloats(int64_t{num_tokens} * shape.num_kv_heads * shape.head_dim, seed + 3)),
        out(q.size(), std::numeric_limits<float>::quiet_NaN()) {}

  float scale() const { return 1.0f / std::sqrt(static_cast<float>(shape.head_dim)); }
  void Append(int first, int count) {
    const int64_t width = int64_t{shape.num_kv_heads} * shape.head_dim;
    for (int64_t t = first; t < first + count; ++t) kv.Store(t, k.data() + t * width, v.data() + t * width);
  }
  void Attend(Device& device, int first, int count) {
    Append(first, count);
    const int64_t width = int64_t{shape.num_heads} * shape.head_dim;
    const AttentionSequence sequence{.num_rows = count, .context_tokens = first, .pages = kv.pages()};
    const auto rows = [&](std::vector<float>& data) {
      return Matrix{.data = data.data() + first * width, .rows = count, .cols = width, .stride = width};
    };
    device.ops().Attention({.q = rows(q),
                            .num_heads = shape.num_heads,
                            .kv = kv.layer(),
                            .sequences = absl::MakeConstSpan(&sequence, 1),
                            .scale = scale(),
                            .window_tokens = shape.window_tokens,
                            .out = rows(out)});
  }

  AttentionShape shape;
  int num_tokens;
  KvFixture kv;
  std::vector<float> q, k, v, out;
};

TEST_CASE("Attention: every path agrees with double precision over its own stored keys and values", "[attention]") {
  const AttentionShape shape = GENERATE(
      AttentionShape{}, AttentionShape{.num_heads = 3, .num_kv_heads = 1, .head_dim = 8, .page_tokens = 1},
      AttentionShape{.num_heads = 4, .num_kv_heads = 4, .head_dim = 80, .page_tokens = 5, .dtype = DType::kF32},
      AttentionShape{.num_heads = 14, .num_kv_heads = 2, .head_dim = 128, .dtype = DType::kF16},
      AttentionShape{.num_heads = 6, .num_kv_heads = 2, .head_dim = 32, .dtype = DType::kI8},
      AttentionShape{.head_dim = 16, .window_tokens = 1}, AttentionShape{.head_dim = 48, .window_tokens = 37},
      AttentionShape{.num_heads = 2, .num_kv_heads = 1, .head_dim = 256, .window_tokens = 64});
  const int num_tokens = GENERATE(1, 31, 33, 97);
  for (const CpuPath path : Paths()) {
    Sequence sequence(shape, num_tokens, 7);
    const auto device = MakeDevice(path, 2);
    sequence.Attend(*device, 0, num_tokens);
    // Dot products of D terms and sums of n weights in float32, plus the exponential's own error: relative to |v| ~ 4.
    const double tolerance = 4.0 * (shape.head_dim + num_tokens + 16) * 6e-8 * 4;
    const int64_t width = int64_t{shape.num_heads} * shape.head_dim;
    double worst = 0;
    for (int64_t t = 0; t < num_tokens; ++t) {
      const auto expected = sequence.kv.Reference(sequence.q.data() + t * width, t, sequence.scale());
      for (int64_t i = 0; i < width; ++i) {
        const double difference =
            std::abs(expected[static_cast<size_t>(i)] - sequence.out[static_cast<size_t>(t * width + i)]);
        worst = std::isnan(difference) ? INFINITY : std::max(worst, difference);
      }
    }
    CAPTURE(static_cast<int>(path), num_tokens, shape.head_dim);
    CHECK(worst <= tolerance);
  }
}

TEST_CASE("Attention: a row is the same bits however its sequence is cut, on any pages and threads", "[attention]") {
  const DType dtype = GENERATE(DType::kF32, DType::kBF16, DType::kI8);
  const int window_tokens = GENERATE(0, 40);
  const AttentionShape shape{
      .num_heads = 6, .num_kv_heads = 2, .head_dim = 64, .dtype = dtype, .window_tokens = window_tokens};
  constexpr int kTokens = 101;
  for (const CpuPath path : Paths()) {
    Sequence whole(shape, kTokens, 3);
    const auto device = MakeDevice(path, 2);
    whole.Attend(*device, 0, kTokens);
    for (const int chunk : {1, 7, 32, 50}) {
      AttentionShape other = shape;
      other.page_tokens = chunk == 7 ? 3 : 16;
      Sequence pieces(other, kTokens, 3);
      const auto single = MakeDevice(path, 1);
      for (int first = 0; first < kTokens; first += chunk) {
        pieces.Attend(*single, first, std::min(chunk, kTokens - first));
      }
      CAPTURE(static_cast<int>(path), chunk);
      CHECK(pieces.out == whole.out);
    }
  }
}

TEST_CASE("Attention: sequences of a batch do not touch each other", "[attention]") {
  const AttentionShape shape{.num_heads = 4, .num_kv_heads = 2, .head_dim = 32};
  for (const CpuPath path : Paths()) {
    const auto device = MakeDevice(path, 2);
    Sequence solo(shape, 60, 11);
    solo.Append(0, 50);
    solo.Attend(*device, 50, 10);
    // The same ten rows beside a decode row of another sequence, both living in one pool of pages.
    Sequence both(shape, 60, 11);
    both.Append(0, 60);
    const int64_t width = int64_t{shape.num_heads} * shape.head_dim;
    std::vector<float> q(both.q.begin() + 20 * width, both.q.begin() + 21 * width);
    q.insert(q.end(), both.q.begin() + 50 * width, both.q.end());
    std::vector<float> out(q.size());
    const std::vector<AttentionSequence> sequences = {
        {.first_row = 0, .num_rows = 1, .context_tokens = 20, .pages = both.kv.pages()},
        {.first_row = 1, .num_rows = 10, .context_tokens = 50, .pages = both.kv.pages()}};
    const auto view = [&](std::vector<float>& data) {
      return Matrix{.data = data.data(), .rows = 11, .cols = width, .stride = width};
    };
    device->ops().Attention({.q = view(q),
                             .num_heads = shape.num_heads,
                             .kv = both.kv.layer(),
                             .sequences = sequences,
                             .scale = both.scale(),
                             .out = view(out)});
    CHECK(std::equal(out.begin() + width, out.end(), solo.out.begin() + 50 * width));
  }
}

}  // namespace
}  // namespace millrace
