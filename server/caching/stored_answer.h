// SPDX-License-Identifier: Apache-2.0
#pragma once
// An answer as the response cache keeps it: the deltas of all choices in the order in which they came, as compact
// bytes. Pure functions; the decoder takes hostile bytes.
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "server/pipeline/generation.h"

namespace millrace {

// Longer answers are not kept: a replay comes at once, and must fit into what a connection may have queued.
inline constexpr size_t kMaxStoredBytes = 1 << 20;
inline constexpr size_t kMaxStoredDeltas = 8000;

// About what a delta takes, encoded.
size_t StoredBytes(const TextDelta& delta);

std::string EncodeAnswer(const std::vector<TextDelta>& deltas);
// Nothing when the bytes are not exactly an answer with that many choices, each of which ended by itself.
std::optional<std::vector<TextDelta>> DecodeAnswer(std::string_view bytes, int32_t num_choices);

}  // namespace millrace
