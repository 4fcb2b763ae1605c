// SPDX-License-Identifier: Apache-2.0
// The cut of attention into work: nothing is left out, nothing done twice, whatever the lengths.
#include "kernels/cuda/attention_plan.h"

#include <algorithm>
#include <cstring>
#include <vector>

#include "tests/cuda/harness.h"

namespace millrace::cuda {
namespace {

using cuda_test::DeviceArray;
using cuda_test::Random;

// Every length up to where all edges of the short rule have passed, then some about each multiple of a chunk.
std::vector<int32_t> Lengths() {
  std::vector<int32_t> lengths;
  for (int32_t seen = 1; seen <= kShortTokens + 2 * kChunkTokens; ++seen) lengths.push_back(seen);
  for (int32_t seen = kShortTokens; seen < 200'000; seen += kChunkTokens) {
    for (const int32_t offset : {-1, 0, 1}) lengths.push_back(seen + offset);
  }
  lengths.push_back(4'000'000);
  return lengths;
}

KERNEL_TEST("attention plan: the chunks of a row hold every token it sees once, in order, and never too many") {
  for (const int32_t window : {0, 1, 127, 128, 1000, 2048, 2049, 16'128, 50'000}) {
    for (const int32_t seen : Lengths()) {
      const DecodeChunks chunks = CutIntoChunks(seen, window);
      const int32_t first = window > 0 ? std::max(0, seen - window) : 0;
      const int32_t last_chunk = chunks.first + chunks.count - 1;
      EXPECT(chunks.count >= 1 && chunks.count <= kMaxChunks) << seen << window << chunks.count;
      EXPECT(chunks.tokens % kSmallChunkTokens == 0) << seen << window << chunks.tokens;
      // The first holds the first seen token, the last the last: every one of them holds some.
      EXPECT(chunks.first * chunks.tokens <= first && first < (chunks.first + 1) * chunks.tokens) << seen << window;
      EXPECT(int64_t{last_chunk} * chunks.tokens <= seen - 1 && seen - 1 < int64_t{last_chunk + 1} * chunks.tokens)
          << seen << window;
    }
  }
}

KERNEL_TEST("attention plan: the workspace has room for the chunks of any shorter sequence too") {
  const int64_t head_bytes = PartialFloats(64) * static_cast<int64_t>(sizeof(float));
  for (const int32_t window : {0, 100, 3000}) {
    const AttentionShape shape{.num_heads = 8, .num_kv_heads = 2, .head_dim = 64, .window_tokens = window};
    int64_t most_chunks = 0;
    for (const int32_t seen : Lengths()) {
      most_chunks = std::max<int64_t>(most_chunks, CutIntoChunks(seen, window).count);
      const auto bytes = static_cast<int64_t>(AttentionWorkspaceBytes(shape, 3, seen));
      EXPECT(bytes >= 3 * most_chunks * shape.num_heads * head_bytes) << seen << window << bytes;
    }
  }
}

KERNEL_TEST(
    "attention plan: few rows that see much are cut so that each row's chunks hold what it sees, in the room "
    "of one row's") {
  for (const int32_t window : {0, 128, 1000, 2049, 16'128, 50'000}) {
    for (int rows = 1; rows <= kFewRows + 1; ++rows) {
      for (const int32_t seen : Lengths()) {
        if (seen < rows) continue;
        const DeviceSequence sequence{.num_rows = rows, .context_tokens = seen - rows};
        const DecodeCut cut = CutForDecode(sequence, window);
        const int32_t room = CutIntoChunks(seen, window).count;
        EXPECT((cut.row_chunks > 0) == (rows == 1 || (rows <= kFewRows && room >= rows * kLeastRowChunks)))
            << seen << window << rows;
        EXPECT(NumDecodeChunks(sequence, window) <= room) << seen << window << rows;
        if (cut.row_chunks == 0) continue;
        EXPECT(cut.tokens % kSmallChunkTokens == 0) << seen << window << rows;
        for (int row = 0; row < rows; ++row) {
          const int32_t row_seen = sequence.context_tokens + row + 1;
          const DecodeChunks chunks = ChunksOf(cut.tokens, row_seen, window);
          EXPECT(chunks.count >= 1 && chunks.count <= cut.row_chunks) << seen << window << rows << row;
          EXPECT(chunks.first * chunks.tokens <= FirstSeenToken(row_seen, window)) << seen << window << rows << row;
          EXPECT(int64_t{chunks.first + chunks.count} * chunks.tokens >= row_seen) << seen << window << rows << row;
        }
      }
    }
  }
}

struct HostPlan {
  std::vector<int32_t> first_chunk = {0}, first_tile = {0};
};
HostPlan PlanOnHost(const std::vector<DeviceSequence>& sequences, const AttentionShape& shape) {
  HostPlan plan;
  const int group = shape.num_heads / shape.num_kv_heads;
  const int tile = PrefillTileRows(shape.head_dim);
  for (const DeviceSequence& s : sequences) {
    int32_t chunks = s.num_rows == 1 ? CutIntoChunks(s.context_tokens + 1, shape.window_tokens).count : 0;
    int32_t tiles = s.num_rows > 1 ? (s.num_rows * group + tile - 1) / tile : 0;
    if (s.num_rows > 1 && s.num_rows <= kFewRows) {
      const int32_t share = CutIntoChunks(s.context_tokens + s.num_rows, shape.window_tokens).count / s.num_rows;
      if (share >= kLeastRowChunks) chunks = share * s.num_rows, tiles = 0;
    }
    plan.first_chunk.push_back(plan.first_chunk.back() + chunks);
    plan.first_tile.push_back(plan.first_tile.back() + tiles);
  }
  return plan;
}

KERNEL_TEST("attention plan: the running sums on the device are those of the host, for any number of sequences") {
  Random random(1);
  for (const int num_sequences : {1, 31, 32, 255, 256, 257, 700}) {
    const AttentionShape shape{
        .num_heads = 18, .num_kv_heads = 2, .head_dim = num_sequences % 2 == 0 ? 64 : 256, .window_tokens = 5000};
    std::vector<DeviceSequence> sequences;
    for (int s = 0; s < num_sequences; ++s) {
      const int kind = random.Int(0, 4);  // padding, decode twice as often, prefill, few rows
      const int rows = kind == 0 ? 0 : kind == 3 ? random.Int(2, 300) : kind == 4 ? random.Int(2, 9) : 1;
      sequences.push_back({.num_rows = rows, .context_tokens = random.Int(0, 40'000)});
    }
    const size_t bytes = AttentionPlanBytes(shape, num_sequences);
    DeviceArray<DeviceSequence> device(sequences);
    DeviceArray<int32_t> plan(bytes / sizeof(int32_t));
    const AttentionPlanLaunch launch{
        .shape = shape, .sequences = device.data(), .num_sequences = num_sequences, .plan = plan.data()};
    EXPECT(LaunchAttentionPlan(launch, nullptr) == cudaSuccess);
    const std::vector<int32_t> words = plan.Download();
    const HostPlan want = PlanOnHost(sequences, shape);
    const auto begin = words.begin();
    const auto sums = static_cast<ptrdiff_t>(want.first_chunk.size());
    EXPECT(std::equal(begin, begin + sums, want.first_chunk.begin())) << num_sequences;
    EXPECT(std::equal(begin + sums, begin + 2 * sums, want.first_tile.begin())) << num_sequences;
    // Nobody has arrived, in any of the head tiles: 9 heads a KV head are two.
    EXPECT(words.end() - (begin + 2 * sums) == num_sequences * 4 * kFewRows) << num_sequences;
    EXPECT(std::all_of(begin + 2 * sums, words.end(), [](int32_t word) { return word == 0; })) << num_sequences;
  }
}

}  // namespace
}  // namespace millrace::cuda
