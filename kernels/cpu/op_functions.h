// SPDX-License-Identifier: Apache-2.0
#pragma once
// The operations of kernels/ops.h on the CPU, one function each, in the file of its name; Matmul has its own header
// because of its workspace. Arguments as in ops.h. Engine thread; the pool's threads inside.
#include "kernels/cpu/op_context.h"
#include "kernels/ops.h"

namespace millrace::cpu {

void Embed(const EmbedArgs& args, const OpContext& context);
void RmsNorm(const RmsNormArgs& args, const OpContext& context);
void RopeAppend(const RopeAppendArgs& args, const OpContext& context);
void Attention(const AttentionArgs& args, const OpContext& context);
void SwiGlu(const SwiGluArgs& args, const OpContext& context);
void GatherRows(const GatherRowsArgs& args, const OpContext& context);
void Sample(const SampleArgs& args, const OpContext& context);
void Logprobs(const LogprobsArgs& args, const OpContext& context);

}  // namespace millrace::cpu
