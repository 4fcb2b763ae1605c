// SPDX-License-Identifier: Apache-2.0
#pragma once
// The response cache's store, as the options ask for it.
#include <memory>

#include "absl/status/statusor.h"
#include "cache/answer_store.h"
#include "server/config/serve_options.h"

namespace millrace {

// Null: off. InvalidArgument: neither off nor memory nor a URL, or a file that cannot be read. A Redis server need not
// be there yet.
absl::StatusOr<std::unique_ptr<AnswerStore>> OpenAnswerStore(const ResponseCacheOptions& options);

// Whether OpenAnswerStore would succeed.
absl::Status CheckResponseCache(const ResponseCacheOptions& options);

}  // namespace millrace
