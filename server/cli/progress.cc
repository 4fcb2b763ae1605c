// SPDX-License-Identifier: Apache-2.0
#include "server/cli/progress.h"

#include <unistd.h>

#include <algorithm>
#include <cstdio>

#include "absl/strings/str_format.h"
#include "absl/time/clock.h"

namespace millrace {

ProgressBar::ProgressBar(Log* log) : log_(log), is_terminal_(isatty(STDERR_FILENO) == 1) {}

void ProgressBar::Show(std::string_view stage, double fraction) {
  const absl::Time now = absl::Now();
  const bool is_new = stage != stage_;
  if (is_new) {
    stage_ = std::string(stage);
    begin_ = now;
  }
  if (!is_terminal_) {
    if (log_ != nullptr && (is_new || fraction >= 1)) {
      log_->Info("progress",
                 {{"stage", stage_}, {"fraction", fraction}, {"seconds", absl::ToDoubleSeconds(now - begin_)}});
    }
    return;
  }
  if (!is_new && fraction < 1 && now - drawn_ < absl::Milliseconds(50)) return;
  drawn_ = now;
  constexpr int kCells = 32;
  const int filled = static_cast<int>(std::clamp(fraction, 0.0, 1.0) * kCells);
  const std::string bar =
      std::string(static_cast<size_t>(filled), '#') + std::string(static_cast<size_t>(kCells - filled), '.');
  absl::FPrintF(stderr, "\r\033[K%s [%s] %3.0f%% %.1fs", stage_, bar, fraction * 100,
                absl::ToDoubleSeconds(now - begin_));
  std::fflush(stderr);
  is_visible_ = true;
}

void ProgressBar::Print(std::string_view title, std::string_view text) {
  Clear();
  if (is_terminal_) {
    absl::FPrintF(stderr, "%s\n", std::string(text));
  } else if (log_ != nullptr) {
    log_->Info(title, {{"text", text}});
  }
}

void ProgressBar::Clear() {
  if (is_visible_) std::fputs("\r\033[K", stderr);
  is_visible_ = false;
}

}  // namespace millrace
