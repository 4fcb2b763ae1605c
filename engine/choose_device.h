// SPDX-License-Identifier: Apache-2.0
#pragma once
// From the words of --device to devices. Loading thread.
#include <cstddef>
#include <string>

#include "absl/status/statusor.h"
#include "engine/run/rank_group.h"
#include "kernels/tensor.h"

namespace millrace {

// A device for each of `num_ranks` ranks, connected with the others. "cpu": each with a share of the threads; "cuda"
// (the driver's first devices) or "cuda:N" (that one and those after it); "auto": CUDA where its first device can be
// opened, else the CPU. InvalidArgument: none of these, or num_ranks is not in 1..64. NotFound: CUDA is asked for and
// something is missing, which the message names, or there are fewer devices than ranks. `activation_dtype`: of CUDA
// devices; the CPU's are float32.
absl::StatusOr<RankDevices> ChooseDevices(const std::string& name, int num_cpu_threads, int num_ranks,
                                          DType activation_dtype = DType::kBF16);

// What each of the ranks may take, so that all have as much, beside what their exchanges took.
size_t BytesForEach(const RankDevices& ranks);

}  // namespace millrace
