// SPDX-License-Identifier: Apache-2.0
#pragma once
// KServe v2 (inference.GRPCInferenceService) over the callback API, for text models. Thread-safe; gRPC's threads call
// it and are never blocked. The health questions need no key.
#include "proto/kserve/v2/inference.grpc.pb.h"
#include "server/grpc/grpc_backend.h"

namespace millrace {

class KserveService final : public inference::GRPCInferenceService::CallbackService {
 public:
  // All outlive the service. `stream_gate` counts the open streams of ModelStreamInfer, idle or not; `gate` the
  // requests.
  KserveService(const GrpcBackend& backend, CallGate& gate, CallGate& stream_gate)
      : backend_(backend), gate_(gate), stream_gate_(stream_gate) {}

  grpc::ServerUnaryReactor* ServerLive(grpc::CallbackServerContext* context,
                                       const inference::ServerLiveRequest* request,
                                       inference::ServerLiveResponse* response) override;
  grpc::ServerUnaryReactor* ServerReady(grpc::CallbackServerContext* context,
                                        const inference::ServerReadyRequest* request,
                                        inference::ServerReadyResponse* response) override;
  grpc::ServerUnaryReactor* ModelReady(grpc::CallbackServerContext* context,
                                       const inference::ModelReadyRequest* request,
                                       inference::ModelReadyResponse* response) override;
  grpc::ServerUnaryReactor* ServerMetadata(grpc::CallbackServerContext* context,
                                           const inference::ServerMetadataRequest* request,
                                           inference::ServerMetadataResponse* response) override;
  grpc::ServerUnaryReactor* ModelMetadata(grpc::CallbackServerContext* context,
                                          const inference::ModelMetadataRequest* request,
                                          inference::ModelMetadataResponse* response) override;
  grpc::ServerUnaryReactor* ModelInfer(grpc::CallbackServerContext* context,
                                       const inference::ModelInferRequest* request,
                                       inference::ModelInferResponse* response) override;
  grpc::ServerBidiReactor<inference::ModelInferRequest, inference::ModelStreamInferResponse>* ModelStreamInfer(
      grpc::CallbackServerContext* context) override;

 private:
  const GrpcBackend& backend_;
  CallGate& gate_;
  CallGate& stream_gate_;
};

}  // namespace millrace
