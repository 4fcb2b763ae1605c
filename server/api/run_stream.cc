// SPDX-License-Identifier: Apache-2.0
#include "server/api/run_stream.h"

#include <utility>

namespace millrace {

void RunStream::Write(std::string_view bytes) {
  if (!std::exchange(has_begun_, true)) writer_->BeginStream(options_);
  if (!writer_->Write(bytes)) switch_->Pull();
}

void RunStream::CancelOnClose(std::shared_ptr<Cancellation> cancellation) {
  switch_->Connect(std::move(cancellation));
  writer_->OnClose([pulled = switch_] { pulled->Pull(); });
}

}  // namespace millrace
