// SPDX-License-Identifier: Apache-2.0
#include "kernels/cpu/matmul_layout.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "kernels/check.h"
#include "kernels/cpu/dtype_convert.h"
#include "kernels/status_macros.h"

namespace millrace::cpu {
namespace {

// Steps copied per channel before the next channel's turn: source and destination both stay in the first cache.
constexpr int64_t kStepsPerCopy = 16;

int64_t CeilDiv(int64_t a, int64_t b) { return (a + b - 1) / b; }

// Source channels [first, first + count) of one panel; further channels of the panel are padding.
struct PanelSource {
  const WeightSource* source = nullptr;
  int64_t first = 0;
  int64_t count = 0;
};

// Copies items of `item_bytes` (a step of one channel) from rows of `row_bytes` into the interleaved steps. kFlip
// turns int8 into q + 128.
template <int kItemBytes, bool kFlip>
void InterleaveRows(const PanelSource& panel, int64_t row_bytes, const PanelLayout& layout, uint8_t* out) {
  const uint8_t* values = static_cast<const uint8_t*>(panel.source->values) + panel.first * row_bytes;
  const int64_t num_steps = CeilDiv(row_bytes, kItemBytes);
  for (int64_t step = 0; step < num_steps; step += kStepsPerCopy) {
    const int64_t step_end = std::min(step + kStepsPerCopy, num_steps);
    for (int64_t channel = 0; channel < panel.count; ++channel) {
      const uint8_t* row = values + channel * row_bytes;
      for (int64_t s = step; s < step_end; ++s) {
        uint8_t item[kItemBytes] = {};
        const int64_t num_bytes = std::min<int64_t>(kItemBytes, row_bytes - s * kItemBytes);
        if (num_bytes == kItemBytes) {
          std::memcpy(item, row + s * kItemBytes, kItemBytes);
        } else {
          std::memcpy(item, row + s * kItemBytes, static_cast<size_t>(num_bytes));
        }
        if constexpr (kFlip) {
          for (uint8_t& value : item) value ^= 0x80u;
        }
        const int64_t unit = s / layout.steps_per_unit;
        uint8_t* steps = out + unit * layout.unit_bytes + layout.header_bytes;
        std::memcpy(steps + (s - unit * layout.steps_per_unit) * layout.step_bytes + channel * kItemBytes, item,
                    kItemBytes);
      }
    }
  }
}

// Nibbles: two vectors of channels share the bytes of one.
void InterleaveNibbles(const PanelSource& panel, const PanelLayout& layout, uint8_t* out) {
  const int64_t row_bytes = panel.source->k / 2;
  const uint8_t* values = static_cast<const uint8_t*>(panel.source->values) + panel.first * row_bytes;
  const int lanes = layout.num_lanes;
  for (int64_t unit = 0; unit < layout.num_units; ++unit) {
    uint8_t* steps = out + unit * layout.unit_bytes + layout.header_bytes;
    for (int64_t channel = 0; channel < panel.count; ++channel) {
      const uint8_t* row = values + channel * row_bytes + unit * layout.steps_per_unit * 2;
      const int64_t vector = channel / lanes;
      uint8_t* column = steps + (vector / 2 * lanes + channel % lanes) * 4;
      const int shift = vector % 2 == 0 ? 0 : 4;
      for (int64_t step = 0; step < layout.steps_per_unit; ++step) {
        for (int i = 0; i < 4; ++i) {
          const int nibble = (row[step * 2 + i / 2] >> (i % 2 * 4)) & 15;
          column[step * layout.step_bytes + i] |= static_cast<uint8_t>(nibble << shift);
        }
      }
    }
  }
}

void WriteHeaders(const PanelSource& panel, const PanelLayout& layout, float scale_unit, uint8_t* out) {
  const WeightSource& source = *panel.source;
  const float to_units = 1.0f / scale_unit;  // a power of two: exact
  for (int64_t unit = 0; unit < layout.num_units; ++unit) {
    uint8_t* header = out + unit * layout.unit_bytes;
    uint8_t* zeros = header + layout.num_channels * sizeof(uint16_t);
    for (int64_t channel = 0; channel < panel.count; ++channel) {
      const int64_t index = (panel.first + channel) * layout.num_units + unit;
      // High nibbles are multiplied where they lie, 16 times too large.
      const bool is_high = source.format == WeightFormat::kInt4 && channel / layout.num_lanes % 2 == 1;
      const uint16_t scale = F16FromFloat(source.scales[index] * to_units * (is_high ? 0.0625f : 1.0f));
      std::memcpy(header + channel * sizeof(uint16_t), &scale, sizeof(scale));
      if (source.zeros != nullptr) zeros[channel] = source.zeros[index];
    }
  }
}

void PackPanel(const PanelSource& panel, const PanelLayout& layout, float scale_unit, uint8_t* out) {
  const WeightSource& source = *panel.source;
  switch (source.format) {
    case WeightFormat::kDense:
      if (source.dtype == DType::kF16) return InterleaveRows<2, false>(panel, source.k * 2, layout, out);
      return InterleaveRows<4, false>(panel, source.k * static_cast<int64_t>(DTypeBytes(source.dtype)), layout, out);
    case WeightFormat::kInt8:
      InterleaveRows<4, true>(panel, source.k, layout, out);
      break;
    case WeightFormat::kInt4:
      InterleaveNibbles(panel, layout, out);
      break;
  }
  if (source.group_size != 0) WriteHeaders(panel, layout, scale_unit, out);
}

// The power of two that brings the largest scale into [2^13, 2^14): float16 then keeps 28 binades below it normal, and
// scales that came as float16 stay exact.
float ScaleUnit(const WeightSource& source) {
  float max = 0;
  const int64_t num_scales = source.n * (source.k / source.group_size);
  for (int64_t i = 0; i < num_scales; ++i) {
    if (std::isfinite(source.scales[i])) max = std::max(max, std::fabs(source.scales[i]));
  }
  if (max == 0) return 1.0f;
  // Clamped so that neither the unit nor its inverse leaves float's normal range.
  return std::ldexp(1.0f, std::clamp(std::ilogb(max) - 13, -120, 120));
}

}  // namespace

PanelLayout PanelLayoutFor(const LayoutKey& key, CpuPath path) {
  MILLRACE_CHECK(path == CpuPath::kAvx2 || path == CpuPath::kAvx512, "only the fast paths keep panels");
  PanelLayout layout;
  const bool is_wide = path == CpuPath::kAvx512;
  layout.num_lanes = is_wide ? 16 : 8;
  // As wide as the sums of a tile allow; groups need registers for their float sums too.
  layout.num_channels = !is_wide ? 16 : key.group_size == 0 ? 64 : 32;
  layout.num_panels = CeilDiv(key.n, layout.num_channels);
  layout.steps_per_unit = 1;
  if (key.format == WeightFormat::kDense) {
    layout.step_inputs = key.dtype == DType::kBF16 ? 2 : 1;
    layout.step_bytes = layout.num_channels * (key.dtype == DType::kF16 ? 2 : 4);
    layout.activation_item_bytes = is_wide ? 4 : 4 * layout.step_inputs;
  } else {
    const bool is_int4 = key.format == WeightFormat::kInt4;
    layout.step_inputs = 4;
    layout.step_bytes = layout.num_channels * (is_int4 ? 2 : 4);
    layout.activation_item_bytes = is_wide || is_int4 ? 4 : 8;
    if (key.group_size != 0) {
      layout.steps_per_unit = key.group_size / 4;
      layout.header_bytes = layout.num_channels * (key.has_zeros ? 3 : 2);
    }
  }
  layout.unit_bytes = layout.header_bytes + layout.steps_per_unit * layout.step_bytes;
  layout.num_units = CeilDiv(key.k, layout.steps_per_unit * layout.step_inputs);
  return layout;
}

PanelLayout PanelLayoutOf(const CpuPackedWeight& w) {
  return PanelLayoutFor({.format = w.source_format,
                         .dtype = w.dtype,
                         .n = w.num_outputs,
                         .k = w.num_inputs,
                         .group_size = w.group_size,
                         .has_zeros = w.has_zeros},
                        w.path);
}

absl::Status PackPanels(const WeightSource& source, const OpContext& context, CpuPackedWeight& packed) {
  const PanelLayout layout = PanelLayoutOf(packed);
  ASSIGN_OR_RETURN(packed.data, PageBuffer::Allocate(static_cast<size_t>(layout.num_panels * layout.panel_bytes())));
  if (source.format == WeightFormat::kInt8 && source.group_size == 0) {
    const size_t padded = static_cast<size_t>(layout.num_panels * layout.num_channels);
    ASSIGN_OR_RETURN(packed.scales, PageBuffer::Allocate(padded * sizeof(float)));
    std::memcpy(packed.scales.data(), source.scales, static_cast<size_t>(source.n) * sizeof(float));
  }
  if (packed.group_size != 0) packed.scale_unit = ScaleUnit(source);
  context.pool.ParallelForChunks(layout.num_panels, 1, [&](int64_t begin, int64_t end, int) {
    for (int64_t index = begin; index < end; ++index) {
      const int64_t first = index * layout.num_channels;
      const PanelSource panel = {&source, first, std::min<int64_t>(layout.num_channels, source.n - first)};
      PackPanel(panel, layout, packed.scale_unit, packed.data.data() + index * layout.panel_bytes());
    }
  });
  return absl::OkStatus();
}

}  // namespace millrace::cpu
