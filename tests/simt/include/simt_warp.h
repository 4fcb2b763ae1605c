// SPDX-License-Identifier: Apache-2.0
#pragma once
// The warp's collectives. What a lane would read from a lane outside the mask, which CUDA leaves undefined, is NaN.
#include <cstdint>
#include <cstring>
#include <type_traits>

#include "simt_core.h"

namespace simt {

struct ShuffleArgument {
  uint64_t value;
  int source;
  uint64_t result;
};
void Shuffle(const Lanes& lanes);  // result = the source's value

struct VoteArgument {
  uint32_t value;
  uint32_t result;
};
void Ballot(const Lanes& lanes);    // bit of each lane whose value is not 0
void MatchAny(const Lanes& lanes);  // bit of each lane with the same value
void ReduceAdd(const Lanes& lanes);
void ReduceMin(const Lanes& lanes);
void ReduceMax(const Lanes& lanes);
void ReduceSignedMin(const Lanes& lanes);
void ReduceSignedMax(const Lanes& lanes);
void ReduceOr(const Lanes& lanes);
void ReduceAnd(const Lanes& lanes);
void Nothing(const Lanes& lanes);

template <typename T>
T ShuffleFrom(const char* name, uint32_t mask, T value, int source, Where where) {
  static_assert(sizeof(T) <= sizeof(uint64_t) && std::is_trivially_copyable_v<T>);
  ShuffleArgument argument = {0, source, 0};
  std::memcpy(&argument.value, &value, sizeof(T));
  MeetWarp(name, mask, &argument, Shuffle, where);
  std::memcpy(&value, &argument.result, sizeof(T));
  return value;
}
inline uint32_t Vote(const char* name, uint32_t mask, uint32_t value, void (*execute)(const Lanes&), Where where) {
  VoteArgument argument = {value, 0};
  MeetWarp(name, mask, &argument, execute, where);
  return argument.result;
}

}  // namespace simt

constexpr int warpSize = 32;

inline void __syncwarp(unsigned int mask = simt::kAllLanes, simt::Where where = SIMT_HERE) {
  int nothing = 0;
  simt::MeetWarp("__syncwarp", mask, &nothing, simt::Nothing, where);
}

template <typename T>
T __shfl_sync(unsigned int mask, T value, int source, int width = 32, simt::Where where = SIMT_HERE) {
  const int segment = simt::ThisLane() & ~(width - 1);
  return simt::ShuffleFrom("__shfl_sync", mask, value, segment + (source & (width - 1)), where);
}
template <typename T>
T __shfl_xor_sync(unsigned int mask, T value, int lane_mask, int width = 32, simt::Where where = SIMT_HERE) {
  const int lane = simt::ThisLane(), source = lane ^ lane_mask;
  const bool is_inside = source < (lane & ~(width - 1)) + width;
  return simt::ShuffleFrom("__shfl_xor_sync", mask, value, is_inside ? source : lane, where);
}
template <typename T>
T __shfl_up_sync(unsigned int mask, T value, unsigned int delta, int width = 32, simt::Where where = SIMT_HERE) {
  const int lane = simt::ThisLane(), source = lane - static_cast<int>(delta);
  const bool is_inside = source >= (lane & ~(width - 1));
  return simt::ShuffleFrom("__shfl_up_sync", mask, value, is_inside ? source : lane, where);
}
template <typename T>
T __shfl_down_sync(unsigned int mask, T value, unsigned int delta, int width = 32, simt::Where where = SIMT_HERE) {
  const int lane = simt::ThisLane(), source = lane + static_cast<int>(delta);
  const bool is_inside = source < (lane & ~(width - 1)) + width;
  return simt::ShuffleFrom("__shfl_down_sync", mask, value, is_inside ? source : lane, where);
}

inline unsigned int __ballot_sync(unsigned int mask, int predicate, simt::Where where = SIMT_HERE) {
  return simt::Vote("__ballot_sync", mask, predicate != 0, simt::Ballot, where);
}
inline int __any_sync(unsigned int mask, int predicate, simt::Where where = SIMT_HERE) {
  return simt::Vote("__any_sync", mask, predicate != 0, simt::Ballot, where) != 0;
}
inline int __all_sync(unsigned int mask, int predicate, simt::Where where = SIMT_HERE) {
  return simt::Vote("__all_sync", mask, predicate != 0, simt::Ballot, where) == mask;
}
inline unsigned int __match_any_sync(unsigned int mask, unsigned int value, simt::Where where = SIMT_HERE) {
  return simt::Vote("__match_any_sync", mask, value, simt::MatchAny, where);
}

#define SIMT_REDUCE(name, signed_execute, unsigned_execute)                                                      \
  inline int name(unsigned int mask, int value, simt::Where where = SIMT_HERE) {                                 \
    return static_cast<int>(simt::Vote(#name, mask, static_cast<uint32_t>(value), simt::signed_execute, where)); \
  }                                                                                                              \
  inline unsigned int name(unsigned int mask, unsigned int value, simt::Where where = SIMT_HERE) {               \
    return simt::Vote(#name, mask, value, simt::unsigned_execute, where);                                        \
  }
SIMT_REDUCE(__reduce_add_sync, ReduceAdd, ReduceAdd)
SIMT_REDUCE(__reduce_min_sync, ReduceSignedMin, ReduceMin)
SIMT_REDUCE(__reduce_max_sync, ReduceSignedMax, ReduceMax)
SIMT_REDUCE(__reduce_or_sync, ReduceOr, ReduceOr)
SIMT_REDUCE(__reduce_and_sync, ReduceAnd, ReduceAnd)
#undef SIMT_REDUCE
