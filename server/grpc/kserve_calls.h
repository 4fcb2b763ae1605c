// SPDX-License-Identifier: Apache-2.0
#pragma once
// The two calls of KServe v2 that generate text. Internal to server/grpc.
#include "proto/kserve/v2/inference.grpc.pb.h"
#include "server/grpc/grpc_backend.h"
#include "server/grpc/kserve_tensors.h"

namespace millrace {

grpc::ServerUnaryReactor* BeginModelInfer(const GrpcBackend& backend, CallGate& gate,
                                          grpc::CallbackServerContext* context,
                                          const inference::ModelInferRequest& request,
                                          inference::ModelInferResponse* response);

grpc::ServerBidiReactor<inference::ModelInferRequest, inference::ModelStreamInferResponse>* BeginModelStreamInfer(
    const GrpcBackend& backend, CallGate& gate, CallGate& stream_gate, grpc::CallbackServerContext* context);

}  // namespace millrace
