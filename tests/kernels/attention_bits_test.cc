// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <catch2/catch.hpp>
#include <cmath>
#include <cstring>
#include <vector>

#include "kernels/cpu/cpu_features.h"
#include "kernels/cpu/op_context.h"
#include "kernels/cpu/op_functions.h"
#include "kernels/ops.h"
#include "tests/support/reference_attention.h"

namespace millrace {
namespace {

using testing::HeadReference;
using testing::RandomFloats;
using testing::ReferenceHead;
using testing::ScatteredPages;
using testing::TestKv;

struct Shape {
  DType dtype = DType::kF32;
  int num_heads = 4;
  int num_kv_heads = 2;
  int head_dim = 32;
  int page_tokens = 16;
  int32_t window_tokens = 0;
};

// The queries of tokens [first, first + count) of a sequence: equal wherever they are computed.
std::vector<float> Queries(const Shape& shape, int64_t first, int64_t count, uint32_t seed) {
  std::vector<float> queries;
  for (int64_t token = first; token < first + count; ++token) {
    const auto row = RandomFloats(shape.num_heads * shape.head_dim, seed * 104729 + static_cast<uint32_t>(token));
    queries.insert(queries.end(), row.begin(), row.end());
  }
  return queries;
}

struct Part {
  int64_t context = 0;
  int64_t rows = 1;
  uint32_t seed = 1;
};

// Runs one step over `parts`, each a sequence on pages of its own; returns the rows' outputs.
std::vector<float> Attend(const Shape& shape, const std::vector<Part>& parts, CpuPath path, int num_threads,
                          uint32_t layout_seed, bool is_compared = false) {
  int64_t num_pages = 3;
  for (const Part& part : parts) num_pages += (part.context + part.rows) / shape.page_tokens + 1;
  TestKv kv(shape.dtype, shape.num_kv_heads, shape.head_dim, shape.page_tokens, num_pages);
  const auto all_pages = ScatteredPages(num_pages, num_pages, layout_seed);
  std::vector<std::vector<int32_t>> pages;
  std::vector<AttentionSequence> sequences;
  std::vector<float> q;
  size_t used = 0;
  int32_t row = 0;
  const int64_t width = static_cast<int64_t>(shape.num_heads) * shape.head_dim;
  for (const Part& part : parts) {
    const size_t count = static_cast<size_t>((part.context + part.rows + shape.page_tokens - 1) / shape.page_tokens);
    pages.emplace_back(all_pages.begin() + static_cast<ptrdiff_t>(used),
                       all_pages.begin() + static_cast<ptrdiff_t>(used + count));
    used += count;
    // What the window has passed stays poisoned.
    const int64_t first = shape.window_tokens > 0 ? std::max<int64_t>(0, part.context + 1 - shape.window_tokens) : 0;
    kv.Fill(pages.back(), first, part.context + part.rows, part.seed);
    const auto own = Queries(shape, part.context, part.rows, part.seed);
    q.insert(q.end(), own.begin(), own.end());
  }
  for (size_t i = 0; i < parts.size(); ++i) {
    sequences.push_back({.first_row = row,
                         .num_rows = static_cast<int32_t>(parts[i].rows),
                         .context_tokens = static_cast<int32_t>(parts[i].context),
                         .pages = pages[i].data()});
    row += static_cast<int32_t>(parts[i].rows);
  }
  std::vector<float> out(q.size(), NAN);
  const AttentionArgs args{.q = {.data = q.data(), .rows = row, .cols = width, .stride = width},
                           .num_heads = shape.num_heads,
                           .kv = kv.layer(),
                           .sequences = sequences,
                           .scale = 1.0f / std::sqrt(static_cast<float>(shape.head_dim)),
                           .window_tokens = shape.window_tokens,
                           .out = {.data = out.data(), .rows = row, .cols = width, .stride = width}};
  cpu::ThreadPool pool(num_threads);
  cpu::Attention(args, cpu::OpContext{pool, path});
  if (!is_compared) return out;
  for (const AttentionSequence& sequence : sequences) {
    for (int64_t r = 0; r < sequence.num_rows; ++r) {
      for (int64_t h = 0; h < shape.num_heads; ++h) {
        const HeadReference want = ReferenceHead(args, sequence, r, h);
        // A score's chain of D additions errs by D*eps*sum|qk|, twice that enters each weight; the sums over n tokens
        // and the exponentials add (n + 8) * eps. eps = 2^-24.
        const double tokens = static_cast<double>(sequence.context_tokens + r + 1);
        const double relative = 0x1p-24 * (2 * (shape.head_dim + 2) * want.largest_score + 2 * tokens + 16);
        for (int64_t d = 0; d < shape.head_dim; ++d) {
          const float got = out[static_cast<size_t>((sequence.first_row + r) * width + h * shape.head_dim + d)];
          const double expected = want.out[static_cast<size_t>(d)];
          const double tolerance = relative * want.magnitude[static_cast<size_t>(d)] + 1e-30;
          if (!(std::abs(got - expected) <= tolerance)) {
            CAPTURE(r, h, d, got, expected, tolerance, layout_seed);
            FAIL("attention differs from the reference");
          }
        }
      }
    }
  }
  return out;
}

bool SameBits(const float* a, const float* b, size_t count) { return std::memcmp(a, b, count * sizeof(float)) == 0; }

std::vector<CpuPath> Paths() {
  std::vector<CpuPath> paths = {CpuPath::kReference};
  for (const CpuPath path : {CpuPath::kAvx2, CpuPath::kAvx512}) {
    if (MakeCpuDevice({.num_threads = 1, .path = path}).ok()) paths.push_back(path);
  }
  return paths;
}

constexpr DType kKvTypes[] = {DType::kF32, DType::kF16, DType::kBF16, DType::kI8};

}  // namespace

TEST_CASE("Attention: every KV type and path agrees with double precision over scattered, poisoned pages",
          "[kernels][attention]") {
  for (const CpuPath path : Paths()) {
    for (const DType dtype : kKvTypes) {
      for (const int head_dim : {8, 10, 64, 80}) {
        const Shape shape{.dtype = dtype, .num_heads = 6, .num_kv_heads = 2, .head_dim = head_dim};
        CAPTURE(static_cast<int>(path), DTypeName(dtype), head_dim);
        Attend(shape, {{0, 1, 1}, {31, 2, 2}, {97, 1, 3}, {5, 37, 4}, {63, 1, 5}, {64, 1, 6}}, path, 2, 11, true);
      }
    }
  }
}

TEST_CASE("Attention: head groupings, page sizes and windows agree with double precision", "[kernels][attention]") {
  const Shape shapes[] = {{.num_heads = 1, .num_kv_heads = 1, .head_dim = 256, .page_tokens = 1},
                          {.num_heads = 14, .num_kv_heads = 2, .head_dim = 64, .page_tokens = 7},
                          {.num_heads = 3, .num_kv_heads = 3, .head_dim = 16, .page_tokens = 64},
                          {.num_heads = 71, .num_kv_heads = 1, .head_dim = 16, .page_tokens = 16},
                          {.num_heads = 4, .num_kv_heads = 2, .head_dim = 32, .page_tokens = 16, .window_tokens = 1},
                          {.num_heads = 4, .num_kv_heads = 2, .head_dim = 32, .page_tokens = 16, .window_tokens = 37},
                          {.num_heads = 4, .num_kv_heads = 2, .head_dim = 32, .page_tokens = 8, .window_tokens = 1100}};
  for (const CpuPath path : Paths()) {
    for (const Shape& shape : shapes) {
      CAPTURE(static_cast<int>(path), shape.num_heads, shape.head_dim, shape.page_tokens, shape.window_tokens);
      Attend(shape, {{0, 13, 1}, {130, 1, 2}, {1020, 9, 3}, {2047, 1, 4}}, path, 2, 5, true);
    }
  }
}

TEST_CASE("Attention: a row's bits do not depend on the batch, the pages or the threads", "[kernels][attention]") {
  const Part part{.context = 1100, .rows = 3, .seed = 9};
  for (const CpuPath path : Paths()) {
    for (const DType dtype : kKvTypes) {
      const Shape shape{.dtype = dtype, .num_heads = 4, .num_kv_heads = 2, .head_dim = 48};
      const auto alone = Attend(shape, {part}, path, 1, 1);
      for (const int num_threads : {1, 2, 5}) {
        CAPTURE(static_cast<int>(path), DTypeName(dtype), num_threads);
        const auto other_pages = Attend(shape, {part}, path, num_threads, 77);
        CHECK(SameBits(alone.data(), other_pages.data(), alone.size()));
        const auto batch = Attend(shape, {{10, 5, 2}, part, {300, 1, 4}}, path, num_threads, 3);
        CHECK(SameBits(alone.data(), batch.data() + 5 * 4 * 48, alone.size()));
      }
    }
  }
}

TEST_CASE("Attention: a row's bits do not depend on where a prefill was cut", "[kernels][attention]") {
  for (const CpuPath path : Paths()) {
    for (const DType dtype : kKvTypes) {
      for (const int32_t window : {0, 50}) {
        const Shape shape{.dtype = dtype, .num_heads = 6, .num_kv_heads = 2, .head_dim = 24, .window_tokens = window};
        CAPTURE(static_cast<int>(path), DTypeName(dtype), window);
        const size_t width = 6 * 24;
        const int64_t total = 141;
        const auto whole = Attend(shape, {{0, total, 1}}, path, 2, 1);
        for (const int64_t chunk : {1, 5, 47, 64}) {
          for (int64_t at = 0; at < total; at += chunk) {
            const int64_t rows = std::min(chunk, total - at);
            const auto part = Attend(shape, {{at, rows, 1}}, path, 2, static_cast<uint32_t>(at));
            CHECK(SameBits(whole.data() + static_cast<size_t>(at) * width, part.data(), part.size()));
          }
        }
      }
    }
  }
}

TEST_CASE("Attention: a cut across KV splits changes no bit", "[kernels][attention]") {
  for (const CpuPath path : Paths()) {
    const Shape shape{.dtype = DType::kBF16, .num_heads = 2, .num_kv_heads = 1, .head_dim = 16};
    const auto whole = Attend(shape, {{1000, 60, 1}}, path, 2, 1);
    for (const int64_t row : {0, 23, 24, 25, 59}) {
      CAPTURE(static_cast<int>(path), row);
      const auto alone = Attend(shape, {{1000 + row, 1, 1}}, path, 3, 2);
      CHECK(SameBits(whole.data() + row * 32, alone.data(), 32));
    }
  }
}

}  // namespace millrace
