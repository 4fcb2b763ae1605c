// SPDX-License-Identifier: Apache-2.0
#include "kernels/cpu/cpu_expert_ops.h"

#include <utility>
#include <vector>

#include "kernels/check.h"
#include "kernels/cpu/expert_functions.h"
#include "kernels/status_macros.h"

namespace millrace::cpu {
namespace {

struct CpuPackedExperts final : PackedExperts {
  int num_experts() const override { return static_cast<int>(experts.size()); }
  int64_t n() const override { return experts.front()->n(); }
  int64_t k() const override { return experts.front()->k(); }
  size_t num_bytes() const override {
    size_t sum = 0;
    for (const auto& expert : experts) sum += expert->num_bytes();
    return sum;
  }

  std::vector<std::unique_ptr<CpuPackedWeight>> experts;
};

Matrix RowsOf(const Matrix& matrix, int64_t begin, int64_t end) {
  Matrix rows = matrix;
  rows.data = static_cast<float*>(matrix.data) + begin * matrix.stride;
  rows.rows = end - begin;
  return rows;
}

void CheckSorted(const Matrix& sorted, const Matrix& plain, const ExpertRoutes& routes) {
  MILLRACE_CHECK(sorted.rows == plain.rows * routes.num_choices && sorted.cols == plain.cols, "a row for every choice");
  MILLRACE_CHECK(sorted.dtype == DType::kF32 && plain.dtype == DType::kF32, "CPU activations are float32");
}

}  // namespace

absl::StatusOr<std::unique_ptr<PackedExperts>> CpuExpertOps::Pack(
    int num_experts, absl::FunctionRef<absl::StatusOr<WeightSource>(int expert)> source) {
  auto packed = std::make_unique<CpuPackedExperts>();
  for (int e = 0; e < num_experts; ++e) {
    ASSIGN_OR_RETURN(const WeightSource weight, source(e));
    ASSIGN_OR_RETURN(std::unique_ptr<CpuPackedWeight> expert, PackWeight(weight, context_));
    packed->experts.push_back(std::move(expert));
  }
  return packed;
}

void CpuExpertOps::Route(const RouteArgs& args) {
  MILLRACE_CHECK(args.logits.cols == args.routes.num_experts && args.routes.num_experts <= kMaxExperts,
                 "a logit for every expert");
  MILLRACE_CHECK(args.routes.num_choices >= 1 && args.routes.num_choices <= args.routes.num_experts,
                 "no more choices than experts");
  RouteRows(args, context_);
}

void CpuExpertOps::Dispatch(const DispatchArgs& args) {
  CheckSorted(args.out, args.x, args.routes);
  DispatchRows(args, context_);
}

void CpuExpertOps::Matmul(const ExpertMatmulArgs& args) {
  const auto& w = static_cast<const CpuPackedExperts&>(*args.w);
  MILLRACE_CHECK(w.num_experts() == args.routes.num_experts && args.x.rows == args.out.rows, "a matrix an expert");
  for (size_t e = 0; e < w.experts.size(); ++e) {
    const int32_t begin = args.routes.starts[e], end = args.routes.starts[e + 1];
    if (begin == end) continue;
    cpu::Matmul({.x = RowsOf(args.x, begin, end), .w = w.experts[e].get(), .out = RowsOf(args.out, begin, end)},
                context_, workspace_);
  }
}

void CpuExpertOps::Combine(const CombineArgs& args) {
  CheckSorted(args.x, args.out, args.routes);
  CombineRows(args, context_);
}

}  // namespace millrace::cpu
