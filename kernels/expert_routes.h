// SPDX-License-Identifier: Apache-2.0
#pragma once
// Which rows of a step go to which expert (kernels/expert_ops.h): a view of the device's memory that owns nothing.
#include <cstdint>

namespace millrace {

inline constexpr int kMaxExperts = 512;
inline constexpr int kMaxExpertChoices = 32;

struct ExpertRoutes {
  int num_experts = 0;         // E
  int num_choices = 0;         // k
  int32_t* experts = nullptr;  // [T, k] the best first; the lower number wins a tie; -1 of a row of padding
  float* weights = nullptr;    // [T, k]
  int32_t* places = nullptr;   // [T, k] where a choice stands among all, sorted by expert, then by row
  int32_t* rows = nullptr;     // [T * k] whose choice stands there
  int32_t* starts = nullptr;   // [E + 1] where an expert's choices begin
};

}  // namespace millrace
