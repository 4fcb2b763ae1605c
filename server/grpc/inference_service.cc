// SPDX-License-Identifier: Apache-2.0
#include "server/grpc/inference_service.h"

#include <functional>
#include <memory>
#include <utility>
#include <vector>

#include "absl/time/clock.h"
#include "engine/load/model_info.h"
#include "engine/text/tokenizer.h"
#include "server/api/answer.h"
#include "server/grpc/chat_messages.h"
#include "server/grpc/generation_job.h"
#include "server/grpc/inference_messages.h"
#include "server/grpc/parsed_output.h"
#include "server/grpc/pumped_reactor.h"
#include "server/grpc/unary_call.h"
#include "server/pipeline/tool_calling.h"
#include "server/wire/api_error.h"

namespace millrace {
namespace {

constexpr int kMaxDetokenized = 4 << 20;

// What a method of the service is beside the others: how a request runs, and how a delta is told.
template <typename Request, typename Response>
struct StreamedMethod {
  const char* endpoint;
  std::function<absl::StatusOr<std::unique_ptr<Generation>>(Generator&, const Caller&, Request&, DeltaSink)> run;
  std::function<void(const TextDelta&, Response*)> tell;
};

// Generate and Chat: one generation, streamed.
template <typename Message, typename Request, typename Response>
class GenerationStream final : public PumpedReactor<grpc::ServerWriteReactor<Response>, Response> {
 public:
  using Method = StreamedMethod<Request, Response>;
  GenerationStream(grpc::CallbackServerContext* context, Method method)
      : PumpedReactor<grpc::ServerWriteReactor<Response>, Response>(context), method_(std::move(method)) {}

  static grpc::ServerWriteReactor<Response>* Begin(const GrpcBackend& backend, CallGate& gate, Method method,
                                                   grpc::CallbackServerContext* context, const Message& message) {
    auto call = std::make_shared<GenerationStream>(context, std::move(method));
    Caller caller = MakeCaller(context, call->method_.endpoint);
    const absl::Status status = call->Prepare(call, backend, gate, caller, message);
    if (!status.ok()) NoteRefusal(backend, caller, status);
    if (!status.ok()) call->End(status);
    call->Own(call);
    return call.get();
  }

 private:
  absl::Status Prepare(const std::shared_ptr<GenerationStream>& self, const GrpcBackend& backend, CallGate& gate,
                       Caller& caller, const Message& message) {
    absl::Status allowed = Authorize(*this->context(), backend.keys, Access::kInfer, caller);
    if (!allowed.ok()) return allowed;
    if (absl::Status status = gate.Enter(); !status.ok()) return status;
    CallTicket ticket(&gate);
    if (auto model = ResolveModel(backend.state, message.model()); !model.ok()) return model.status();
    auto request = FromMessage(message);
    if (!request.ok()) return request.status();
    const int32_t num_choices = request->params.num_choices;
    job_ = std::make_shared<GenerationJob>(
        backend, num_choices, std::move(ticket),
        GenerationJob::Listener{.on_delta = [self](TextDelta&& delta) { return self->OnDelta(delta); },
                                .on_end = [self](const absl::Status& status,
                                                 const GenerationTotals& totals) { self->OnEnd(status, totals); }});
    // A schema is compiled on the worker.
    job_->Start(caller,
                [run = method_.run, request = *std::move(request), format = message.response_format()](
                    Generator& generator, const Caller& from,
                    DeltaSink sink) mutable -> absl::StatusOr<std::unique_ptr<Generation>> {
                  if (absl::Status status = ReadResponseFormat(format, request.params); !status.ok()) return status;
                  return run(generator, from, request, std::move(sink));
                });
    return absl::OkStatus();
  }

  bool OnDelta(const TextDelta& delta) {
    if (!FinishStatus(delta.finish).ok()) return true;  // the call's status will tell
    Response response;
    method_.tell(delta, &response);
    return this->Push(std::move(response));
  }

  void OnEnd(const absl::Status& status, const GenerationTotals& totals) {
    if (status.ok()) {
      this->NoteCache(totals.cache);
      Response response;
      ToMessage(totals, response.mutable_usage());
      this->Push(std::move(response));
    }
    this->End(status);
  }

  void OnGone() override {
    if (job_ != nullptr) job_->Cancel();
    this->End(absl::CancelledError("the client went away"));
  }
  void OnOver() override {
    if (job_ != nullptr) job_->Cancel();
  }

  const Method method_;
  std::shared_ptr<GenerationJob> job_;  // constant once the reactor is gRPC's
};

class EmbedCall final : public UnaryCall {
 public:
  EmbedCall(grpc::CallbackServerContext* context, v1::EmbedResponse* response)
      : UnaryCall(context), response_(response) {}

  static grpc::ServerUnaryReactor* Begin(const GrpcBackend& backend, CallGate& gate,
                                         grpc::CallbackServerContext* context, const v1::EmbedRequest& message,
                                         v1::EmbedResponse* response) {
    auto call = std::make_shared<EmbedCall>(context, response);
    Caller caller = MakeCaller(context, "grpc.embed");
    const absl::Status status = call->Prepare(call, backend, gate, caller, message);
    if (!status.ok()) NoteRefusal(backend, caller, status);
    if (!status.ok()) call->End(status);
    call->Own(call);
    return call.get();
  }

 private:
  absl::Status Prepare(const std::shared_ptr<EmbedCall>& self, const GrpcBackend& backend, CallGate& gate,
                       Caller& caller, const v1::EmbedRequest& message) {
    absl::Status allowed = Authorize(*context(), backend.keys, Access::kInfer, caller);
    if (!allowed.ok()) return allowed;
    if (absl::Status status = gate.Enter(); !status.ok()) return status;
    CallTicket ticket(&gate);
    if (auto model = ResolveModel(backend.state, message.model()); !model.ok()) return model.status();
    auto request = FromMessage(message);
    if (!request.ok()) return request.status();
    embeddings_.resize(request->inputs.size());
    job_ = std::make_shared<GenerationJob>(
        backend, static_cast<int32_t>(embeddings_.size()), std::move(ticket),
        GenerationJob::Listener{.on_delta =
                                    [self](TextDelta&& delta) {
                                      self->embeddings_[delta.choice] = std::move(delta.embedding);
                                      return true;
                                    },
                                .on_end = [self](const absl::Status& status,
                                                 const GenerationTotals& totals) { self->OnEnd(status, totals); }});
    job_->Start(caller, [request = *std::move(request)](Generator& generator, const Caller& from, DeltaSink sink) {
      return generator.Embed(from, request, std::move(sink));
    });
    return absl::OkStatus();
  }

  void OnEnd(const absl::Status& status, const GenerationTotals& totals) {
    Answer([&] {
      if (!status.ok()) return status;
      for (const auto& embedding : embeddings_) {
        response_->add_embeddings()->mutable_values()->Assign(embedding.begin(), embedding.end());
      }
      ToMessage(totals, response_->mutable_usage());
      return status;
    });
  }

  void OnGone() override {
    if (job_ != nullptr) job_->Cancel();
  }
  void OnOver() override {
    if (job_ != nullptr) job_->Cancel();
  }

  v1::EmbedResponse* const response_;
  std::vector<std::vector<float>> embeddings_;  // delivery thread, then whoever ends the job
  std::shared_ptr<GenerationJob> job_;
};

// A question answered on a worker: `fill` writes the response.
class WorkerCall final : public UnaryCall {
 public:
  using Fill = std::function<absl::Status(Generator&)>;
  explicit WorkerCall(grpc::CallbackServerContext* context) : UnaryCall(context) {}

  // `fill` may use the request and the response: while the call is not over, both live.
  static grpc::ServerUnaryReactor* Begin(const GrpcBackend& backend, CallGate& gate,
                                         grpc::CallbackServerContext* context, const std::string& model, Fill fill) {
    auto call = std::make_shared<WorkerCall>(context);
    const absl::Status status = call->Prepare(call, backend, gate, model, std::move(fill));
    if (!status.ok()) call->End(status);
    call->Own(call);
    return call.get();
  }

 private:
  absl::Status Prepare(const std::shared_ptr<WorkerCall>& self, const GrpcBackend& backend, CallGate& gate,
                       const std::string& model, Fill fill) {
    Caller caller;
    absl::Status allowed = Authorize(*context(), backend.keys, Access::kInfer, caller);
    if (!allowed.ok()) return allowed;
    if (absl::Status status = gate.Enter(); !status.ok()) return status;
    auto ticket = std::make_shared<CallTicket>(&gate);
    if (auto name = ResolveModel(backend.state, model); !name.ok()) return name.status();
    auto generator = backend.state.Admit();
    if (!generator.ok()) return generator.status();
    const bool is_posted = backend.workers.Post([self, ticket, generator = *generator, fill = std::move(fill)] {
      self->Answer([&] { return fill(*generator); });
    });
    return is_posted ? absl::OkStatus() : absl::ResourceExhaustedError("too many requests wait to be read");
  }
};

}  // namespace

grpc::ServerWriteReactor<v1::GenerateResponse>* InferenceService::Generate(grpc::CallbackServerContext* context,
                                                                           const v1::GenerateRequest* request) {
  using Stream = GenerationStream<v1::GenerateRequest, CompletionRequest, v1::GenerateResponse>;
  const Stream::Method method{
      .endpoint = "grpc.generate",
      .run = [](Generator& generator, const Caller& caller, CompletionRequest& completion,
                DeltaSink sink) { return generator.Complete(caller, completion, std::move(sink)); },
      .tell = [](const TextDelta& delta, v1::GenerateResponse* response) { ToMessage(delta, response); }};
  return Stream::Begin(backend_, gate_, method, context, *request);
}

grpc::ServerWriteReactor<v1::ChatResponse>* InferenceService::Chat(grpc::CallbackServerContext* context,
                                                                   const v1::ChatRequest* request) {
  using Stream = GenerationStream<v1::ChatRequest, ChatRequest, v1::ChatResponse>;
  Stream::Method method{.endpoint = "grpc.chat",
                        .run = [](Generator& generator, const Caller& caller, ChatRequest& chat,
                                  DeltaSink sink) { return generator.Chat(caller, chat, std::move(sink)); },
                        .tell = [](const TextDelta& delta, v1::ChatResponse* response) { ToMessage(delta, response); }};
  if (request->parse_output()) {
    auto output = std::make_shared<ParsedOutput>();
    method.run = [output](Generator& generator, const Caller& caller, ChatRequest& chat,
                          DeltaSink sink) -> absl::StatusOr<std::unique_ptr<Generation>> {
      // How an answer is to be read depends on the prompt's end, and deltas may come before Chat has returned.
      auto prompt = generator.RenderChat(chat);
      if (!prompt.ok()) return prompt.status();
      chat.prompt = *std::move(prompt);
      output->Begin(ParserOptions(generator.engine(), chat, chat.prompt), chat.params.num_choices,
                    absl::GetCurrentTimeNanos());
      return generator.Chat(caller, chat, std::move(sink));
    };
    method.tell = [output](const TextDelta& delta, v1::ChatResponse* response) { output->Fill(delta, response); };
  }
  return Stream::Begin(backend_, gate_, std::move(method), context, *request);
}

grpc::ServerUnaryReactor* InferenceService::Embed(grpc::CallbackServerContext* context, const v1::EmbedRequest* request,
                                                  v1::EmbedResponse* response) {
  return EmbedCall::Begin(backend_, gate_, context, *request, response);
}

grpc::ServerUnaryReactor* InferenceService::Tokenize(grpc::CallbackServerContext* context,
                                                     const v1::TokenizeRequest* request,
                                                     v1::TokenizeResponse* response) {
  return WorkerCall::Begin(backend_, gate_, context, request->model(), [request, response](Generator& generator) {
    absl::StatusOr<std::vector<int32_t>> tokens;
    if (request->messages().empty()) {
      const bool adds_special_tokens = !request->has_add_special_tokens() || request->add_special_tokens();
      tokens = generator.Encode(Prompt(request->text()), adds_special_tokens);
    } else {
      auto chat = FromMessage(*request);
      if (!chat.ok()) return chat.status();
      tokens = generator.RenderChat(*chat);
    }
    if (!tokens.ok()) return tokens.status();
    response->mutable_token_ids()->Assign(tokens->begin(), tokens->end());
    response->set_max_model_tokens(generator.engine().scheduler_config().max_model_tokens);
    return absl::OkStatus();
  });
}

grpc::ServerUnaryReactor* InferenceService::Detokenize(grpc::CallbackServerContext* context,
                                                       const v1::DetokenizeRequest* request,
                                                       v1::DetokenizeResponse* response) {
  return WorkerCall::Begin(backend_, gate_, context, request->model(), [request, response](Generator& generator) {
    if (request->token_ids_size() > kMaxDetokenized) return ParamError("token_ids", "too many tokens");
    const std::vector<int32_t> ids(request->token_ids().begin(), request->token_ids().end());
    response->set_text(generator.engine().tokenizer().Decode(
        ids, request->skip_special_tokens() ? SkipSpecial::kYes : SkipSpecial::kNo));
    return absl::OkStatus();
  });
}

grpc::ServerUnaryReactor* InferenceService::ListModels(grpc::CallbackServerContext* context,
                                                       const v1::ListModelsRequest* request,
                                                       v1::ListModelsResponse* response) {
  grpc::ServerUnaryReactor* reactor = context->DefaultReactor();
  Caller caller;
  const absl::Status status = Authorize(*context, backend_.keys, Access::kInfer, caller);
  const auto generator = backend_.state.generator();
  for (const std::string& name : backend_.state.model_names()) {
    if (!status.ok()) break;
    v1::ListModelsResponse::Model* model = response->add_models();
    model->set_id(name);
    model->set_root(backend_.state.model_names().front());
    if (generator == nullptr) continue;  // still loading
    const Engine& engine = generator->engine();
    model->set_max_model_tokens(engine.scheduler_config().max_model_tokens);
    model->set_architecture(engine.model().architecture_name);
    model->set_num_parameters(engine.model().num_parameters);
    model->set_has_chat_template(engine.chat_template() != nullptr);
  }
  reactor->Finish(ToGrpcStatus(status, context));
  return reactor;
}

}  // namespace millrace
