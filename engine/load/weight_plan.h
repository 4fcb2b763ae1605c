// SPDX-License-Identifier: Apache-2.0
#pragma once
// Which tensors a model consists of, how they are fused, and the format each fused matrix will have: the one list that
// both the memory plan and the assembler follow. Plain functions, loading thread.
#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "engine/load/model_info.h"
#include "engine/load/tensor_source.h"
#include "engine/load/weight_formats.h"
#include "kernels/ops.h"

namespace millrace {

// A matrix as the model uses it: the rows of its parts, one after another.
struct LinearSpec {
  struct Part {
    std::string name;  // without ".weight"
    int64_t n;
  };
  std::vector<Part> parts;
  int64_t k = 0;
  bool has_bias = false;
  int64_t n() const;
};

struct LayerSpec {
  std::string attn_norm, mlp_norm;  // [C]
  std::string q_norm, k_norm;       // [D], empty without QK norm
  LinearSpec qkv, o;
  LinearSpec gate_up, down;  // without parts where there are experts
  LinearSpec router;         // [E, C], without parts in a dense layer
  std::vector<LinearSpec> expert_gate_ups, expert_downs;

  // All but the router: what a quantisation is for.
  std::vector<const LinearSpec*> Linears() const;
};

LayerSpec LayerSpecOf(const ModelInfo& info, int32_t layer);
LinearSpec HeadSpecOf(const ModelInfo& info);

struct LinearPlan {
  WeightKind kind;
  bool is_stored = false;  // taken from the checkpoint as it is
};

// Parts that are stored alike stay as they are. Parts quantised differently become int8; a part in floats beside
// quantised ones makes all of them floats. `wanted` applies to what is stored in floats.
absl::StatusOr<LinearPlan> PlanLinear(const LinearSpec& spec, const WeightKind& wanted, bool may_keep_stored,
                                      TensorSource& source);

// One plan for the same matrix of every expert, which must not differ in format.
absl::StatusOr<LinearPlan> PlanExperts(const std::vector<LinearSpec>& specs, const WeightKind& wanted,
                                       bool may_keep_stored, TensorSource& source);

// InvalidArgument lists tensors that the model needs and the checkpoint lacks.
absl::Status CheckTensors(const ModelInfo& info, const TensorSource& source);

struct WeightMemory {
  size_t num_bytes = 0;         // of everything, packed
  size_t largest_bytes = 0;     // of the largest matrix while it is built, before it is packed
  int32_t num_requantized = 0;  // matrices whose stored form could not be kept
};

// What the weights will take; reads headers only.
absl::StatusOr<WeightMemory> PlanWeights(const ModelInfo& info, const LoadOptions& options, const Ops& ops);

}  // namespace millrace
