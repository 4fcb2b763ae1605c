// SPDX-License-Identifier: Apache-2.0
#pragma once
// `millrace inspect MODEL` (what it is and what it would take of memory) and `millrace quantize IN OUT`. Main thread.
#include <string>

#include "server/config/serve_options.h"

namespace millrace {

struct QuantizeOptions {
  std::string input;
  std::string output;           // a new directory
  std::string format = "int4";  // int8, int4, int4-g32
};

int RunInspect(const ServeOptions& serve);
int RunQuantize(const QuantizeOptions& options);

}  // namespace millrace
