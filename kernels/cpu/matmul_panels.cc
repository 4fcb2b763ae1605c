// SPDX-License-Identifier: Apache-2.0
#include "kernels/cpu/matmul_panels.h"

#include <algorithm>
#include <atomic>

#include "kernels/check.h"
#include "kernels/cpu/cpu_features.h"
#include "kernels/cpu/matmul_kernels.h"
#include "kernels/cpu/matmul_layout.h"

namespace millrace::cpu {
namespace {

// Rows converted at a time. Every panel reads them all, so more would only leave the cache before the next one does;
// few enough rows that their items stay below kMaxBlockItemBytes, yet enough that weights are not read too often.
constexpr int64_t kMaxBlockRows = 512;
constexpr int64_t kMinBlockRows = 64;
constexpr int64_t kMaxBlockItemBytes = int64_t{2} << 20;
constexpr int64_t kFewTiles = 6;
constexpr int64_t kFewTilesBlockBytes = 16 * 1024;
constexpr int64_t kPiecesPerThread = 32;
constexpr int64_t kMinPartTiles = 8;
// Below this many inputs times rows the conversion is not worth waking threads for.
constexpr int64_t kSerialConversion = 16 * 1024;
constexpr int64_t kMaxItemBytes = 8;
constexpr int64_t kMaxChannels = 64;
constexpr int64_t kMinGroup = 32;
constexpr int64_t kLineBytes = 64;

int64_t CeilDiv(int64_t a, int64_t b) { return (a + b - 1) / b; }
int64_t RoundUp(int64_t a, int64_t b) { return CeilDiv(a, b) * b; }

// Everything the threads share while they multiply one block of rows.
struct Block {
  const MatmulArgs* args = nullptr;
  const CpuPackedWeight* w = nullptr;
  PanelLayout layout;
  PanelKernels kernels;
  int64_t first_row = 0;
  int64_t num_rows = 0;
  int64_t num_tiles = 0;
  int64_t short_tile_rows = 0;
  int64_t num_tall_tiles = 0;
  int64_t num_scale_groups = 1;  // scales and offsets per row
  uint8_t* items = nullptr;
  float* scales = nullptr;
  int32_t* offsets = nullptr;
  uint8_t* sums = nullptr;  // [worker][rows][channels] of 4 bytes
  int64_t sums_worker_bytes = 0;

  // The first num_tall_tiles tiles are one row taller. Tile t holds the rows [TileRow(t), TileRow(t + 1)).
  int64_t TileRow(int64_t tile) const { return tile * short_tile_rows + std::min(tile, num_tall_tiles); }
};

PanelKernels KernelsFor(const CpuPackedWeight& w) {
#if defined(__x86_64__)
  const bool is_wide = w.path == CpuPath::kAvx512;
  if (w.source_format == WeightFormat::kDense) return is_wide ? DenseKernelsAvx512(w.dtype) : DenseKernelsAvx2(w.dtype);
  const auto int_kernels = is_wide ? IntKernelsAvx512 : IntKernelsAvx2;
  return int_kernels(w.source_format, w.group_size != 0, w.has_zeros);
#else
  MILLRACE_CHECK(false, "panels are packed only where a fast path exists");
  return {};
#endif
}

int32_t OffsetZero(const CpuPackedWeight& w) {
  if (w.source_format == WeightFormat::kInt8) return 128;
  return w.has_zeros ? 1 : 8;
}

void ConvertTile(const Block& block, int64_t tile) {
  const Matrix& x = block.args->x;
  const int64_t row = block.TileRow(tile);
  const int64_t num_steps = block.layout.num_steps();
  const int64_t rows = block.TileRow(tile + 1) - row;
  block.kernels.rows[rows - 1]({.x = static_cast<const float*>(x.data) + (block.first_row + row) * x.stride,
                                .stride = x.stride,
                                .k = block.w->num_inputs,
                                .num_steps = num_steps,
                                .group_size = block.w->group_size == 0 ? block.w->num_inputs : block.w->group_size,
                                .zero = OffsetZero(*block.w),
                                .items = block.items + row * num_steps * block.layout.activation_item_bytes,
                                .scales = block.scales + row * block.num_scale_groups,
                                .offsets = block.offsets + row * block.num_scale_groups});
}

void WriteTile(const Block& block, int64_t panel, int64_t tile, const uint8_t* sums) {
  const CpuPackedWeight& w = *block.w;
  const MatmulArgs& args = *block.args;
  const int64_t row = block.TileRow(tile);
  const int64_t channel = panel * block.layout.num_channels;
  const int64_t offset = (block.first_row + row) * args.out.stride + channel;
  const bool is_row_scaled = w.source_format == WeightFormat::kInt8 && w.group_size == 0;
  OutputArgs out;
  out.sums = sums;
  if (is_row_scaled) {
    out.row_scales = block.scales + row;
    out.channel_scales = reinterpret_cast<const float*>(w.scales.data()) + channel;
  }
  out.scale_unit = w.scale_unit;
  out.bias = args.bias == nullptr ? nullptr : args.bias + channel;
  out.residual = args.residual == nullptr ? nullptr : static_cast<const float*>(args.residual) + offset;
  out.out = static_cast<float*>(args.out.data) + offset;
  out.stride = args.out.stride;
  out.rows = static_cast<int>(block.TileRow(tile + 1) - row);
  out.channels = static_cast<int>(std::min<int64_t>(block.layout.num_channels, w.num_outputs - channel));
  block.kernels.output(out);
}

// A piece of the work: one panel times the tiles [tile_begin, tile_end).
struct Piece {
  int64_t panel = 0;
  int64_t tile_begin = 0;
  int64_t tile_end = 0;
};

// A block of a panel stays in the first cache (32 KiB on many processors, 48 on some) beside the rows that pass by;
// with few tiles to hide the memory behind, beside the next block too.
int64_t BlockBytes(int64_t num_tiles) {
  static const int64_t cache_bytes = FirstCacheBytes();
  return num_tiles <= kFewTiles ? std::min(cache_bytes / 2, kFewTilesBlockBytes) : cache_bytes / 2;
}

// Units per block of a panel: about `block_bytes`, all blocks alike, whole chunks of steps.
int64_t BlockUnits(const PanelLayout& layout, int64_t block_bytes) {
  const int64_t num_blocks = CeilDiv(layout.panel_bytes(), block_bytes);
  return RoundUp(CeilDiv(layout.num_units, num_blocks), layout.steps_per_unit == 1 ? kChunkSteps : 1);
}

// `after`: the panel this thread will read next, or null; its start is fetched during this panel's last block.
void MultiplyPanel(const Block& block, const Piece& piece, int worker, const uint8_t* after) {
  const PanelLayout& layout = block.layout;
  const uint8_t* weights = block.w->data.data() + piece.panel * layout.panel_bytes();
  const int64_t num_tiles = piece.tile_end - piece.tile_begin;
  const int64_t block_units = BlockUnits(layout, BlockBytes(num_tiles));
  uint8_t* sums = block.sums + worker * block.sums_worker_bytes;
  for (int64_t unit = 0; unit < layout.num_units; unit += block_units) {
    const int64_t num_units = std::min(block_units, layout.num_units - unit);
    const int64_t step = unit * layout.steps_per_unit;
    const bool is_last = unit + num_units == layout.num_units;
    const uint8_t* next = is_last ? after : weights + (unit + num_units) * layout.unit_bytes;
    const int64_t next_units = is_last ? block_units : std::min(block_units, layout.num_units - unit - num_units);
    const int64_t ahead_bytes = next == nullptr ? 0 : next_units * layout.unit_bytes;
    const int64_t tile_ahead_bytes = RoundUp(CeilDiv(ahead_bytes, num_tiles), kLineBytes);
    TileArgs args;
    args.weights = weights + unit * layout.unit_bytes;
    args.num_units = num_units;
    args.steps_per_unit = layout.steps_per_unit;
    args.is_first = unit == 0;
    const int64_t num_chunks = CeilDiv(num_units * layout.steps_per_unit, kChunkSteps);
    args.prefetch_chunk_bytes = RoundUp(CeilDiv(tile_ahead_bytes, num_chunks), kLineBytes);
    for (int64_t tile = piece.tile_begin; tile < piece.tile_end; ++tile) {
      const int64_t row = block.TileRow(tile);
      const int64_t rows = block.TileRow(tile + 1) - row;
      const int64_t group = block.num_scale_groups == 1 ? 0 : unit;
      args.activations = block.items + (row * layout.num_steps() + step * rows) * layout.activation_item_bytes;
      args.scales = block.scales + row * block.num_scale_groups + group * rows;
      args.offsets = block.offsets + row * block.num_scale_groups + group * rows;
      args.sums = sums + (row - block.TileRow(piece.tile_begin)) * layout.num_channels * 4;
      if (next != nullptr) {
        args.prefetch = next + std::min((tile - piece.tile_begin) * tile_ahead_bytes, ahead_bytes);
        args.prefetch_end = next + std::min((tile - piece.tile_begin + 1) * tile_ahead_bytes, ahead_bytes);
      }
      block.kernels.tiles[rows - 1](args);
      if (is_last) WriteTile(block, piece.panel, tile, static_cast<const uint8_t*>(args.sums));
    }
  }
}

void MultiplyBlock(const Block& block, ThreadPool& pool) {
  const int64_t num_panels = block.layout.num_panels;
  // Enough pieces that the thread which ends last is not far behind. With few panels the rows are cut too; each part
  // reads the whole panel, so parts stay large.
  const int64_t wanted_pieces = kPiecesPerThread * pool.num_threads();
  const int64_t max_parts = std::max<int64_t>(1, block.num_tiles / kMinPartTiles);
  const int64_t num_parts = std::clamp<int64_t>(CeilDiv(wanted_pieces, num_panels), 1, max_parts);
  const int64_t num_pieces = num_panels * num_parts;
  // Threads take the next piece before they start on the one they have, to know what to fetch meanwhile.
  std::atomic<int64_t> num_taken{0};
  pool.Run([&](int worker) {
    int64_t piece = num_taken.fetch_add(1, std::memory_order_relaxed);
    while (piece < num_pieces) {
      const int64_t next = num_taken.fetch_add(1, std::memory_order_relaxed);
      const int64_t part = piece % num_parts;
      const bool is_new_panel = next < num_pieces && next / num_parts != piece / num_parts;
      MultiplyPanel(block,
                    {.panel = piece / num_parts,
                     .tile_begin = block.num_tiles * part / num_parts,
                     .tile_end = block.num_tiles * (part + 1) / num_parts},
                    worker,
                    is_new_panel ? block.w->data.data() + next / num_parts * block.layout.panel_bytes() : nullptr);
      piece = next;
    }
  });
}

}  // namespace

size_t PanelWorkspaceBytes(int64_t max_rows, int64_t max_k, int num_threads) {
  const int64_t rows = std::min(max_rows, kMaxBlockRows);
  const int64_t padded_k = RoundUp(max_k, 128);
  // Items are at most 8 bytes per two inputs (or 4 per one); a scale and an offset per group of 32 inputs.
  const int64_t row_bytes = padded_k * kMaxItemBytes / 2;
  const int64_t items_bytes = std::min(rows * row_bytes, std::max(kMaxBlockItemBytes, kMinBlockRows * row_bytes));
  const int64_t groups_bytes = rows * (padded_k / kMinGroup) * 8;
  const int64_t sums_bytes = RoundUp(rows * kMaxChannels * 4, 4096) * num_threads;
  return static_cast<size_t>(items_bytes + groups_bytes + sums_bytes + 4096);
}

void MatmulPanels(const MatmulArgs& args, const OpContext& context, MatmulWorkspace& workspace) {
  Block block;
  block.args = &args;
  block.w = static_cast<const CpuPackedWeight*>(args.w);
  block.layout = PanelLayoutOf(*block.w);
  block.kernels = KernelsFor(*block.w);
  if (block.w->group_size != 0) block.num_scale_groups = block.layout.num_units;
  const int64_t row_bytes = block.layout.num_steps() * block.layout.activation_item_bytes;
  const int64_t max_block_rows =
      std::min(workspace.max_rows, std::clamp(kMaxBlockItemBytes / row_bytes, kMinBlockRows, kMaxBlockRows));
  const int64_t num_blocks = CeilDiv(args.x.rows, max_block_rows);
  const int64_t block_rows = CeilDiv(args.x.rows, num_blocks);

  uint8_t* memory = workspace.memory.data();
  block.sums_worker_bytes = RoundUp(block_rows * block.layout.num_channels * 4, 4096);
  block.sums = memory;
  memory += block.sums_worker_bytes * context.pool.num_threads();
  block.items = memory;
  memory += RoundUp(block_rows * row_bytes, kLineBytes);
  block.scales = reinterpret_cast<float*>(memory);
  block.offsets = reinterpret_cast<int32_t*>(block.scales + block_rows * block.num_scale_groups);
  MILLRACE_DCHECK(reinterpret_cast<uint8_t*>(block.offsets + block_rows * block.num_scale_groups) <=
                      workspace.memory.data() + workspace.memory.num_bytes(),
                  "the workspace covers a block of rows");

  for (int64_t row = 0; row < args.x.rows; row += block_rows) {
    block.first_row = row;
    block.num_rows = std::min(block_rows, args.x.rows - row);
    block.num_tiles = CeilDiv(block.num_rows, block.kernels.max_tile_rows);
    block.short_tile_rows = block.num_rows / block.num_tiles;
    block.num_tall_tiles = block.num_rows % block.num_tiles;
    if (block.num_rows * block.w->num_inputs <= kSerialConversion) {
      for (int64_t tile = 0; tile < block.num_tiles; ++tile) ConvertTile(block, tile);
    } else {
      context.pool.ParallelForChunks(block.num_tiles, 1, [&](int64_t begin, int64_t end, int) {
        for (int64_t tile = begin; tile < end; ++tile) ConvertTile(block, tile);
      });
    }
    MultiplyBlock(block, context.pool);
  }
}

}  // namespace millrace::cpu
