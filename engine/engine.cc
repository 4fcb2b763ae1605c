// SPDX-License-Identifier: Apache-2.0
#include "engine/engine.h"

#include <algorithm>
#include <atomic>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/synchronization/notification.h"
#include "engine/choose_device.h"
#include "engine/grammar/token_vocabulary.h"
#include "engine/load/memory_plan.h"
#include "engine/load/model_info.h"
#include "engine/load/model_part.h"
#include "engine/load/model_weights.h"
#include "engine/load/weight_formats.h"
#include "engine/run/model.h"
#include "engine/run/rank_group.h"
#include "engine/run/runner.h"
#include "engine/run/step_loop.h"
#include "engine/text/chat_template.h"
#include "engine/text/text_loader.h"
#include "engine/text/tokenizer.h"
#include "kernels/device.h"
#include "kernels/status_macros.h"

namespace millrace {
namespace {

// Everything a loaded model consists of; members are destroyed in reverse order, the loop's thread first.
class LoadedEngine final : public Engine {
 public:
  LoadedEngine(std::unique_ptr<Device> device, ModelInfo info, ModelText text, const SchedulerConfig& config,
               std::string memory_report)
      : device_(std::move(device)),
        info_(std::move(info)),
        text_(std::move(text)),
        config_(config),
        memory_report_(std::move(memory_report)),
        vocabulary_(*text_.tokenizer, info_.vocab_tokens) {}

  absl::Status Start(std::unique_ptr<Model> model, StepOrder order, std::function<void(const StepStats&)> on_step) {
    ASSIGN_OR_RETURN(std::unique_ptr<Scheduler> scheduler, Scheduler::Create(config_));
    RETURN_IF_ERROR(model->RecordSteps());
    runner_ = std::make_unique<Runner>(std::move(model), *device_, &vocabulary_);
    // On a device that shares the host's memory a step is computed while it is launched: there is nothing to overlap.
    if (order == StepOrder::kAuto) order = device_->shares_host_memory() ? StepOrder::kPlain : StepOrder::kAhead;
    loop_ = std::make_unique<StepLoop>(
        std::move(scheduler), config_,
        StepFunctions{.launch = [runner = runner_.get()](const StepPlan& plan) { return runner->Launch(plan); },
                      .collect = [runner = runner_.get()](StepResult* result) { return runner->Collect(result); },
                      .order = order},
        std::move(on_step));
    loop_->Start();
    return WarmUp();
  }

  absl::StatusOr<RequestHandle> Submit(Request request, TokenSink sink) override {
    for (const int32_t token : request.prompt_tokens) {
      if (token < 0 || token >= info_.vocab_tokens) {
        return absl::InvalidArgumentError(
            absl::StrCat("token id ", token, " is outside the vocabulary of ", info_.vocab_tokens));
      }
    }
    return loop_->Submit(std::move(request), std::move(sink));
  }
  void Finish(RequestId id) override { loop_->Finish(id); }
  uint64_t OpenSession() override { return ++last_session_; }
  void ReleaseSession(uint64_t session) override { loop_->ReleaseSession(session); }
  absl::StatusOr<int32_t> ResetPrefixCache(std::optional<uint64_t> salt, absl::Duration limit) override {
    return loop_->ResetPrefixCache(salt, limit);
  }
  const ModelInfo& model() const override { return info_; }
  const Tokenizer& tokenizer() const override { return *text_.tokenizer; }
  const ChatTemplate* chat_template() const override { return text_.chat_template.get(); }
  SchedulerStats stats() const override { return loop_->stats(); }
  std::vector<std::pair<std::string, int32_t>> waiting_by_tenant() const override { return loop_->waiting_by_tenant(); }
  const SchedulerConfig& scheduler_config() const override { return config_; }
  const std::string& memory_report() const override { return memory_report_; }
  EngineHealth CheckHealth(absl::Duration limit) override { return loop_->CheckHealth(limit); }
  absl::Time last_step_end() const override { return loop_->last_step_end(); }

 private:
  // Ready means: a token was really produced.
  absl::Status WarmUp() {
    Request request{.prompt_tokens = {info_.bos_token_id.value_or(0)}, .max_new_tokens = 1, .ignore_eos = true};
    absl::Notification done;
    FinishReason reason = FinishReason::kNone;
    ASSIGN_OR_RETURN(RequestHandle handle, Submit(std::move(request), [&](TokenEvent&& event) {
                       if (event.finish == FinishReason::kNone) return;
                       reason = event.finish;
                       done.Notify();
                     }));
    done.WaitForNotification();
    if (reason == FinishReason::kLength || reason == FinishReason::kStop) return absl::OkStatus();
    return absl::InternalError("the warm-up step gave no usable token: the model's weights may be damaged");
  }

  const std::unique_ptr<Device> device_;
  const ModelInfo info_;
  const ModelText text_;
  const SchedulerConfig config_;
  const std::string memory_report_;
  const TokenVocabulary vocabulary_;
  std::unique_ptr<Runner> runner_;
  std::unique_ptr<StepLoop> loop_;
  std::atomic<uint64_t> last_session_{0};
};

MemoryPlanOptions PlanOptions(const EngineOptions& options, size_t available_bytes) {
  return {.available_bytes = available_bytes,
          .utilization = options.memory_utilization,
          .kv_cache_bytes = options.kv_cache_bytes,
          .kv_cache_dtype = options.kv_cache_dtype,
          .page_tokens = options.scheduler.page_tokens,
          .max_model_tokens = options.max_model_tokens,
          .max_sequences = options.scheduler.max_sequences,
          .max_step_tokens = options.scheduler.max_step_tokens};
}

LoadOptions ToLoadOptions(const EngineOptions& options) {
  return {.dtype = options.dtype,
          .load_format = options.load_format,
          .quantization = options.quantization,
          .dummy_seed = options.dummy_seed,
          .on_progress = options.on_progress};
}

}  // namespace

absl::StatusOr<std::unique_ptr<Engine>> Engine::Create(const EngineOptions& options) {
  LoadOptions load_options = ToLoadOptions(options);
  ASSIGN_OR_RETURN(ModelInfo info, ReadModelInfo(options.model_dir, load_options));
  // The ranks' parts are of one size, so one plan is every rank's.
  ASSIGN_OR_RETURN(const ModelInfo part, PartOf(info, 0, options.tensor_parallel_size));
  ASSIGN_OR_RETURN(RankDevices ranks, ChooseDevices(options.device, options.num_threads, options.tensor_parallel_size,
                                                    DeviceActivations(info, load_options)));
  load_options = OptionsFor(std::move(load_options), ranks.devices[0]->ops().activation_dtype());
  ASSIGN_OR_RETURN(const MemoryPlan plan,
                   PlanMemory(part, load_options, PlanOptions(options, BytesForEach(ranks)), ranks.devices[0]->ops()));
  if (options.on_memory_plan) options.on_memory_plan(FormatMemoryPlan(plan));
  ASSIGN_OR_RETURN(ModelText text, LoadModelText(options.model_dir, options.chat_template,
                                                 options.load_format == "dummy" ? MissingTokenizer::kMeansBytes
                                                                                : MissingTokenizer::kIsAnError));
  ASSIGN_OR_RETURN(std::unique_ptr<Model> model, LoadModel(info, load_options, ToModelLimits(plan), ranks));
  SchedulerConfig config = options.scheduler;
  config.num_pages = plan.num_pages;
  config.max_model_tokens = plan.max_model_tokens;
  auto engine = std::make_unique<LoadedEngine>(std::move(ranks.devices[0]), std::move(info), std::move(text), config,
                                               FormatMemoryPlan(plan));
  // The drawn tokens of a step in flight are rank 0's alone.
  const StepOrder order = options.tensor_parallel_size > 1 ? StepOrder::kPlain : options.step_order;
  RETURN_IF_ERROR(engine->Start(std::move(model), order, options.on_step));
  return engine;
}

}  // namespace millrace
