// SPDX-License-Identifier: Apache-2.0
#pragma once
// A generator with a response cache before it. What can be repeated (temperature 0, or a seed) is answered from the
// cache, shares the generation of the same request under way, or is computed and kept; the rest goes through.
#include <memory>

#include "server/caching/answer_key.h"
#include "server/caching/response_cache.h"
#include "server/pipeline/generation.h"

namespace millrace {

struct CachingArgs {
  std::shared_ptr<Generator> inner;
  ResponseCache& cache;  // outlives the generator
  ServedModel model;
  RequestObserver* observer = nullptr;  // hears of what is answered without the inner one; may be null
};

// A request that needs a hit and has none gets DeadlineExceeded: HTTP's 504, as RFC 9111 wants it.
std::shared_ptr<Generator> MakeCachingGenerator(CachingArgs args);

}  // namespace millrace
