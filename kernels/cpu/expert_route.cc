// SPDX-License-Identifier: Apache-2.0
// The choice of experts: softmax over the router's logits, the k best, and a counting sort of all choices by expert.
// What a row chooses depends on that row alone.
#include <cmath>
#include <limits>

#include "kernels/cpu/expert_functions.h"

namespace millrace::cpu {
namespace {

// What is not a number comes last, so that any logits give k different experts.
float SortKey(float logit) { return std::isnan(logit) ? -std::numeric_limits<float>::infinity() : logit; }

// The `num_choices` largest in falling order, the lower index first among equals.
void ChooseExperts(const float* logits, int num_experts, int num_choices, int32_t* chosen) {
  int num_chosen = 0;
  for (int e = 0; e < num_experts; ++e) {
    const float key = SortKey(logits[e]);
    if (num_chosen == num_choices && !(key > SortKey(logits[chosen[num_choices - 1]]))) continue;
    int at = num_chosen < num_choices ? num_chosen++ : num_choices - 1;
    for (; at > 0 && key > SortKey(logits[chosen[at - 1]]); --at) chosen[at] = chosen[at - 1];
    chosen[at] = e;
  }
}

void WeighChoices(const float* logits, const RouteArgs& args, const int32_t* chosen, float* weights) {
  const int num_choices = args.routes.num_choices;
  const float largest = logits[chosen[0]];
  float chosen_sum = 0, sum = 0;
  for (int c = 0; c < num_choices; ++c) {
    weights[c] = std::exp(logits[chosen[c]] - largest);
    chosen_sum += weights[c];
  }
  if (!args.is_normalized) {
    for (int e = 0; e < args.routes.num_experts; ++e) sum += std::exp(logits[e] - largest);
  }
  const float scale = 1.0f / (args.is_normalized ? chosen_sum : sum);
  for (int c = 0; c < num_choices; ++c) weights[c] *= scale;
}

}  // namespace

void RouteRows(const RouteArgs& args, const OpContext& context) {
  const ExpertRoutes& routes = args.routes;
  const int num_choices = routes.num_choices;
  context.pool.ParallelFor(args.logits.rows, [&](int64_t begin, int64_t end, int /*worker*/) {
    for (int64_t row = begin; row < end; ++row) {
      const float* logits = static_cast<const float*>(args.logits.data) + row * args.logits.stride;
      int32_t* chosen = routes.experts + row * num_choices;
      ChooseExperts(logits, routes.num_experts, num_choices, chosen);
      WeighChoices(logits, args, chosen, routes.weights + row * num_choices);
    }
  });
  int32_t* starts = routes.starts;
  const int64_t count = args.logits.rows * num_choices;
  for (int e = 0; e <= routes.num_experts; ++e) starts[e] = 0;
  for (int64_t i = 0; i < count; ++i) ++starts[routes.experts[i] + 1];
  for (int e = 0; e < routes.num_experts; ++e) starts[e + 1] += starts[e];
  int32_t next[kMaxExperts];
  for (int e = 0; e < routes.num_experts; ++e) next[e] = starts[e];
  for (int64_t i = 0; i < count; ++i) {
    const int32_t place = next[routes.experts[i]]++;
    routes.places[i] = place;
    routes.rows[place] = static_cast<int32_t>(i / num_choices);
  }
}

}  // namespace millrace::cpu
