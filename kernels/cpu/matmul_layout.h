// SPDX-License-Identifier: Apache-2.0
#pragma once
// How the fast paths keep a weight matrix: panels of kLanes * kVectors output channels, each panel one contiguous
// stream along k, so that a kernel reads memory forwards only and every byte once per block of rows.
//
//   panel   = units in rising k
//   unit    = one step (dense, int8 with a scale per channel) or one group: [scales][zeros][steps]
//   step    = for every channel of the panel the next `step_inputs` values of k side by side (one 32-bit lane of a
//             dot-product instruction, or one float)
//   scales  = float16 per channel, in the matrix's scale_unit (int4: high nibbles' a 16th);  zeros = uint8 per channel
//
// int8 is stored as q + 128 (unsigned); int4 as nibbles: with L lanes a vector, byte j*4L + 4c + i of a step holds
// channel 2jL + c (low) and 2jL + L + c (high) at k = 4 * step + i. Padding channels and inputs are zero bytes; the
// padded activations are zero too, so what a padded weight decodes to does not matter. Stateless; any thread.
#include <cstddef>
#include <cstdint>

#include "kernels/cpu/matmul.h"

namespace millrace::cpu {

struct PanelLayout {
  int num_lanes = 0;       // 32-bit lanes of a vector
  int num_channels = 0;    // per panel: num_lanes times the vectors of a tile
  int step_inputs = 0;     // values of k per step
  int64_t step_bytes = 0;  // of one panel
  int64_t steps_per_unit = 0;
  int64_t header_bytes = 0;  // scales and zeros before a unit's steps
  int64_t unit_bytes = 0;
  int64_t num_units = 0;  // along k
  int64_t num_panels = 0;
  int activation_item_bytes = 0;  // packed activations: bytes per row and step

  int64_t panel_bytes() const { return num_units * unit_bytes; }
  int64_t num_steps() const { return num_units * steps_per_unit; }
};

struct LayoutKey {
  WeightFormat format = WeightFormat::kDense;
  DType dtype = DType::kBF16;
  int64_t n = 0;
  int64_t k = 0;
  int group_size = 0;
  bool has_zeros = false;
};

// REQUIRES: path is kAvx2 or kAvx512.
PanelLayout PanelLayoutFor(const LayoutKey& key, CpuPath path);
PanelLayout PanelLayoutOf(const CpuPackedWeight& w);

// Fills data, scales and scale_unit of `packed`, whose other fields are set. ResourceExhausted: no memory.
absl::Status PackPanels(const WeightSource& source, const OpContext& context, CpuPackedWeight& packed);

}  // namespace millrace::cpu
