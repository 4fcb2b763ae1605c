// SPDX-License-Identifier: Apache-2.0
#include "server/grpc/kserve_service.h"

#include <memory>
#include <utility>

#include "engine/load/model_info.h"
#include "server/api/answer.h"
#include "server/grpc/kserve_calls.h"

namespace millrace {
namespace {

grpc::ServerUnaryReactor* Finish(grpc::CallbackServerContext* context, const absl::Status& status) {
  grpc::ServerUnaryReactor* reactor = context->DefaultReactor();
  reactor->Finish(ToGrpcStatus(status, context));
  return reactor;
}

}  // namespace

grpc::ServerUnaryReactor* KserveService::ServerLive(grpc::CallbackServerContext* context,
                                                    const inference::ServerLiveRequest* request,
                                                    inference::ServerLiveResponse* response) {
  response->set_live(backend_.state.is_alive());
  return Finish(context, absl::OkStatus());
}

grpc::ServerUnaryReactor* KserveService::ServerReady(grpc::CallbackServerContext* context,
                                                     const inference::ServerReadyRequest* request,
                                                     inference::ServerReadyResponse* response) {
  response->set_ready(backend_.state.is_ready());
  return Finish(context, absl::OkStatus());
}

grpc::ServerUnaryReactor* KserveService::ModelReady(grpc::CallbackServerContext* context,
                                                    const inference::ModelReadyRequest* request,
                                                    inference::ModelReadyResponse* response) {
  response->set_ready(backend_.state.is_ready() && ResolveModel(backend_.state, request->name()).ok());
  return Finish(context, absl::OkStatus());
}

grpc::ServerUnaryReactor* KserveService::ServerMetadata(grpc::CallbackServerContext* context,
                                                        const inference::ServerMetadataRequest* request,
                                                        inference::ServerMetadataResponse* response) {
  Caller caller;
  if (absl::Status status = Authorize(*context, backend_.keys, Access::kInfer, caller); !status.ok()) {
    return Finish(context, status);
  }
  response->set_name("millrace");
  response->set_version(backend_.version);
  return Finish(context, absl::OkStatus());
}

grpc::ServerUnaryReactor* KserveService::ModelMetadata(grpc::CallbackServerContext* context,
                                                       const inference::ModelMetadataRequest* request,
                                                       inference::ModelMetadataResponse* response) {
  Caller caller;
  if (absl::Status status = Authorize(*context, backend_.keys, Access::kInfer, caller); !status.ok()) {
    return Finish(context, status);
  }
  auto name = ResolveModel(backend_.state, request->name());
  if (!name.ok()) return Finish(context, name.status());
  response->set_name(*name);
  response->add_versions("1");
  response->set_platform("millrace");
  WriteTensorMetadata(response);
  if (const auto generator = backend_.state.generator()) {
    const Engine& engine = generator->engine();
    (*response->mutable_properties())["architecture"] = engine.model().architecture_name;
    (*response->mutable_properties())["max_model_tokens"] = std::to_string(engine.scheduler_config().max_model_tokens);
  }
  return Finish(context, absl::OkStatus());
}

grpc::ServerUnaryReactor* KserveService::ModelInfer(grpc::CallbackServerContext* context,
                                                    const inference::ModelInferRequest* request,
                                                    inference::ModelInferResponse* response) {
  return BeginModelInfer(backend_, gate_, context, *request, response);
}

grpc::ServerBidiReactor<inference::ModelInferRequest, inference::ModelStreamInferResponse>*
KserveService::ModelStreamInfer(grpc::CallbackServerContext* context) {
  return BeginModelStreamInfer(backend_, gate_, stream_gate_, context);
}

}  // namespace millrace
