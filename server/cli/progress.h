// SPDX-License-Identifier: Apache-2.0
#pragma once
// Progress of long work on standard error: a bar on a terminal, else a log line per stage. One thread at a time.
#include <string>
#include <string_view>

#include "absl/time/time.h"
#include "server/log/log.h"

namespace millrace {

class ProgressBar {
 public:
  explicit ProgressBar(Log* log);  // may be null: nothing but the bar
  ~ProgressBar() { Clear(); }
  // `fraction` from 0 to 1.
  void Show(std::string_view stage, double fraction);
  // A text of several lines that should stay.
  void Print(std::string_view title, std::string_view text);
  void Clear();

 private:
  Log* const log_;
  const bool is_terminal_;
  std::string stage_;
  absl::Time begin_ = absl::InfinitePast();
  absl::Time drawn_ = absl::InfinitePast();
  bool is_visible_ = false;
};

}  // namespace millrace
