// SPDX-License-Identifier: Apache-2.0
#pragma once
// Rotary position tables with the scalings of Llama 3 and YaRN. Built once at load, read by the engine thread.
#include <cstdint>
#include <vector>

#include "engine/load/model_info.h"
#include "kernels/ops.h"

namespace millrace {

// cos and sin for positions [0, max_positions), each [max_positions, rotary_dim/2] float32.
// Sources: RoPE (arXiv 2104.09864), YaRN (arXiv 2309.00071), Llama 3's frequency smoothing as in Hugging Face's
// modeling_rope_utils.
class RopeTables {
 public:
  RopeTables(const RopeParams& params, int32_t rotary_dim, int64_t max_positions);
  RopeTable table() const;
  const std::vector<float>& cosines() const { return cos_; }
  const std::vector<float>& sines() const { return sin_; }

 private:
  std::vector<float> cos_;
  std::vector<float> sin_;
  int32_t rotary_dim_;
  bool is_interleaved_;
};

// What the tables of so many positions hold.
size_t RopeTableBytes(int32_t rotary_dim, int64_t max_positions);

// Inverse frequencies after scaling, [rotary_dim/2]; the pair (frequencies, attention factor) defines the table.
std::vector<double> RopeFrequencies(const RopeParams& params, int32_t rotary_dim);
double RopeAttentionFactor(const RopeParams& params);

}  // namespace millrace
