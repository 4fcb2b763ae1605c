// SPDX-License-Identifier: Apache-2.0
#include "server/grpc/kserve_calls.h"

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/strings/str_cat.h"
#include "server/api/answer.h"
#include "server/grpc/generation_job.h"
#include "server/grpc/pumped_reactor.h"
#include "server/grpc/unary_call.h"
#include "server/wire/api_error.h"

namespace millrace {
namespace {

using inference::ModelInferRequest;
using inference::ModelInferResponse;
using inference::ModelStreamInferResponse;

// Requests of one stream that run at the same time.
constexpr size_t kMaxJobsPerStream = 64;
// What Triton's clients look for to tell the last piece of an answer.
constexpr char kFinalParameter[] = "triton_final_response";

// Collects a task's answer; delivery thread, then whoever ends the job.
class InferAnswer {
 public:
  InferAnswer(InferTask task, std::string model) : task_(std::move(task)), model_(std::move(model)) {
    outputs_.resize(task_.request.prompts.size());
    if (!task_.repeats_input) return;
    for (size_t i = 0; i < outputs_.size(); ++i) outputs_[i].text = std::get<std::string>(task_.request.prompts[i]);
  }

  void Add(const TextDelta& delta) {
    InferOutput& output = outputs_[static_cast<size_t>(delta.choice)];
    output.text += delta.text;
    output.num_tokens += static_cast<int32_t>(delta.tokens.size());
    if (delta.finish != FinishReason::kNone) output.finish_reason = std::string(FinishReasonName(delta.finish));
  }
  // What came since the last Write, and only that.
  void Write(ModelInferResponse* response) {
    WriteInferResponse(task_, model_, outputs_, response);
    for (InferOutput& output : outputs_) output = {};
  }
  const InferTask& task() const { return task_; }

 private:
  const InferTask task_;
  const std::string model_;
  std::vector<InferOutput> outputs_;
};

GenerationJob::StartFunction Complete(CompletionRequest request) {
  return [request = std::move(request)](Generator& generator, const Caller& caller, DeltaSink sink) {
    return generator.Complete(caller, request, std::move(sink));
  };
}

class ModelInferCall final : public UnaryCall {
 public:
  ModelInferCall(grpc::CallbackServerContext* context, ModelInferResponse* response)
      : UnaryCall(context), response_(response) {}

  using UnaryCall::Own;

  absl::Status Prepare(const std::shared_ptr<ModelInferCall>& self, const GrpcBackend& backend, CallGate& gate,
                       Caller& caller, const ModelInferRequest& message) {
    absl::Status allowed = Authorize(*context(), backend.keys, Access::kInfer, caller);
    if (!allowed.ok()) return allowed;
    if (absl::Status status = gate.Enter(); !status.ok()) return status;
    CallTicket ticket(&gate);
    auto model = ResolveModel(backend.state, message.model_name());
    if (!model.ok()) return model.status();
    auto task = ReadInferRequest(message);
    if (!task.ok()) return task.status();
    if (task->mode == AnswerMode::kStream) {
      return ParamError("stream", "a streamed answer needs ModelStreamInfer", kUnsupportedValue);
    }
    answer_ = std::make_unique<InferAnswer>(*std::move(task), *std::move(model));
    const CompletionRequest& request = answer_->task().request;
    job_ = std::make_shared<GenerationJob>(
        backend, static_cast<int32_t>(request.prompts.size()), std::move(ticket),
        GenerationJob::Listener{.on_delta =
                                    [self](TextDelta&& delta) {
                                      self->answer_->Add(delta);
                                      return true;
                                    },
                                .on_end = [self](const absl::Status& status,
                                                 const GenerationTotals& totals) { self->OnEnd(status, totals); }});
    job_->Start(caller, Complete(request));
    return absl::OkStatus();
  }

 private:
  void OnEnd(const absl::Status& status, const GenerationTotals& totals) {
    Answer([&] {
      AddCacheMetadata(totals.cache, context());
      if (status.ok()) answer_->Write(response_);
      return status;
    });
  }
  void OnGone() override {
    if (job_ != nullptr) job_->Cancel();
  }
  void OnOver() override {
    if (job_ != nullptr) job_->Cancel();
  }

  ModelInferResponse* const response_;
  std::unique_ptr<InferAnswer> answer_;
  std::shared_ptr<GenerationJob> job_;
};

// Reads requests while others run; ends when the client has no more and all are answered. A request at fault gets an
// error message, and the stream goes on.
class ModelStreamInferCall final
    : public PumpedReactor<grpc::ServerBidiReactor<ModelInferRequest, ModelStreamInferResponse>,
                           ModelStreamInferResponse> {
 public:
  ModelStreamInferCall(grpc::CallbackServerContext* context, const GrpcBackend& backend, CallGate& gate)
      : PumpedReactor(context), backend_(backend), gate_(gate) {}

  using PumpedReactor::Own;

  void Begin(const std::shared_ptr<ModelStreamInferCall>& self, CallGate& stream_gate) {
    self_ = self;
    caller_ = MakeCaller(context(), "grpc.stream_infer");
    if (absl::Status status = Enter(stream_gate); !status.ok()) {
      NoteRefusal(backend_, caller_, status);
      return End(status);
    }
    {
      absl::MutexLock lock(&mu_);  // shows the reader what was written until now, as Own does
    }
    StartRead(&request_);
  }

  void OnReadDone(bool ok) override {
    bool is_gone = false;
    {
      absl::MutexLock lock(&mu_);
      if (!ok) is_half_closed_ = true;
      is_gone = is_gone_;
    }
    if (!ok) return EndIfComplete();
    if (is_gone) return;
    if (absl::Status status = Take(); !status.ok()) {
      NoteRefusal(backend_, caller_, status);
      PushError(request_.id(), status);
    }
    request_.Clear();
    StartRead(&request_);
  }

 private:
  // A stream may stay open without a request, so it is counted apart from them.
  absl::Status Enter(CallGate& stream_gate) {
    absl::Status allowed = Authorize(*context(), backend_.keys, Access::kInfer, caller_);
    if (!allowed.ok()) return allowed;
    if (absl::Status status = stream_gate.Enter(); !status.ok()) return status;
    ticket_ = CallTicket(&stream_gate);
    return absl::OkStatus();
  }

  absl::Status Take() {
    // Again for each request: a stream may outlive its key.
    absl::Status allowed = Authorize(*context(), backend_.keys, Access::kInfer, caller_);
    if (!allowed.ok()) return allowed;
    if (absl::Status status = gate_.Enter(); !status.ok()) return status;
    CallTicket ticket(&gate_);
    auto model = ResolveModel(backend_.state, request_.model_name());
    if (!model.ok()) return model.status();
    auto task = ReadInferRequest(request_);
    if (!task.ok()) return task.status();
    auto answer = std::make_shared<InferAnswer>(*std::move(task), *std::move(model));
    auto self = self_.lock();
    std::shared_ptr<GenerationJob> job;
    {
      absl::MutexLock lock(&mu_);
      if (is_gone_) return absl::CancelledError("the client went away");
      if (jobs_.size() >= kMaxJobsPerStream) {
        return absl::ResourceExhaustedError(absl::StrCat(jobs_.size(), " requests of this stream are under way"));
      }
      const uint64_t number = next_job_++;
      job = std::make_shared<GenerationJob>(
          backend_, static_cast<int32_t>(answer->task().request.prompts.size()), std::move(ticket),
          GenerationJob::Listener{
              .on_delta = [self, answer](TextDelta&& delta) { return self->OnDelta(*answer, delta); },
              .on_end = [self, answer, number](const absl::Status& status,
                                               const GenerationTotals&) { self->OnEnd(*answer, number, status); }});
      jobs_.emplace(number, job);
    }
    Caller caller = caller_;
    caller.received = absl::Now();
    job->Start(caller, Complete(answer->task().request));
    return absl::OkStatus();
  }

  bool OnDelta(InferAnswer& answer, const TextDelta& delta) {
    answer.Add(delta);
    const bool is_piece = answer.task().mode == AnswerMode::kStream && delta.finish == FinishReason::kNone;
    return !is_piece || PushAnswer(answer, /*is_final=*/false);
  }

  void OnEnd(InferAnswer& answer, uint64_t number, const absl::Status& status) {
    if (status.ok()) {
      PushAnswer(answer, /*is_final=*/true);
    } else {
      PushError(answer.task().id, status);
    }
    std::shared_ptr<GenerationJob> job;  // dropped after the lock
    {
      absl::MutexLock lock(&mu_);
      auto node = jobs_.extract(number);
      if (!node.empty()) job = std::move(node.mapped());
    }
    EndIfComplete();
  }

  bool PushAnswer(InferAnswer& answer, bool is_final) {
    ModelStreamInferResponse response;
    answer.Write(response.mutable_infer_response());
    (*response.mutable_infer_response()->mutable_parameters())[kFinalParameter].set_bool_param(is_final);
    return Push(std::move(response));
  }

  void PushError(const std::string& id, const absl::Status& status) {
    ModelStreamInferResponse response;
    response.set_error_message(std::string(status.message()));
    response.mutable_infer_response()->set_id(id);
    Push(std::move(response));
  }

  void EndIfComplete() {
    {
      absl::MutexLock lock(&mu_);
      if (!is_half_closed_ || !jobs_.empty()) return;
    }
    End(absl::OkStatus());
  }

  void CancelJobs() {
    absl::flat_hash_map<uint64_t, std::shared_ptr<GenerationJob>> jobs;
    {
      absl::MutexLock lock(&mu_);
      is_gone_ = true;
      jobs.swap(jobs_);
    }
    for (auto& [number, job] : jobs) job->Cancel();
  }
  void OnGone() override {
    CancelJobs();
    End(absl::CancelledError("the client went away"));
  }
  void OnOver() override { CancelJobs(); }

  const GrpcBackend& backend_;
  CallGate& gate_;
  CallTicket ticket_;
  std::weak_ptr<ModelStreamInferCall> self_;
  Caller caller_;              // of the thread that reads
  ModelInferRequest request_;  // gRPC's while a read is under way
  absl::Mutex mu_;
  absl::flat_hash_map<uint64_t, std::shared_ptr<GenerationJob>> jobs_ ABSL_GUARDED_BY(mu_);
  uint64_t next_job_ ABSL_GUARDED_BY(mu_) = 0;
  bool is_half_closed_ ABSL_GUARDED_BY(mu_) = false;
  bool is_gone_ ABSL_GUARDED_BY(mu_) = false;
};

}  // namespace

grpc::ServerUnaryReactor* BeginModelInfer(const GrpcBackend& backend, CallGate& gate,
                                          grpc::CallbackServerContext* context, const ModelInferRequest& request,
                                          ModelInferResponse* response) {
  auto call = std::make_shared<ModelInferCall>(context, response);
  Caller caller = MakeCaller(context, "grpc.infer");
  const absl::Status status = call->Prepare(call, backend, gate, caller, request);
  if (!status.ok()) NoteRefusal(backend, caller, status);
  if (!status.ok()) call->End(status);
  call->Own(call);
  return call.get();
}

grpc::ServerBidiReactor<ModelInferRequest, ModelStreamInferResponse>* BeginModelStreamInfer(
    const GrpcBackend& backend, CallGate& gate, CallGate& stream_gate, grpc::CallbackServerContext* context) {
  auto call = std::make_shared<ModelStreamInferCall>(context, backend, gate);
  call->Begin(call, stream_gate);
  call->Own(call);
  return call.get();
}

}  // namespace millrace
