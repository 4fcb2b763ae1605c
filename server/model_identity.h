// SPDX-License-Identifier: Apache-2.0
#pragma once
// What a served model is, as one digest: two processes with the same one give the same answers.
#include "cache/cache_key.h"
#include "engine/engine.h"

namespace millrace {

// Over the weights' fingerprint, shape and defaults, the vocabulary, how the weights and the KV cache are held, the
// build (build ids of this program and of the CUDA backend, as loaded now) and the processor's abilities. Some
// milliseconds.
Digest ModelIdentity(const Engine& engine, const EngineOptions& options);

}  // namespace millrace
