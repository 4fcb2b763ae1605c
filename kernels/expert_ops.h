// SPDX-License-Identifier: Apache-2.0
#pragma once
// The operations of a mixture of experts; the rules of kernels/ops.h hold here too. A row's router chooses k of E
// experts. Each choice becomes a row of its own; these stand sorted by expert, so that an expert's matrix meets all
// its rows at once:
//
//   Route     router logits [T, E]  ─► experts, weights [T, k], and the order
//   Dispatch  x [T, C]              ─► a copy for every choice, sorted [T * k, C]
//   Matmul    every expert's matrix times its rows, once or several times
//   Combine   out [T, C] = what the rows were + the sum of their choices times their weights
#include <cstddef>
#include <cstdint>
#include <memory>

#include "absl/functional/function_ref.h"
#include "absl/status/statusor.h"
#include "kernels/expert_routes.h"
#include "kernels/tensor.h"

namespace millrace {

// The same matrix of every expert in a backend's own layout. Made once at load, read by ExpertOps::Matmul.
class PackedExperts {
 public:
  virtual ~PackedExperts() = default;
  virtual int num_experts() const = 0;
  virtual int64_t n() const = 0;  // of one expert
  virtual int64_t k() const = 0;
  virtual size_t num_bytes() const = 0;  // of all
};

struct RouteArgs {
  Matrix logits;  // [T, E] float32
  // Weights are the softmax over all experts, divided by the sum over a row's choices or left as they are. A row whose
  // logits are not numbers has weights that are not.
  bool is_normalized = true;
  ExpertRoutes routes;  // filled
};

struct DispatchArgs {
  Matrix x;  // [T, C]
  ExpertRoutes routes;
  Matrix out;  // [T * k, C]
};

struct ExpertMatmulArgs {
  Matrix x;                          // [T * k, K], sorted
  const PackedExperts* w = nullptr;  // E times [N, K]
  ExpertRoutes routes;
  Matrix out;  // [T * k, N]
};

struct CombineArgs {
  Matrix x;  // [T * k, C], sorted
  ExpertRoutes routes;
  Matrix out;                      // [T, C] = residual + sum over a row's choices, the best first, of weight * x
  const void* residual = nullptr;  // null: zeros, or [T, C] of out's dtype and stride (may alias out)
};

class ExpertOps {
 public:
  virtual ~ExpertOps() = default;
  // Asks for each expert's matrix in turn; one may go when the next is asked for. All have one shape and format, zero
  // points excepted. Holds num_experts times Ops::PackedBytes at most. Errors as of Ops::Pack, and the source's own.
  virtual absl::StatusOr<std::unique_ptr<PackedExperts>> Pack(
      int num_experts, absl::FunctionRef<absl::StatusOr<WeightSource>(int expert)> source) = 0;

  virtual void Route(const RouteArgs& args) = 0;
  virtual void Dispatch(const DispatchArgs& args) = 0;
  virtual void Matmul(const ExpertMatmulArgs& args) = 0;
  virtual void Combine(const CombineArgs& args) = 0;
};

}  // namespace millrace
