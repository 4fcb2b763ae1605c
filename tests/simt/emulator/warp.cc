// SPDX-License-Identifier: Apache-2.0
// What the collectives of a warp do once its lanes have met.
#include <algorithm>
#include <cstring>
#include <utility>

#include "simt_ptx.h"
#include "simt_warp.h"
#include "tests/simt/emulator/block.h"

namespace simt {
namespace {

template <typename Argument, typename Do>
void ForEach(const Lanes& lanes, Do&& act) {
  for (uint32_t rest = lanes.mask; rest != 0; rest &= rest - 1) {
    const int lane = __builtin_ctz(rest);
    act(lane, *static_cast<Argument*>(lanes.arguments[lane]));
  }
}

template <typename Combine>
void Reduce(const Lanes& lanes, Combine&& combine) {
  bool is_first = true;
  uint32_t all = 0;
  ForEach<VoteArgument>(lanes, [&](int, VoteArgument& argument) {
    all = is_first ? argument.value : combine(all, argument.value);
    is_first = false;
  });
  ForEach<VoteArgument>(lanes, [&](int, VoteArgument& argument) { argument.result = all; });
}

int64_t num_ldmatrix_conflicts = 0;

// Eight rows of 16 bytes come at once when they are in different bank groups.
void CountConflicts(const char* const (&rows)[8]) {
  int num_in_group[8] = {};
  for (int i = 0; i < 8; ++i) {
    if (std::find(rows, rows + i, rows[i]) != rows + i) continue;  // the same row is read once
    const size_t offset = static_cast<size_t>(rows[i] - static_cast<const char*>(SharedBytes()));
    ++num_in_group[offset / 16 % 8];
  }
  num_ldmatrix_conflicts += *std::max_element(num_in_group, num_in_group + 8) - 1;
}

template <typename D>
void RunMma(const Lanes& lanes, void (*multiply)(const uint32_t (&)[32][4], const uint32_t (&)[32][2], D (&)[32][4])) {
  uint32_t a[32][4], b[32][2];
  D d[32][4];
  if (lanes.mask != kAllLanes) Fail("mma with a warp of less than 32 lanes");
  ForEach<MmaArgument>(lanes, [&](int lane, MmaArgument& argument) {
    std::memcpy(a[lane], argument.a, sizeof(a[lane]));
    std::memcpy(b[lane], argument.b, sizeof(b[lane]));
    std::memcpy(d[lane], argument.d, sizeof(d[lane]));
  });
  multiply(a, b, d);
  ForEach<MmaArgument>(lanes,
                       [&](int lane, MmaArgument& argument) { std::memcpy(argument.d, d[lane], sizeof(d[lane])); });
}

}  // namespace

void Nothing(const Lanes&) {}

void Shuffle(const Lanes& lanes) {
  ForEach<ShuffleArgument>(lanes, [&](int, ShuffleArgument& argument) {
    const bool is_met = lanes.mask >> argument.source & 1;
    argument.result = is_met ? static_cast<ShuffleArgument*>(lanes.arguments[argument.source])->value : ~uint64_t{0};
  });
}

void Ballot(const Lanes& lanes) {
  uint32_t votes = 0;
  ForEach<VoteArgument>(lanes,
                        [&](int lane, VoteArgument& argument) { votes |= (argument.value != 0 ? 1u : 0u) << lane; });
  ForEach<VoteArgument>(lanes, [&](int, VoteArgument& argument) { argument.result = votes; });
}

void MatchAny(const Lanes& lanes) {
  ForEach<VoteArgument>(lanes, [&](int, VoteArgument& mine) {
    ForEach<VoteArgument>(
        lanes, [&](int lane, VoteArgument& other) { mine.result |= (other.value == mine.value ? 1u : 0u) << lane; });
  });
}

void ReduceAdd(const Lanes& lanes) {
  Reduce(lanes, [](uint32_t a, uint32_t b) { return a + b; });
}
void ReduceMin(const Lanes& lanes) {
  Reduce(lanes, [](uint32_t a, uint32_t b) { return std::min(a, b); });
}
void ReduceMax(const Lanes& lanes) {
  Reduce(lanes, [](uint32_t a, uint32_t b) { return std::max(a, b); });
}
void ReduceSignedMin(const Lanes& lanes) {
  Reduce(lanes, [](uint32_t a, uint32_t b) { return static_cast<int32_t>(a) < static_cast<int32_t>(b) ? a : b; });
}
void ReduceSignedMax(const Lanes& lanes) {
  Reduce(lanes, [](uint32_t a, uint32_t b) { return static_cast<int32_t>(a) > static_cast<int32_t>(b) ? a : b; });
}
void ReduceOr(const Lanes& lanes) {
  Reduce(lanes, [](uint32_t a, uint32_t b) { return a | b; });
}
void ReduceAnd(const Lanes& lanes) {
  Reduce(lanes, [](uint32_t a, uint32_t b) { return a & b; });
}

template <int kNumMatrices, bool kIsTransposed>
void LoadMatrices(const Lanes& lanes) {
  uint16_t matrices[kNumMatrices][8][8];
  const char* rows[8];
  if (lanes.mask != kAllLanes) Fail("ldmatrix with a warp of less than 32 lanes");
  for (int lane = 0; lane < 8 * kNumMatrices; ++lane) {
    const void* row = static_cast<MatrixArgument*>(lanes.arguments[lane])->row_address;
    if (!IsShared(row, 16)) SIMT_FAIL("ldmatrix: lane " + std::to_string(lane) + "'s row is not in shared memory");
    if (reinterpret_cast<uintptr_t>(row) % 16 != 0)
      SIMT_FAIL("ldmatrix: lane " + std::to_string(lane) + "'s row is not aligned");
    NoteLaneRead(lane, row, 16);
    std::memcpy(matrices[lane / 8][lane % 8], row, 16);
    rows[lane % 8] = static_cast<const char*>(row);
    if (lane % 8 == 7) CountConflicts(rows);
  }
  ForEach<MatrixArgument>(lanes, [&](int lane, MatrixArgument& argument) {
    const int row = lane / 4, col = lane % 4 * 2;
    for (int i = 0; i < kNumMatrices; ++i) {
      const uint32_t low = kIsTransposed ? matrices[i][col][row] : matrices[i][row][col];
      const uint32_t high = kIsTransposed ? matrices[i][col + 1][row] : matrices[i][row][col + 1];
      argument.registers[i] = low | high << 16;
    }
  });
}
template void LoadMatrices<1, false>(const Lanes& lanes);
template void LoadMatrices<2, false>(const Lanes& lanes);
template void LoadMatrices<4, false>(const Lanes& lanes);
template void LoadMatrices<2, true>(const Lanes& lanes);
template void LoadMatrices<4, true>(const Lanes& lanes);

void MultiplyBf16(const Lanes& lanes) { RunMma<float>(lanes, reference::MmaBf16); }
void MultiplyF16(const Lanes& lanes) { RunMma<float>(lanes, reference::MmaF16); }
void MultiplyS8(const Lanes& lanes) { RunMma<int32_t>(lanes, reference::MmaS8); }

BankConflicts TakeBankConflicts() { return {std::exchange(num_ldmatrix_conflicts, 0)}; }

}  // namespace simt
