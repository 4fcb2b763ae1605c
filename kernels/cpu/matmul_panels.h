// SPDX-License-Identifier: Apache-2.0
#pragma once
// The loops around the fast kernels, the same for every instruction set: rows are converted once and cut into tiles,
// panels of the weight are dealt to threads, and each block of a panel is used by all tiles while it lies in cache.
// Engine thread; the pool's threads inside.
#include <cstddef>
#include <cstdint>

#include "kernels/cpu/matmul.h"

namespace millrace::cpu {

// As Matmul (matmul.h), for weights packed in panels.
void MatmulPanels(const MatmulArgs& args, const OpContext& context, MatmulWorkspace& workspace);
size_t PanelWorkspaceBytes(int64_t max_rows, int64_t max_k, int num_threads);

}  // namespace millrace::cpu
