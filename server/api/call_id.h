// SPDX-License-Identifier: Apache-2.0
#pragma once
// Names of tool calls. Pure, any thread.
#include <cstdint>
#include <string>

namespace millrace {

// Of the `number`th call of a choice or turn, in an answer made at `now` (nanoseconds): nine letters and digits, since
// Mistral's templates take no other ids; hardly ever twice in a conversation.
std::string MakeCallId(int64_t now, int32_t choice, int32_t number);

}  // namespace millrace
