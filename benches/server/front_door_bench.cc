// SPDX-License-Identifier: Apache-2.0
// The front door alone, over an engine that computes nothing: requests per second, the latency it adds to a token, and
// memory per open stream. The server runs in a child process, so that its memory and CPU time are its own; the client
// is one epoll thread. Tokens spell the time of their making, so that no clock has to be matched.
// Usage: front_door_bench [streams [tokens per second and stream [seconds]]]
#include <arpa/inet.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <map>
#include <thread>

#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/clock.h"
#include "engine/engine.h"
#include "engine/load/model_info.h"
#include "engine/text/tokenizer.h"
#include "server/api/api_handler.h"
#include "server/cli/percentiles.h"
#include "server/request_observer.h"

namespace millrace {
namespace {

constexpr int kTicks = 65536;  // tokens "0000" to "ffff": a time in units of 10 microseconds, modulo 0.66 s

int64_t NowTicks() {
  const auto now = std::chrono::steady_clock::now().time_since_epoch();
  return std::chrono::duration_cast<std::chrono::microseconds>(now).count() / 10;
}

// Gives every running request a token at a fixed rate; those that want one token get it at once.
class NullEngine : public Engine {
 public:
  explicit NullEngine(double tokens_per_second) : interval_(absl::Seconds(1 / tokens_per_second)) {
    VocabSpec spec{.model = "gpt2", .pre = "gpt-2"};
    for (int i = 0; i < kTicks; ++i) spec.tokens.push_back(absl::StrCat(absl::Hex(i, absl::kZeroPad4)));
    tokenizer_ = Tokenizer::FromVocab(spec).value();
    model_.vocab_tokens = kTicks;
    config_.max_model_tokens = 1 << 20;
    thread_ = std::thread([this] { Run(); });
  }
  ~NullEngine() override {
    {
      absl::MutexLock lock(&mu_);
      is_stopping_ = true;
    }
    thread_.join();
  }

  absl::StatusOr<RequestHandle> Submit(Request request, TokenSink sink) override {
    absl::MutexLock lock(&mu_);
    const RequestId id{next_id_++};
    if (request.max_new_tokens == 1) has_short_ = true;
    entries_[id.value] = {std::make_shared<TokenSink>(std::move(sink)), request.max_new_tokens};
    return RequestHandle(id, [this](RequestId gone) {
      absl::MutexLock inner(&mu_);
      entries_.erase(gone.value);
    });
  }
  void Finish(RequestId) override {}
  const ModelInfo& model() const override { return model_; }
  const Tokenizer& tokenizer() const override { return *tokenizer_; }
  const ChatTemplate* chat_template() const override { return nullptr; }
  SchedulerStats stats() const override { return {}; }
  std::vector<std::pair<std::string, int32_t>> waiting_by_tenant() const override { return {}; }
  const SchedulerConfig& scheduler_config() const override { return config_; }
  const std::string& memory_report() const override { return report_; }
  EngineHealth CheckHealth(absl::Duration) override { return EngineHealth::kReady; }
  absl::Time last_step_end() const override { return absl::Now(); }

 private:
  struct Entry {
    std::shared_ptr<TokenSink> sink;
    int32_t num_left = 0;
  };

  void Run() {
    absl::Time next = absl::Now();
    const auto has_work = [this]() ABSL_SHARED_LOCKS_REQUIRED(mu_) { return is_stopping_ || has_short_; };
    while (true) {
      std::vector<std::pair<std::shared_ptr<TokenSink>, TokenEvent>> events;
      {
        absl::MutexLock lock(&mu_);
        mu_.AwaitWithDeadline(absl::Condition(&has_work), next);
        if (is_stopping_) return;
        const bool is_tick = absl::Now() >= next;
        has_short_ = false;
        for (auto entry = entries_.begin(); entry != entries_.end();) {
          const bool is_short = entry->second.num_left == 1;
          if (!is_tick && !is_short) {
            ++entry;
            continue;
          }
          TokenEvent event{.id = RequestId{entry->first},
                           .finish = is_short ? FinishReason::kLength : FinishReason::kNone};
          event.tokens.push_back({.token = static_cast<int32_t>(NowTicks() % kTicks)});
          events.emplace_back(entry->second.sink, std::move(event));
          --entry->second.num_left;
          entry = is_short ? entries_.erase(entry) : std::next(entry);
        }
        if (is_tick) next += interval_;
      }
      for (auto& [sink, event] : events) {
        event.tokens[0].token = static_cast<int32_t>(NowTicks() % kTicks);
        (*sink)(std::move(event));
      }
    }
  }

  const absl::Duration interval_;
  std::unique_ptr<Tokenizer> tokenizer_;
  ModelInfo model_;
  SchedulerConfig config_;
  const std::string report_;
  absl::Mutex mu_;
  std::map<uint64_t, Entry> entries_ ABSL_GUARDED_BY(mu_);
  uint64_t next_id_ ABSL_GUARDED_BY(mu_) = 1;
  bool has_short_ ABSL_GUARDED_BY(mu_) = false;
  bool is_stopping_ ABSL_GUARDED_BY(mu_) = false;
  std::thread thread_;
};

// The child: serves until it is killed. Writes its port into the pipe.
[[noreturn]] void Serve(int pipe, double tokens_per_second) {
  NullEngine engine(tokens_per_second);
  ServerState state({"null"});
  ApiKeys keys;
  auto metrics = Metrics::Create({.model_name = "null", .version = "bench"});
  auto log = *Log::Create(LogLevel::kOff);
  auto observer = MakeRequestObserver(*metrics, nullptr);
  state.SetGenerator(Generator::Create(engine, observer.get(), Generator::Options{}));
  state.SetHealth(EngineHealth::kReady);
  ApiHandler handler({.state = state, .keys = keys, .metrics = *metrics, .log = *log, .transport_stats = nullptr}, {});
  auto server = HttpServer::Start({.host = "127.0.0.1", .port = 0}, handler);
  const int port = server.ok() ? (*server)->port() : -1;
  if (write(pipe, &port, sizeof(port)) != sizeof(port)) _exit(1);
  while (true) pause();
}

double ReadStatusKilobytes(pid_t child, const char* field) {
  std::ifstream file(absl::StrCat("/proc/", child, "/status"));
  std::string word;
  while (file >> word) {
    double value = 0;
    if (word == field && file >> value) return value;
  }
  return 0;
}

double ReadCpuSeconds(pid_t child) {
  std::ifstream file(absl::StrCat("/proc/", child, "/stat"));
  std::string word;
  double ticks = 0;
  for (int i = 1; i <= 15 && file >> word; ++i) {
    if (i >= 14) ticks += std::strtod(word.c_str(), nullptr);
  }
  return ticks / static_cast<double>(sysconf(_SC_CLK_TCK));
}

int Connect(int port) {
  const int fd = socket(AF_INET, SOCK_STREAM, 0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(static_cast<uint16_t>(port));
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  if (connect(fd, reinterpret_cast<sockaddr*>(&address), sizeof(address)) != 0) {
    std::perror("connect");
    std::exit(1);
  }
  return fd;
}

void SendAll(int fd, const std::string& bytes) {
  if (send(fd, bytes.data(), bytes.size(), MSG_NOSIGNAL) != static_cast<ssize_t>(bytes.size())) std::exit(1);
}

std::string PostBytes(const std::string& body) {
  return absl::StrCat("POST /v1/completions HTTP/1.1\r\nHost: b\r\nContent-Type: application/json\r\nContent-Length: ",
                      body.size(), "\r\n\r\n", body);
}

// What one stream still has of an incomplete line.
struct Stream {
  int fd = -1;
  std::string rest;
};

// Takes the tokens' times out of what a stream received.
void TakeTokens(Stream& stream, int64_t now, std::vector<double>& latencies_us) {
  constexpr std::string_view kMark = "\"text\":\"";
  size_t at = 0;
  while ((at = stream.rest.find(kMark, at)) != std::string::npos && at + kMark.size() + 4 < stream.rest.size()) {
    at += kMark.size();
    const auto made = static_cast<int64_t>(std::strtol(stream.rest.substr(at, 4).c_str(), nullptr, 16));
    const int64_t ticks = ((now - made) % kTicks + kTicks) % kTicks;
    latencies_us.push_back(static_cast<double>(ticks) * 10);
  }
  const size_t line = stream.rest.rfind('\n');
  if (line != std::string::npos) stream.rest.erase(0, line + 1);
}

void MeasureStreams(int port, pid_t child, int num_streams, double rate, double seconds) {
  const double kilobytes_before = ReadStatusKilobytes(child, "VmRSS:");
  const int poller = epoll_create1(0);
  std::vector<Stream> streams(static_cast<size_t>(num_streams));
  const std::string request = PostBytes(R"({"prompt":[1,2,3],"stream":true,"max_tokens":1000000})");
  for (size_t i = 0; i < streams.size(); ++i) {
    streams[i].fd = Connect(port);
    epoll_event event{.events = EPOLLIN, .data = {.u64 = i}};
    epoll_ctl(poller, EPOLL_CTL_ADD, streams[i].fd, &event);
    SendAll(streams[i].fd, request);
  }
  std::vector<double> latencies_us;
  const auto pump = [&](double duration) {
    const absl::Time end = absl::Now() + absl::Seconds(duration);
    std::vector<epoll_event> events(512);
    std::vector<char> bytes(65536);
    while (absl::Now() < end) {
      const int count = epoll_wait(poller, events.data(), static_cast<int>(events.size()), 50);
      for (int i = 0; i < count; ++i) {
        Stream& stream = streams[events[static_cast<size_t>(i)].data.u64];
        const ssize_t got = recv(stream.fd, bytes.data(), bytes.size(), MSG_DONTWAIT);
        const int64_t now = NowTicks();
        if (got <= 0) continue;
        stream.rest.append(bytes.data(), static_cast<size_t>(got));
        TakeTokens(stream, now, latencies_us);
      }
    }
  };
  pump(2);  // everyone is connected and warm
  latencies_us.clear();
  const double cpu_before = ReadCpuSeconds(child);
  pump(seconds);
  const double cpu = ReadCpuSeconds(child) - cpu_before;
  const double kilobytes = ReadStatusKilobytes(child, "VmRSS:") - kilobytes_before;
  const auto num_tokens = static_cast<double>(latencies_us.size());
  std::printf("%d streams at %.0f tokens/s: %.0f tokens/s arrived, added latency %s\n", num_streams, rate,
              num_tokens / seconds, FormatPercentiles(latencies_us, "us").c_str());
  std::printf("  server CPU %.2f us a token, memory %.2f KB a stream (engine's table and sinks included)\n",
              cpu / num_tokens * 1e6, kilobytes / num_streams);
  for (const Stream& stream : streams) close(stream.fd);
  close(poller);
  absl::SleepFor(absl::Milliseconds(500));
}

// Short requests over connections that are kept; each sends its next when its last is answered.
void MeasureRequests(int port, pid_t child, const char* name, const std::string& request, int num_connections) {
  const int poller = epoll_create1(0);
  std::vector<Stream> clients(static_cast<size_t>(num_connections));
  for (size_t i = 0; i < clients.size(); ++i) {
    clients[i].fd = Connect(port);
    epoll_event event{.events = EPOLLIN, .data = {.u64 = i}};
    epoll_ctl(poller, EPOLL_CTL_ADD, clients[i].fd, &event);
    SendAll(clients[i].fd, request);
  }
  int64_t num_answers = 0;
  const double cpu_before = ReadCpuSeconds(child);
  constexpr double kSeconds = 4;
  const absl::Time end = absl::Now() + absl::Seconds(kSeconds);
  std::vector<epoll_event> events(256);
  char bytes[65536];
  while (absl::Now() < end) {
    const int count = epoll_wait(poller, events.data(), static_cast<int>(events.size()), 50);
    for (int i = 0; i < count; ++i) {
      Stream& client = clients[events[static_cast<size_t>(i)].data.u64];
      const ssize_t got = recv(client.fd, bytes, sizeof(bytes), MSG_DONTWAIT);
      if (got <= 0) continue;
      client.rest.append(bytes, static_cast<size_t>(got));
      const size_t head = client.rest.find("\r\n\r\n");
      const size_t field = client.rest.find("content-length: ");
      if (head == std::string::npos || field == std::string::npos) continue;
      const auto length = static_cast<size_t>(std::strtol(client.rest.c_str() + field + 16, nullptr, 10));
      if (client.rest.size() < head + 4 + length) continue;
      client.rest.clear();
      ++num_answers;
      SendAll(client.fd, request);
    }
  }
  const double cpu = ReadCpuSeconds(child) - cpu_before;
  std::printf("%-28s %3d connections: %.0f requests/s, server CPU %.1f us a request\n", name, num_connections,
              static_cast<double>(num_answers) / kSeconds, cpu / static_cast<double>(num_answers) * 1e6);
  for (const Stream& client : clients) close(client.fd);
  close(poller);
}

int Main(int argc, char** argv) {
  const int num_streams = argc > 1 ? std::atoi(argv[1]) : 2000;
  const double rate = argc > 2 ? std::atof(argv[2]) : 10;
  const double seconds = argc > 3 ? std::atof(argv[3]) : 5;
  rlimit files{};
  getrlimit(RLIMIT_NOFILE, &files);
  files.rlim_cur = files.rlim_max;
  setrlimit(RLIMIT_NOFILE, &files);
  int pipes[2];
  if (pipe(pipes) != 0) return 1;
  const pid_t child = fork();
  if (child == 0) Serve(pipes[1], rate);
  int port = -1;
  if (read(pipes[0], &port, sizeof(port)) != sizeof(port) || port < 0) return 1;
  const std::string get = "GET /livez HTTP/1.1\r\nHost: b\r\n\r\n";
  MeasureRequests(port, child, "GET /livez", get, 64);
  MeasureRequests(port, child, "POST /v1/completions, 1 token", PostBytes(R"({"prompt":[1,2,3],"max_tokens":1})"), 64);
  MeasureStreams(port, child, 1, rate, seconds);
  MeasureStreams(port, child, 100, rate, seconds);
  MeasureStreams(port, child, num_streams, rate, seconds);
  kill(child, SIGKILL);
  waitpid(child, nullptr, 0);
  return 0;
}

}  // namespace
}  // namespace millrace

int main(int argc, char** argv) { return millrace::Main(argc, argv); }
