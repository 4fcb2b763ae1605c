// SPDX-License-Identifier: Apache-2.0
#pragma once
// The operations of kernels/expert_ops.h on the CPU but for the multiplication, which is that of matmul.h expert by
// expert. Engine thread; the pool's threads inside.
#include "kernels/cpu/op_context.h"
#include "kernels/expert_ops.h"

namespace millrace::cpu {

void RouteRows(const RouteArgs& args, const OpContext& context);
void DispatchRows(const DispatchArgs& args, const OpContext& context);
void CombineRows(const CombineArgs& args, const OpContext& context);

}  // namespace millrace::cpu
