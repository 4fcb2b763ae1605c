// SPDX-License-Identifier: Apache-2.0
#pragma once
// The plain matrix multiplication: the definition the fast paths are tested against, and what runs on processors
// without them. Weights keep the source's layout. Engine thread; the pool's threads inside.
#include "kernels/cpu/matmul.h"

namespace millrace::cpu {

absl::Status PackReference(const WeightSource& source, CpuPackedWeight& packed);
void MatmulReference(const MatmulArgs& args, const OpContext& context, MatmulWorkspace& workspace);

}  // namespace millrace::cpu
