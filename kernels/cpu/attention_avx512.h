// SPDX-License-Identifier: Apache-2.0
#pragma once
// The AVX-512 twin of the plain attention. REQUIRES: the processor has the instructions; head_dim a multiple of 16.
#include "kernels/cpu/op_context.h"
#include "kernels/ops.h"

namespace millrace::cpu {

void AttentionAvx512(const AttentionArgs& args, const OpContext& context);

}  // namespace millrace::cpu
