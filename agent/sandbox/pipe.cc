// SPDX-License-Identifier: Apache-2.0
#include "agent/sandbox/pipe.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"

namespace millrace {
namespace {

absl::Status Failed(const char* what) {
  return absl::InternalError(absl::StrCat("no pipe to a child: ", what, ": ", strerrordesc_np(errno)));
}

}  // namespace

UniqueFd AboveStandard(UniqueFd fd) {
  if (fd.get() < 0 || fd.get() > STDERR_FILENO) return fd;
  return UniqueFd(fcntl(fd.get(), F_DUPFD_CLOEXEC, STDERR_FILENO + 1));
}

absl::StatusOr<Pipe> MakePipe(OurEnd ours) {
  int ends[2];
  if (pipe2(ends, O_CLOEXEC) != 0) return Failed("pipe2");
  Pipe pipe{.reader = AboveStandard(UniqueFd(ends[0])), .writer = AboveStandard(UniqueFd(ends[1]))};
  if (pipe.reader.get() < 0 || pipe.writer.get() < 0) return Failed("fcntl");
  const int our_end = ours == OurEnd::kReader ? pipe.reader.get() : pipe.writer.get();
  if (fcntl(our_end, F_SETFL, O_NONBLOCK) != 0) return Failed("fcntl");
  return pipe;
}

}  // namespace millrace
