// SPDX-License-Identifier: Apache-2.0
// Flags and help. The only file that sees the command-line library.
#include "server/cli/command_line.h"

#include <CLI/CLI.hpp>
#include <algorithm>
#include <memory>
#include <sstream>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "server/app.h"
#include "server/config/config_file.h"

namespace millrace {
namespace {

constexpr char kNamesFlag[] = "--served-model-name";

constexpr char kFooter[] = R"(Examples:
  millrace serve models/millrace-tiny
  millrace serve ./Qwen2.5-0.5B-Instruct --quantization int8 --port 8080
  millrace chat --url http://127.0.0.1:8000
  millrace bench serve --url http://127.0.0.1:8000 --request-rate 8 --svg load.svg
Each command has its own help: millrace serve --help)";

// One parse: the library's objects write into `out`.
struct Parser {
  CLI::App app{"Millrace: serves large language models over HTTP and gRPC.", "millrace"};
  CLI::App* serve = nullptr;
  CommandLine out;
  std::string config_path;
  bool wants_version = false;
};

template <typename T>
CLI::Option* Add(CLI::App* app, const char* group, const char* names, T& value, const std::string& help) {
  return app->add_option(names, value, help)
      ->group(group)
      ->capture_default_str()
      ->multi_option_policy(CLI::MultiOptionPolicy::TakeLast);
}

// One value each time it is given: a flag that took all words after it would take the MODEL for one of them.
void AddRepeatable(CLI::App* app, const char* name, std::vector<std::string>& values, const char* help) {
  app->add_option(name, values, help)
      ->group("Server")
      ->allow_extra_args(false)
      ->multi_option_policy(CLI::MultiOptionPolicy::TakeAll);
}

void AddModelFlags(CLI::App* app, ServeOptions& serve, bool is_required) {
  constexpr char kGroup[] = "Model";
  EngineOptions& engine = serve.engine;
  Add(app, kGroup, "model,--model", serve.model, "Directory, .gguf file, or org/name on a hub")->required(is_required);
  Add(app, kGroup, "--revision", serve.hub.revision, "Branch, tag or commit of a hub's model (default: main)");
  Add(app, kGroup, "--download-dir", serve.hub.cache_dir,
      "Where hub models are kept (default: HF_HUB_CACHE, HF_HOME/hub, ~/.cache/huggingface/hub)");
  Add(app, kGroup, "--hf-token", serve.hub.token, "The hub's access token (default: HF_TOKEN)");
  Add(app, kGroup, "--device", engine.device, "auto (CUDA where there is one), cpu, cuda, cuda:N");
  Add(app, kGroup, "--threads", engine.num_threads, "CPU threads; 0: all available cores")->check(CLI::Range(0, 1024));
  Add(app, kGroup, "--tensor-parallel-size", engine.tensor_parallel_size,
      "Devices that divide the model among them: CUDA devices from --device on, or shares of the CPU")
      ->check(CLI::Range(1, 64));
  Add(app, kGroup, "--dtype", engine.dtype, "Of dense weights, and with CUDA of activations: float16 or bfloat16")
      ->check(CLI::IsMember({"auto", "bfloat16", "float16", "float32"}));
  Add(app, kGroup, "--load-format", engine.load_format, "dummy: random weights from a config alone")
      ->check(CLI::IsMember({"auto", "safetensors", "gguf", "dummy"}));
  Add(app, kGroup, "--quantization,-q", engine.quantization, "Quantise on load: int8, int4, int4-g32")
      ->check(CLI::IsMember({"", "int8", "int4", "int4-g32"}));
  Add(app, kGroup, "--chat-template", engine.chat_template, "A file or the template itself, instead of the model's");
  Add(app, kGroup, "--max-model-len", engine.max_model_tokens,
      "Longest prompt and answer together, in tokens; 0: the model's, as far as memory goes")
      ->check(CLI::NonNegativeNumber);
  Add(app, kGroup, "--dummy-seed", engine.dummy_seed, "Of the random weights of --load-format dummy");
}

void AddCacheFlags(CLI::App* app, ServeOptions& serve) {
  constexpr char kGroup[] = "Memory and scheduling";
  EngineOptions& engine = serve.engine;
  SchedulerConfig& scheduler = engine.scheduler;
  Add(app, kGroup, "--gpu-memory-utilization,--memory-utilization", engine.memory_utilization,
      "Share of the device's available memory that the plan may use")
      ->check(CLI::Range(0.01, 1.0));
  Add(app, kGroup, "--kv-cache-memory-bytes", engine.kv_cache_bytes,
      "Memory of the KV cache, e.g. 512MB or 4GB; 0: what the utilisation leaves")
      ->transform(CLI::AsSizeValue(false));
  Add(app, kGroup, "--kv-cache-dtype", engine.kv_cache_dtype, "auto is bfloat16")
      ->check(CLI::IsMember({"auto", "float32", "float16", "bfloat16", "int8"}));
  Add(app, kGroup, "--block-size", scheduler.page_tokens, "Tokens in a KV page")
      ->check(CLI::IsMember({8, 16, 32, 64, 128}));
  Add(app, kGroup, "--max-num-seqs", scheduler.max_sequences, "Most sequences running at once")
      ->check(CLI::Range(1, 65536));
  Add(app, kGroup, "--max-num-batched-tokens", scheduler.max_step_tokens, "Token budget of a step")
      ->check(CLI::Range(1, 1 << 20));
  Add(app, kGroup, "--max-num-queued-reqs", scheduler.max_queued_requests, "Most waiting requests; beyond: 429")
      ->check(CLI::Range(1, 1 << 24));
  Add(app, kGroup, "--max-num-queued-tokens", scheduler.max_queued_tokens, "Most waiting prompt tokens; beyond: 429")
      ->check(CLI::PositiveNumber);
  app->add_flag("--enable-prefix-caching,!--no-enable-prefix-caching", scheduler.enable_prefix_caching,
                "Reuse KV pages of equal prompt beginnings [default: on]")
      ->group(kGroup)
      ->multi_option_policy(CLI::MultiOptionPolicy::TakeLast);
}

void AddDoorFlags(CLI::App* app, ServeOptions& serve) {
  constexpr char kGroup[] = "Server";
  HttpServerOptions& http = serve.http;
  Add(app, kGroup, "--host", http.host, "Address to listen on");
  Add(app, kGroup, "--port", http.port, "HTTP port; 0: the system chooses")->check(CLI::Range(0, 65535));
  Add(app, kGroup, "--grpc-port", serve.grpc_port, "gRPC port; 0: no gRPC")->check(CLI::Range(0, 65535));
  AddRepeatable(app, kNamesFlag, serve.served_model_names,
                "Name clients use; give it again for each further one, or list them if MODEL came before. The first is "
                "the one we answer with");
  Add(app, kGroup, "--ssl-certfile", serve.certificate_file, "TLS: PEM file of the certificate chain");
  Add(app, kGroup, "--ssl-keyfile", serve.key_file, "TLS: PEM file of the private key");
  AddRepeatable(
      app, "--api-key", serve.api_keys,
      "A key clients must send; give it again for each further one. Visible in the process list: prefer a file");
  Add(app, kGroup, "--api-key-file", serve.api_key_file,
      "Keys with tenants, roles and limits: YAML, or lines 'KEY [TENANT [WEIGHT]]'; SIGHUP reads it again");
  app->add_flag("--metrics-public", serve.has_public_metrics, "/metrics needs no key [default: off]")->group(kGroup);
  Add(app, kGroup, "--shutdown-timeout,--drain-timeout", serve.drain_seconds,
      "Seconds that running requests may take after SIGTERM")
      ->check(CLI::Range(0.0, 86400.0));
  Add(app, kGroup, "--step-timeout", serve.step_seconds, "Seconds after which a step counts as stuck")
      ->check(CLI::Range(0.1, 86400.0));
  Add(app, kGroup, "--load-timeout", serve.load_seconds,
      "Seconds without progress after which loading (or the warm-up) counts as stuck")
      ->check(CLI::Range(0.01, 86400.0));
  Add(app, kGroup, "--sse-keep-alive-interval", serve.keep_alive_seconds,
      "Seconds between comments on a silent stream; 0: none")
      ->check(CLI::Range(0.0, 86400.0));
  Add(app, kGroup, "--max-logprobs", serve.max_logprobs, "Most log-probabilities per token a client may ask for")
      ->check(CLI::Range(0, 1024));
  Add(app, kGroup, "--max-connections", http.limits.max_connections,
      "Open HTTP connections; beyond: 503. The default is lowered to what the limit on open files allows")
      ->check(CLI::Range(1, 1 << 20));
  Add(app, kGroup, "--max-body-bytes", http.limits.max_body_bytes, "Largest request body; beyond: 413")
      ->transform(CLI::AsSizeValue(false));
  Add(app, kGroup, "--io-threads", http.num_io_threads, "Threads for sockets")->check(CLI::Range(1, 64));
  Add(app, kGroup, "--worker-threads", serve.num_workers, "Threads for parsing, templates and tokenising")
      ->check(CLI::Range(1, 64));
}

void AddToolFlags(CLI::App* app, ServeOptions& serve) {
  constexpr char kGroup[] = "Agent runs and tools";
  RunLimits& limits = serve.run_limits;
  SchedulerConfig& scheduler = serve.engine.scheduler;
  Add(app, kGroup, "--enable-tools", serve.tools.enabled,
      "Tools that the server runs itself, with commas between: calculator, clock, python (in a sandbox), http_get "
      "(needs "
      "--http-get-hosts); empty: none")
      ->delimiter(',')
      ->allow_extra_args(false)
      ->multi_option_policy(CLI::MultiOptionPolicy::TakeAll);
  AddRepeatable(app, "--http-get-hosts", serve.tools.http_get_hosts,
                "A host that http_get may ask (example.com, *.example.com, example.com:8443); give it again for more");
  AddRepeatable(app, "--mcp-config", serve.mcp_config_files,
                "A file with the tool servers (MCP, started as programs), as other programs have it: {\"mcpServers\": "
                "{NAME: {\"command\", \"args\", \"env\"}}}; give it again for more");
  Add(app, kGroup, "--agents", serve.agents_file, "YAML file that defines agents; SIGHUP reads it again");
  Add(app, kGroup, "--max-agent-runs", serve.max_runs, "Agent runs at once; beyond: 429")->check(CLI::Range(1, 65536));
  Add(app, kGroup, "--max-run-turns", limits.max_turns, "Answers of the model in one run")->check(CLI::Range(1, 10000));
  Add(app, kGroup, "--max-run-tool-calls", limits.max_tool_calls, "Calls of the server's tools in one run")
      ->check(CLI::Range(0, 100000));
  Add(app, kGroup, "--max-run-tokens", limits.max_total_tokens,
      "Tokens of prompts and answers of all turns of a run; 0: no limit")
      ->check(CLI::Range(int64_t{0}, int64_t{1} << 40));
  Add(app, kGroup, "--max-parallel-tools", limits.max_parallel_tools, "Calls of one turn that run at once")
      ->check(CLI::Range(1, 64));
  Add(app, kGroup, "--session-kv-share", scheduler.max_pinned_share,
      "Share of the KV pages that may be kept for runs whose tools are at work; 0: none")
      ->check(CLI::Range(0.0, 1.0));
}

void AddStoreFlags(CLI::App* app, ServeOptions& serve) {
  constexpr char kGroup[] = "Stored responses";
  Add(app, kGroup, "--data-dir", serve.data_dir,
      "Folder for what survives a restart: responses of /v1/responses; without: they are kept in memory");
  Add(app, kGroup, "--response-days", serve.response_days, "How long a stored response can be asked for")
      ->check(CLI::Range(0.001, 36500.0));
  Add(app, kGroup, "--response-store-bytes", serve.response_store_bytes,
      "Most bytes of stored responses; beyond, the oldest of the tenant with most of them go")
      ->transform(CLI::AsSizeValue(false));
}

void AddResponseCacheFlags(CLI::App* app, ResponseCacheOptions& cache) {
  constexpr char kGroup[] = "Response cache";
  Add(app, kGroup, "--response-cache", cache.store,
      "Where answers that can be repeated are kept: off, memory, redis://[USER:PASSWORD@]HOST[:PORT][/DATABASE]");
  Add(app, kGroup, "--response-cache-url-file", cache.url_file, "A file with the redis:// URL, instead");
  Add(app, kGroup, "--response-cache-size", cache.max_bytes, "Most bytes of the store in memory, e.g. 512MB")
      ->transform(CLI::AsSizeValue(false));
  Add(app, kGroup, "--response-cache-ttl", cache.ttl_seconds, "Seconds that an answer is kept")
      ->check(CLI::Range(1.0, 31536000.0));
}

void AddServe(Parser& parser) {
  ServeOptions& serve = parser.out.serve;
  CLI::App* app = parser.app.add_subcommand("serve", "Serve a model over HTTP (and gRPC)");
  parser.serve = app;
  AddModelFlags(app, serve, /*is_required=*/false);
  AddDoorFlags(app, serve);
  AddToolFlags(app, serve);
  AddStoreFlags(app, serve);
  AddCacheFlags(app, serve);
  AddResponseCacheFlags(app, serve.response_cache);
  constexpr char kGroup[] = "Logs and configuration";
  Add(app, kGroup, "--log-level", serve.log_level, "debug, info, warning, error, off")
      ->check(CLI::IsMember({"debug", "info", "warning", "error", "off"}));
  Add(app, kGroup, "--log-file", serve.log_file, "Instead of standard error");
  app->add_flag("--log-requests,!--disable-log-requests,!--no-log-requests", serve.logs_requests,
                "A line per request; never its text [default: on]")
      ->group(kGroup);
  Add(app, kGroup, "--config", parser.config_path, "YAML file with these flags as keys; flags given here win");
  app->add_flag("--check-config", serve.checks_only, "Check flags and config, then stop")->group(kGroup);
  app->callback([&parser, app] {
    parser.out.command = Command::kServe;
    parser.out.serve.is_max_connections_given = app->count("--max-connections") > 0;
  });
}

void AddClientFlags(CLI::App* app, ClientOptions& client) {
  constexpr char kGroup[] = "Request";
  Add(app, kGroup, "--url", client.url, "A server, e.g. http://127.0.0.1:8000; without: load MODEL here");
  Add(app, kGroup, "--api-key", client.api_key, "The key the server wants");
  Add(app, kGroup, "--model-name", client.model, "Name to ask the server for (default: its first)");
  Add(app, kGroup, "--temperature", client.temperature, "0: always the likeliest token")->check(CLI::Range(0.0, 2.0));
  Add(app, kGroup, "--top-p", client.top_p, "Nucleus sampling")->check(CLI::Range(0.0, 1.0));
  Add(app, kGroup, "--sampling-seed", client.seed, "For answers that can be repeated");
  Add(app, kGroup, "--max-tokens", client.max_tokens, "Longest answer")->check(CLI::NonNegativeNumber);
}

void AddClients(Parser& parser) {
  ClientOptions& client = parser.out.client;
  CLI::App* chat = parser.app.add_subcommand("chat", "Talk with a model, here or on a server");
  AddModelFlags(chat, parser.out.serve, false);
  AddClientFlags(chat, client);
  Add(chat, "Request", "--system", client.system_prompt, "The system message");
  Add(chat, "Request", "--prompt,-p", client.prompt, "Ask this, print the answer, stop");
  chat->callback([&parser] { parser.out.command = Command::kChat; });

  CLI::App* complete = parser.app.add_subcommand("complete", "Continue a text, here or on a server");
  AddModelFlags(complete, parser.out.serve, false);
  AddClientFlags(complete, client);
  Add(complete, "Request", "--prompt,-p", client.prompt, "The text (default: standard input)");
  complete->callback([&parser] { parser.out.command = Command::kComplete; });
}

void AddOfflineFlags(CLI::App* app, Parser& parser) {
  BenchOfflineOptions& bench = parser.out.bench_offline;
  AddModelFlags(app, parser.out.serve, true);
  AddCacheFlags(app, parser.out.serve);
  constexpr char kGroup[] = "Benchmark";
  Add(app, kGroup, "--input-len", bench.input_tokens, "Prompt tokens")->check(CLI::Range(1, 1 << 24));
  Add(app, kGroup, "--output-len", bench.output_tokens, "Generated tokens")->check(CLI::Range(1, 1 << 24));
  Add(app, kGroup, "--output-json", bench.output_json, "File for the results");
}

void AddBench(Parser& parser) {
  CLI::App* bench = parser.app.add_subcommand("bench", "Measure: throughput, latency (offline), serve (over HTTP)");
  bench->require_subcommand(1);
  CLI::App* throughput = bench->add_subcommand("throughput", "Tokens per second of many requests at once");
  AddOfflineFlags(throughput, parser);
  Add(throughput, "Benchmark", "--num-prompts", parser.out.bench_offline.num_prompts, "Requests")
      ->check(CLI::Range(1, 1 << 20));
  throughput->callback([&parser] { parser.out.command = Command::kBenchThroughput; });
  CLI::App* latency = bench->add_subcommand("latency", "Time of one batch");
  AddOfflineFlags(latency, parser);
  Add(latency, "Benchmark", "--batch-size", parser.out.bench_offline.num_prompts, "Requests in the batch")
      ->check(CLI::Range(1, 65536));
  Add(latency, "Benchmark", "--num-iters", parser.out.bench_offline.num_runs, "Timed runs")
      ->check(CLI::Range(1, 10000));
  latency->callback([&parser] {
    parser.out.command = Command::kBenchLatency;
    if (parser.app.get_subcommand("bench")->get_subcommand("latency")->count("--batch-size") == 0) {
      parser.out.bench_offline.num_prompts = 1;
    }
  });

  BenchServeOptions& serve = parser.out.bench_serve;
  constexpr char kGroup[] = "Load";
  CLI::App* load = bench->add_subcommand("serve", "Open-loop load on a server: TTFT, inter-token latency, throughput");
  Add(load, kGroup, "--url", serve.url, "The server");
  Add(load, kGroup, "--api-key", serve.api_key, "The key it wants");
  Add(load, kGroup, "--model", serve.model, "Name to ask for (default: its first)");
  Add(load, kGroup, "--endpoint", serve.endpoint, "What to call")->check(CLI::IsMember({"completions", "chat"}));
  Add(load, kGroup, "--num-prompts", serve.num_prompts,
      "Most requests; 0: all of a --trace, else " + std::to_string(kDefaultLoadRequests))
      ->check(CLI::Range(0, 1 << 24));
  Add(load, kGroup, "--request-rate", serve.request_rate, "Poisson arrivals per second; inf: all at once")
      ->check(CLI::PositiveNumber);
  Add(load, kGroup, "--trace", serve.trace,
      "CSV of arrival time, input and output tokens (e.g. Azure's), instead of --request-rate");
  Add(load, kGroup, "--trace-speed", serve.trace_speed, "2: twice as fast as recorded")->check(CLI::PositiveNumber);
  Add(load, kGroup, "--input-len", serve.input_tokens, "Prompt tokens")->check(CLI::Range(1, 1 << 24));
  Add(load, kGroup, "--output-len", serve.output_tokens, "Generated tokens")->check(CLI::Range(1, 1 << 24));
  Add(load, kGroup, "--max-concurrency", serve.max_concurrency, "Most open requests")->check(CLI::Range(1, 1 << 20));
  Add(load, kGroup, "--seed", serve.seed, "Of arrivals and prompts");
  Add(load, kGroup, "--output-json", serve.output_json, "File for the results");
  Add(load, kGroup, "--svg", serve.output_svg, "File for the plot");
  load->callback([&parser] { parser.out.command = Command::kBenchServe; });
}

void AddTools(Parser& parser) {
  CLI::App* inspect = parser.app.add_subcommand("inspect", "What a model is and what it takes of memory");
  AddModelFlags(inspect, parser.out.serve, true);
  AddCacheFlags(inspect, parser.out.serve);
  inspect->callback([&parser] { parser.out.command = Command::kInspect; });

  QuantizeOptions& quantize = parser.out.quantize;
  CLI::App* app = parser.app.add_subcommand("quantize", "Write a quantised copy of a model");
  app->add_option("input", quantize.input, "The model's directory")->required();
  app->add_option("output", quantize.output, "A new directory")->required();
  Add(app, "Options", "--quantization,-q", quantize.format, "Of the linear layers")
      ->check(CLI::IsMember({"int8", "int4", "int4-g32"}));
  app->callback([&parser] { parser.out.command = Command::kQuantize; });
}

void AddKeys(Parser& parser) {
  CLI::App* keys = parser.app.add_subcommand("keys", "Make API keys: new");
  keys->require_subcommand(1);
  CLI::App* app = keys->add_subcommand("new", "Make a key: shows it once, and prints its entry for --api-key-file");
  NewKeyOptions& options = parser.out.new_key;
  Add(app, "Options", "--tenant", options.tenant, "Whose key it is (default: the anonymous tenant's)");
  Add(app, "Options", "--name", options.name, "What logs call it (default: a part of its digest)");
  Add(app, "Options", "--role", options.roles, "infer (the default), metrics, admin; several with commas")
      ->delimiter(',')
      ->check(CLI::IsMember({"infer", "metrics", "admin"}));
  Add(app, "Options", "--expires", options.expires, "Its end: 2030-01-31 or 2030-01-31T12:00:00Z (default: never)");
  app->callback([&parser] { parser.out.command = Command::kNewKey; });
}

void Build(Parser& parser) {
  parser.app.footer(kFooter);
  parser.app.set_version_flag("--version,-V", absl::StrCat("millrace ", MillraceVersion()));
  parser.app.require_subcommand(1);
  parser.app.get_formatter()->column_width(44);
  AddServe(parser);
  AddClients(parser);
  AddBench(parser);
  AddTools(parser);
  AddKeys(parser);
}

// Long names of a command's flags, without the dashes.
std::vector<std::string> FlagNames(const CLI::App* app) {
  std::vector<std::string> names;
  for (const CLI::Option* option : app->get_options()) {
    for (const std::string& name : option->get_lnames()) names.push_back(name);
    for (const std::string& name : option->get_fnames()) names.push_back(name);
  }
  return names;
}

std::string Suggestion(std::string_view name, const CLI::App* app) {
  const std::string nearest = NearestName(name, FlagNames(app));
  return nearest.empty() ? "" : absl::StrCat(" (did you mean '", nearest, "'?)");
}

const CLI::App* ActiveCommand(const CLI::App& app) {
  const CLI::App* active = &app;
  while (!active->get_subcommands().empty()) active = active->get_subcommands().front();
  return active;
}

// Which of the arguments the active command does not know, with what was likely meant.
std::string ExplainExtras(const std::vector<std::string>& arguments, const CLI::App& app) {
  const CLI::App* command = ActiveCommand(app);
  const std::vector<std::string> known = FlagNames(command);
  for (const std::string& argument : arguments) {
    if (argument.size() < 3 || argument.compare(0, 2, "--") != 0) continue;
    const std::string name = argument.substr(2, argument.find('=') - 2);
    if (std::find(known.begin(), known.end(), name) != known.end() || name == "help") continue;
    return absl::StrCat("unknown flag --", name, " of 'millrace ", command->get_name(), "'", Suggestion(name, command));
  }
  return "";
}

bool TakesValue(const CLI::App* app, const std::string& word) {
  const CLI::Option* option = absl::StrContains(word, "=") ? nullptr : app->get_option_no_throw(word);
  return option != nullptr && option->get_items_expected_max() > 0;
}

// vLLM's "serve MODEL --served-model-name a b" with the flag before each name. A word there is a name only when the
// model was named before it; else it is the model.
std::vector<std::string> SpreadNames(const std::vector<std::string>& arguments, const CLI::App* serve) {
  if (arguments.empty() || arguments.front() != "serve") return arguments;
  std::vector<std::string> spread;
  bool has_model = false, is_after_names = false;
  for (size_t i = 0; i < arguments.size(); ++i) {
    const std::string& word = arguments[i];
    const bool is_flag = word.size() > 1 && word.front() == '-';
    if (i > 0 && !is_flag) {
      is_after_names = is_after_names && has_model;
      has_model = true;
      if (is_after_names) spread.push_back(kNamesFlag);
    }
    spread.push_back(word);
    if (!is_flag) continue;
    is_after_names = word == kNamesFlag || absl::StartsWith(word, absl::StrCat(kNamesFlag, "="));
    has_model = has_model || word == "--model" || absl::StartsWith(word, "--model=");
    if (TakesValue(serve, word) && i + 1 < arguments.size()) spread.push_back(arguments[++i]);
  }
  return spread;
}

absl::Status Parse(Parser& parser, const std::vector<std::string>& given) {
  const std::vector<std::string> arguments = SpreadNames(given, parser.serve);
  std::vector<std::string> reversed(arguments.rbegin(), arguments.rend());  // as the library wants them
  try {
    parser.app.parse(reversed);
  } catch (const CLI::Success& success) {
    std::ostringstream text;
    parser.app.exit(success, text, text);
    parser.out = CommandLine();
    parser.out.output = text.str();
  } catch (const CLI::ParseError& error) {
    const std::string extras = ExplainExtras(arguments, parser.app);
    return absl::InvalidArgumentError(extras.empty() ? error.what() : extras);
  } catch (const CLI::Error& error) {
    return absl::InvalidArgumentError(error.what());
  }
  return absl::OkStatus();
}

std::vector<std::string> AsFlags(const ConfigEntry& entry) {
  std::vector<std::string> flags;
  for (const std::string& value : entry.values) flags.push_back(absl::StrCat("--", entry.name, "=", value));
  return flags;
}

// The config's entries as flags, each tried alone first so that a fault names its line.
absl::StatusOr<std::vector<std::string>> ConfigFlags(const Parser& given, const std::string& path) {
  auto entries = ReadConfigFile(path);
  if (!entries.ok()) return entries.status();
  const std::vector<std::string> known = FlagNames(given.serve);
  std::vector<std::string> flags;
  for (const ConfigEntry& entry : *entries) {
    const std::string where = absl::StrCat(path, ":", entry.line, ": ");
    if (std::find(known.begin(), known.end(), entry.name) == known.end() || entry.name == "config" ||
        entry.name == "help") {
      return absl::InvalidArgumentError(
          absl::StrCat(where, "unknown key '", entry.name, "'", Suggestion(entry.name, given.serve)));
    }
    const std::vector<std::string> own = AsFlags(entry);
    Parser alone;
    Build(alone);
    std::vector<std::string> arguments = {"serve"};
    arguments.insert(arguments.end(), own.begin(), own.end());
    if (absl::Status status = Parse(alone, arguments); !status.ok()) {
      return absl::InvalidArgumentError(absl::StrCat(where, status.message()));
    }
    if (given.serve->count("--" + entry.name) == 0) flags.insert(flags.end(), own.begin(), own.end());
  }
  return flags;
}

}  // namespace

absl::StatusOr<CommandLine> ParseCommandLine(const std::vector<std::string>& arguments) {
  auto parser = std::make_unique<Parser>();
  Build(*parser);
  if (absl::Status status = Parse(*parser, arguments); !status.ok()) return status;
  if (parser->out.command != Command::kServe || parser->config_path.empty()) return std::move(parser->out);
  auto flags = ConfigFlags(*parser, parser->config_path);
  if (!flags.ok()) return flags.status();
  std::vector<std::string> all = arguments;
  const auto command = std::find(all.begin(), all.end(), "serve");
  all.insert(command + 1, flags->begin(), flags->end());
  auto merged = std::make_unique<Parser>();
  Build(*merged);
  if (absl::Status status = Parse(*merged, all); !status.ok()) return status;
  return std::move(merged->out);
}

}  // namespace millrace
