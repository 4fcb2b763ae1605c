// SPDX-License-Identifier: Apache-2.0
#include "server/app.h"

#include <poll.h>
#include <signal.h>
#include <sys/signalfd.h>
#include <sys/time.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <thread>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/synchronization/notification.h"
#include "absl/time/clock.h"
#include "agent/mcp/server.h"
#include "server/agents/agent_catalogue.h"
#include "server/agents/agent_runs.h"
#include "server/agents/run_observer.h"
#include "server/api/api_handler.h"
#include "server/auth/api_keys.h"
#include "server/caching/caching_generator.h"
#include "server/config/descriptor_limit.h"
#include "server/grpc/grpc_server.h"
#include "server/http/http_server.h"
#include "server/load_model.h"
#include "server/log/log.h"
#include "server/metrics/metrics.h"
#include "server/model_identity.h"
#include "server/open_answer_store.h"
#include "server/pipeline/server_state.h"
#include "server/request_observer.h"
#include "server/storage/response_store.h"

namespace millrace {
namespace {

constexpr absl::Duration kWatchInterval = absl::Milliseconds(500);
constexpr absl::Duration kFarewellTime = absl::Seconds(2);  // for agent runs that are cut off to tell their clients

constexpr char kClosingTooLong[] = "millrace: stopping takes too long; leaving without waiting\n";

// Of a signal handler: only what may be called there.
void LeaveAtOnce(int signal_number) {
  if (signal_number != SIGALRM) _exit(128 + signal_number);
  (void)!write(STDERR_FILENO, kClosingTooLong, sizeof(kClosingTooLong) - 1);
  _exit(1);
}

// SIGTERM, SIGINT and SIGHUP as readable events. Blocks them for every thread started later.
class SignalWatch {
 public:
  SignalWatch() {
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGINT);
    sigaddset(&set, SIGHUP);
    pthread_sigmask(SIG_BLOCK, &set, nullptr);
    descriptor_ = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
    signal(SIGPIPE, SIG_IGN);
  }
  ~SignalWatch() { close(descriptor_); }
  // The signal to stop that came within the time, or 0. SIGHUP calls `on_hangup`.
  int Wait(absl::Duration limit, const std::function<void()>& on_hangup) {
    const int number = Next(limit);
    if (number != SIGHUP) return number;
    on_hangup();
    return 0;
  }
  // From now on nobody reads the events: the next signal ends the process at once, and so does the end of `limit`.
  void LeaveAtNext(absl::Duration limit) {
    struct sigaction action{};
    action.sa_handler = LeaveAtOnce;
    sigset_t set;
    sigemptyset(&set);
    for (const int number : {SIGTERM, SIGINT, SIGALRM}) {
      sigaction(number, &action, nullptr);
      sigaddset(&set, number);
    }
    const itimerval timer{.it_interval = {}, .it_value = absl::ToTimeval(std::max(limit, absl::Milliseconds(1)))};
    setitimer(ITIMER_REAL, &timer, nullptr);
    pthread_sigmask(SIG_UNBLOCK, &set, nullptr);
  }

 private:
  int Next(absl::Duration limit) {
    pollfd poller{descriptor_, POLLIN, 0};
    if (poll(&poller, 1, static_cast<int>(absl::ToInt64Milliseconds(limit))) <= 0) return 0;
    signalfd_siginfo info;
    if (read(descriptor_, &info, sizeof(info)) != sizeof(info)) return 0;
    return static_cast<int>(info.ssi_signo);
  }

  int descriptor_ = -1;
};

// "sandbox: landlock+seccomp", or what the kernel lacks.
std::string DescribeSandbox(const SandboxSupport& support) {
  std::string text = absl::StrCat("sandbox: ", std::string(support.tier()), "\n");
  for (const std::string& missing : support.missing) absl::StrAppend(&text, "sandbox missing: ", missing, "\n");
  for (const std::string& weaker : support.weaker) absl::StrAppend(&text, "sandbox weaker: ", weaker, "\n");
  return text;
}

class App {
 public:
  App(const ServeOptions& options, const EngineLoader& load)
      : options_(options), load_(load), state_(ModelNames(options)) {}

  // Listens; the model is not there yet.
  absl::Status Open() {
    auto level = ParseLogLevel(options_.log_level);
    if (!level.ok()) return level.status();
    auto log = Log::Create(*level, options_.log_file);
    if (!log.ok()) return log.status();
    log_ = *std::move(log);
    for (const std::string& key : options_.api_keys) {
      if (absl::Status status = keys_.AddKey(key); !status.ok()) return status;
    }
    if (!options_.api_key_file.empty()) {
      if (absl::Status status = keys_.AddFile(options_.api_key_file); !status.ok()) return status;
    }
    auto store = OpenAnswerStore(options_.response_cache);
    if (!store.ok()) return store.status();
    if (*store != nullptr) response_cache_ = std::make_unique<ResponseCache>(*std::move(store));
    metrics_ = Metrics::Create({.model_name = state_.model_names().front(), .version = MillraceVersion()});
    observer_ = MakeRequestObserver(*metrics_, options_.logs_requests ? log_.get() : nullptr, &usage_);
    if (absl::Status status = OpenRuns(); !status.ok()) return status;
    if (absl::Status status = OpenAgents(); !status.ok()) return status;
    if (absl::Status status = OpenStore(); !status.ok()) return status;
    handler_ = std::make_unique<ApiHandler>(
        ApiParts{.state = state_,
                 .keys = keys_,
                 .metrics = *metrics_,
                 .log = *log_,
                 .transport_stats = [this] { return CollectTransportStats(); },
                 .usage = &usage_,
                 .runs = runs_.get(),
                 .agents = agents_.get(),
                 .responses = responses_.get(),
                 .response_cache = response_cache_.get()},
        ApiOptions{.version = MillraceVersion(),
                   .health_note = DescribeSandbox(sandbox_),
                   .keep_alive_interval = options_.keep_alive_seconds > 0 ? absl::Seconds(options_.keep_alive_seconds)
                                                                          : absl::InfiniteDuration(),
                   .metrics_access = options_.has_public_metrics ? MetricsAccess::kPublic : MetricsAccess::kNeedsKey,
                   .num_workers = options_.num_workers,
                   .logs_requests = options_.logs_requests});
    if (absl::Status status = OpenHttp(); !status.ok()) return status;
    return options_.grpc_port != 0 ? OpenGrpc() : absl::OkStatus();
  }

  // On the loader thread.
  absl::Status Load() {
    EngineOptions engine_options = options_.engine;
    engine_options.on_step = [this](const StepStats& stats) { metrics_->OnStep(stats); };
    engine_options.on_progress = [this](std::string_view, double) { OnLoadProgress(); };
    const absl::Time begin = absl::Now();
    auto engine = load_(std::move(engine_options), *log_);
    if (!engine.ok()) return engine.status();
    engine_ = *std::move(engine);
    metrics_->SetEngine(options_.engine, engine_->scheduler_config());
    state_.SetGenerator(MakeGenerator());
    state_.SetHealth(EngineHealth::kReady);
    log_->Info("ready", {{"model", state_.model_names().front()},
                         {"load_seconds", absl::ToDoubleSeconds(absl::Now() - begin)},
                         {"max_model_len", int64_t{engine_->scheduler_config().max_model_tokens}},
                         {"kv_pages", int64_t{engine_->scheduler_config().num_pages}}});
    return absl::OkStatus();
  }

  // The main thread's loop: signals and the engine's pulse.
  int Watch(SignalWatch& signals, const absl::Notification& is_loaded, const absl::Status& load_status) {
    while (true) {
      const int signal_number = signals.Wait(kWatchInterval, [this] { Reload(); });
      if (state_.is_ready()) is_loaded.WaitForNotification();  // at once: requests may have begun, and deserve a drain
      if (!is_loaded.HasBeenNotified()) {
        if (signal_number == 0) {
          WatchLoading();
          continue;
        }
        log_->Info("stopped while loading", {{"signal", int64_t{signal_number}}});
        _exit(state_.is_alive() ? 0 : 1);  // loading cannot be interrupted, and nothing has begun
      }
      if (!load_status.ok()) {
        log_->Error("cannot serve", {{"error", std::string(load_status.message())}});
        return 1;
      }
      if (signal_number != 0) {
        Drain(signals);
        return 0;
      }
      if (!WatchEngine()) return 1;
    }
  }

  // How long Close may take: as long as running requests could have had, and one step.
  absl::Duration closing_limit() const { return absl::Seconds(options_.drain_seconds + options_.step_seconds); }

  // Before Close, which joins the engine's thread: leaves at once when a step does not end.
  void LeaveIfStuck() {
    if (!engine_ || engine_->CheckHealth(absl::Seconds(options_.step_seconds)) != EngineHealth::kStuck) return;
    log_->Error("a step still does not end; leaving without waiting for it");
    _exit(1);
  }

  // In the order in which one part uses another.
  void Close() {
    has_http_ = false;
    grpc_.reset();
    http_.reset();
    handler_.reset();
    runs_.reset();
    state_.SetGenerator(nullptr);
    engine_.reset();
    if (log_) log_->Info("stopped");
  }

 private:
  std::shared_ptr<Generator> MakeGenerator() {
    std::shared_ptr<Generator> generator =
        Generator::Create(*engine_, observer_.get(), {.max_logprobs = options_.max_logprobs});
    if (response_cache_ == nullptr) return generator;
    return MakeCachingGenerator(
        {.inner = std::move(generator),
         .cache = *response_cache_,
         .model = {.name = state_.model_names().front(), .identity = ModelIdentity(*engine_, options_.engine)},
         .observer = observer_.get()});
  }

  // How many connections HTTP may have, with the process's limit on open files raised for them.
  absl::StatusOr<int> ReserveDescriptors() {
    const int wanted = options_.http.limits.max_connections;
    auto limit = RaiseDescriptorLimit(wanted);
    if (!limit.ok()) return limit.status();
    if (limit->after != limit->before) {
      log_->Info("raised the limit on open files", {{"from", limit->before}, {"to", limit->after}});
    }
    const int fitting = FittingConnections(wanted, limit->after);
    if (fitting == wanted) return wanted;
    if (options_.is_max_connections_given) {
      return absl::InvalidArgumentError(absl::StrCat("--max-connections ", wanted, ": the limit on open files is ",
                                                     limit->after, " (ulimit -Hn), enough for ", fitting));
    }
    log_->Warning("fewer connections than usual: the limit on open files (ulimit -Hn) is low",
                  {{"max_connections", int64_t{fitting}}, {"open_files", limit->after}});
    return fitting;
  }

  absl::Status OpenRuns() {
    ToolOptions tool_options = options_.tools;
    auto servers = ReadToolServers(options_);
    if (!servers.ok()) return servers.status();
    tool_options.mcp_servers = *std::move(servers);
    auto tools = ToolSet::Create(tool_options, [this](auto server, auto event, auto text) {
      const LogLevel level = event == kToolServerSays ? LogLevel::kInfo : LogLevel::kWarning;
      log_->Write(level, "tool server", {{"server", server}, {"event", event}, {"text", text}});
    });
    if (!tools.ok()) return tools.status();
    metrics_->SetSandbox(sandbox_.tier());
    run_observer_ = MakeRunObserver(*metrics_, *observer_, options_.logs_requests ? log_.get() : nullptr);
    const AgentRuns::Options run_options{.max_runs = options_.max_runs, .limits = options_.run_limits};
    runs_ = std::make_unique<AgentRuns>(*std::move(tools), run_options, run_observer_.get());
    return absl::OkStatus();
  }

  absl::Status OpenAgents() {
    agents_ =
        std::make_unique<AgentCatalogue>(options_.agents_file, AgentSurroundings{.model_names = state_.model_names(),
                                                                                 .limits = options_.run_limits,
                                                                                 .tools = &runs_->tools()});
    return agents_->Load();
  }

  absl::Status OpenStore() {
    ResponseStoreOptions store{.lifetime = absl::Hours(24 * options_.response_days),
                               .max_bytes = options_.response_store_bytes};
    if (!options_.data_dir.empty()) {
      std::error_code error;
      std::filesystem::create_directories(options_.data_dir, error);
      if (error)
        return absl::FailedPreconditionError(absl::StrCat("--data-dir ", options_.data_dir, ": ", error.message()));
      store.path = options_.data_dir + "/responses.db";
    }
    auto opened = ResponseStore::Open(store);
    if (!opened.ok()) return opened.status();
    responses_ = *std::move(opened);
    return absl::OkStatus();
  }

  absl::Status OpenHttp() {
    HttpServerOptions http = options_.http;
    if (!options_.certificate_file.empty()) http.tls = TlsConfig{options_.certificate_file, options_.key_file};
    auto connections = ReserveDescriptors();
    if (!connections.ok()) return connections.status();
    http.limits.max_connections = *connections;
    auto server = HttpServer::Start(http, *handler_);
    if (!server.ok()) return server.status();
    http_ = *std::move(server);
    has_http_ = true;
    log_->Info("listening", {{"host", http.host},
                             {"port", int64_t{http_->port()}},
                             {"tls", http.tls.has_value()},
                             {"api_keys", static_cast<int64_t>(keys_.num_keys())}});
    return absl::OkStatus();
  }

  absl::Status OpenGrpc() {
    GrpcServerOptions grpc{.host = options_.http.host,
                           .port = options_.grpc_port,
                           .num_workers = options_.num_workers,
                           .version = MillraceVersion()};
    if (!options_.certificate_file.empty()) grpc.tls = TlsConfig{options_.certificate_file, options_.key_file};
    auto server = GrpcServer::Start(
        grpc,
        {.state = state_, .keys = keys_, .observer = observer_.get(), .runs = runs_.get(), .agents = agents_.get()});
    if (!server.ok()) return server.status();
    grpc_ = *std::move(server);
    log_->Info("listening for gRPC", {{"host", grpc.host}, {"port", int64_t{grpc_->port()}}});
    return absl::OkStatus();
  }

  // Loader thread.
  void OnLoadProgress() { load_progress_ns_ = absl::GetCurrentTimeNanos(); }

  // A model that neither loads nor fails is no better than a stuck step: the probes should say so.
  void WatchLoading() {
    const absl::Duration silence = absl::Nanoseconds(absl::GetCurrentTimeNanos() - load_progress_ns_);
    const bool is_stuck = silence > absl::Seconds(options_.load_seconds);
    if (is_stuck == !state_.is_alive()) return;
    state_.SetHealth(is_stuck ? EngineHealth::kStuck : EngineHealth::kStarting);
    if (is_stuck) log_->Error("loading makes no progress", {{"seconds", absl::ToDoubleSeconds(silence)}});
  }

  // SIGHUP. What cannot be read stays as it was.
  void Reload() {
    ReloadKeys();
    if (options_.agents_file.empty()) return;
    if (absl::Status status = agents_->Load(); !status.ok()) {
      log_->Error("the agents were not read again; the old ones stay", {{"error", std::string(status.message())}});
      return;
    }
    log_->Info("the agents were read again", {{"agents", static_cast<int64_t>(agents_->num_agents())}});
  }

  void ReloadKeys() {
    if (absl::Status status = keys_.Reload(); !status.ok()) {
      log_->Error("the keys were not read again; the old ones stay", {{"error", std::string(status.message())}});
      return;
    }
    log_->Info("the keys were read again", {{"api_keys", static_cast<int64_t>(keys_.num_keys())}});
  }

  bool WatchEngine() {
    const EngineHealth before = state_.health();
    const EngineHealth health = engine_->CheckHealth(absl::Seconds(options_.step_seconds));
    state_.SetHealth(health);
    if (health == before) return true;
    if (health == EngineHealth::kStuck) log_->Error("a step does not end; its requests were failed");
    if (health == EngineHealth::kReady) log_->Info("the engine answers again");
    if (health != EngineHealth::kFailed) return true;
    log_->Error("the engine is lost");
    return false;
  }

  void Drain(SignalWatch& signals) {
    state_.BeginDrain();
    http_->BeginDrain();
    if (grpc_) grpc_->BeginDrain();
    log_->Info("draining",
               {{"active_requests", int64_t{http_->num_active_requests()}}, {"limit_seconds", options_.drain_seconds}});
    WaitUntilIdle(signals, absl::Seconds(options_.drain_seconds));
    log_->Info("drained", {{"cut_requests", int64_t{NumActive()}}});
    const bool has_runs = runs_->num_running() > 0;
    runs_->Stop();
    if (has_runs) WaitUntilIdle(signals, kFarewellTime);
  }

  void WaitUntilIdle(SignalWatch& signals, absl::Duration limit) {
    const absl::Time deadline = absl::Now() + limit;
    while (NumActive() > 0 && absl::Now() < deadline) {
      if (const int again = signals.Wait(absl::Milliseconds(50), [this] { Reload(); }); again != 0) {
        log_->Warning("stopped at once by a second signal");
        _exit(128 + again);
      }
      WatchEngine();
    }
  }

  // A run may go on without a request: most have one, and count with it.
  int NumActive() const {
    const int num_requests = http_->num_active_requests() + (grpc_ ? grpc_->num_active_calls() : 0);
    return std::max(num_requests, runs_->num_running());
  }

  TransportStats CollectTransportStats() const {
    if (!has_http_) return {};
    return {.num_connections = http_->num_connections(),
            .num_active_requests = http_->num_active_requests(),
            .num_slow_readers = http_->num_slow_readers()};
  }

  const ServeOptions options_;
  const EngineLoader load_;
  std::atomic<int64_t> load_progress_ns_{absl::GetCurrentTimeNanos()};
  ServerState state_;
  ApiKeys keys_;
  UsageLedger usage_{absl::Now};
  std::unique_ptr<Log> log_;
  std::unique_ptr<Metrics> metrics_;
  std::unique_ptr<RequestObserver> observer_;
  std::unique_ptr<RunObserver> run_observer_;
  std::unique_ptr<ResponseCache> response_cache_;  // outlives the generator, which the engine outlives
  std::unique_ptr<Engine> engine_;
  const SandboxSupport sandbox_ = ProbeSandbox();
  std::unique_ptr<ResponseStore> responses_;
  std::unique_ptr<AgentRuns> runs_;
  std::unique_ptr<AgentCatalogue> agents_;  // refers to the tools of runs_
  std::unique_ptr<ApiHandler> handler_;
  std::unique_ptr<HttpServer> http_;
  std::unique_ptr<GrpcServer> grpc_;
  std::atomic<bool> has_http_{false};
};

}  // namespace

int RunServe(const ServeOptions& options) {
  return RunServe(options, [&options](EngineOptions engine_options, Log& log) {
    return LoadModel(options.model, options.hub, std::move(engine_options), &log);
  });
}

int RunServe(const ServeOptions& options, const EngineLoader& load) {
  SignalWatch signals;  // first: the mask is inherited by all threads
  App app(options, load);
  if (absl::Status status = app.Open(); !status.ok()) {
    std::fprintf(stderr, "millrace: %s\n", std::string(status.message()).c_str());
    app.Close();
    return 1;
  }
  absl::Notification is_loaded;
  absl::Status load_status;
  std::thread loader([&] {
    load_status = app.Load();
    is_loaded.Notify();
  });
  const int code = app.Watch(signals, is_loaded, load_status);
  signals.LeaveAtNext(app.closing_limit());
  loader.join();
  app.LeaveIfStuck();
  app.Close();
  return code;
}

const char* MillraceVersion() { return "0.1.0"; }

}  // namespace millrace
