// SPDX-License-Identifier: Apache-2.0
#pragma once
// Pieces of a JSON text as they stand in it, for texts whose exact bytes matter. Free functions, no state.
#include <string_view>
#include <utility>
#include <vector>

namespace millrace {

// The members of an object or the items (with empty keys) of a list, values as views of `json`; keys without their
// quotes, escapes left as they are. REQUIRES: `json` is one valid JSON object or list.
std::vector<std::pair<std::string_view, std::string_view>> JsonSlices(std::string_view json);

}  // namespace millrace
