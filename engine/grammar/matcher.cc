// SPDX-License-Identifier: Apache-2.0
#include "engine/grammar/matcher.h"

#include <algorithm>

namespace millrace {

void GrammarMatcher::FillMask(std::span<uint32_t> mask) const {
  if (is_dead()) {
    std::fill(mask.begin(), mask.end(), 0u);
    return;
  }
  const std::span<const uint32_t> allowed = automaton_->Mask(state_);
  std::copy(allowed.begin(), allowed.end(), mask.begin());
}

}  // namespace millrace
