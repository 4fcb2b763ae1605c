// SPDX-License-Identifier: Apache-2.0
#pragma once
// Ranks in one process that share the host's memory: each adds up its share of a matrix from all the others' memory, in
// the order of the ranks, so that a sum has the same bits on every rank and in every run.
#include <memory>
#include <vector>

#include "kernels/communicator.h"

namespace millrace::cpu {

// REQUIRES: num_ranks >= 1. Their matrices must be float32 in memory that the host can read.
std::vector<std::unique_ptr<Communicator>> ConnectHostRanks(int num_ranks);

}  // namespace millrace::cpu
