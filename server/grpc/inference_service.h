// SPDX-License-Identifier: Apache-2.0
#pragma once
// millrace.v1.Inference over the callback API: every call becomes a GenerationJob or a question to the tokenizer.
// Thread-safe; gRPC's threads call it and are never blocked.
#include "proto/millrace/v1/inference.grpc.pb.h"
#include "server/grpc/grpc_backend.h"

namespace millrace {

class InferenceService final : public v1::Inference::CallbackService {
 public:
  // Both outlive the service.
  InferenceService(const GrpcBackend& backend, CallGate& gate) : backend_(backend), gate_(gate) {}

  grpc::ServerWriteReactor<v1::GenerateResponse>* Generate(grpc::CallbackServerContext* context,
                                                           const v1::GenerateRequest* request) override;
  grpc::ServerWriteReactor<v1::ChatResponse>* Chat(grpc::CallbackServerContext* context,
                                                   const v1::ChatRequest* request) override;
  grpc::ServerUnaryReactor* Embed(grpc::CallbackServerContext* context, const v1::EmbedRequest* request,
                                  v1::EmbedResponse* response) override;
  grpc::ServerUnaryReactor* Tokenize(grpc::CallbackServerContext* context, const v1::TokenizeRequest* request,
                                     v1::TokenizeResponse* response) override;
  grpc::ServerUnaryReactor* Detokenize(grpc::CallbackServerContext* context, const v1::DetokenizeRequest* request,
                                       v1::DetokenizeResponse* response) override;
  grpc::ServerUnaryReactor* ListModels(grpc::CallbackServerContext* context, const v1::ListModelsRequest* request,
                                       v1::ListModelsResponse* response) override;

 private:
  const GrpcBackend& backend_;
  CallGate& gate_;
};

}  // namespace millrace
