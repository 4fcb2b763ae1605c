// SPDX-License-Identifier: Apache-2.0
#include "server/log/log.h"

#include <spdlog/logger.h>
#include <spdlog/sinks/basic_file_sink.h>
#include <spdlog/sinks/stdout_sinks.h>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "server/wire/json_writer.h"

namespace millrace {
namespace {

spdlog::level::level_enum ToSpdlog(LogLevel level) {
  switch (level) {
    case LogLevel::kDebug:
      return spdlog::level::debug;
    case LogLevel::kInfo:
      return spdlog::level::info;
    case LogLevel::kWarning:
      return spdlog::level::warn;
    case LogLevel::kError:
      return spdlog::level::err;
    case LogLevel::kOff:
      return spdlog::level::off;
  }
  return spdlog::level::info;
}

std::string_view LevelName(LogLevel level) {
  constexpr std::string_view kNames[] = {"debug", "info", "warning", "error", "off"};
  return kNames[static_cast<size_t>(level)];
}

class SpdLog : public Log {
 public:
  SpdLog(LogLevel level, spdlog::sink_ptr sink) : logger_("millrace", std::move(sink)) {
    logger_.set_level(ToSpdlog(level));
    logger_.set_pattern("%v");
    logger_.flush_on(spdlog::level::info);
  }

  void Write(LogLevel level, std::string_view message, std::initializer_list<LogField> fields) override {
    const spdlog::level::level_enum spd_level = ToSpdlog(level);
    if (!logger_.should_log(spd_level)) return;
    std::string line = R"({"time":")";
    absl::StrAppend(&line, absl::FormatTime("%Y-%m-%dT%H:%M:%E3SZ", absl::Now(), absl::UTCTimeZone()), R"(","level":)");
    AppendJsonString(LevelName(level), line);
    line += R"(,"message":)";
    AppendJsonString(message, line);
    for (const LogField& field : fields) {
      line += ',';
      AppendJsonString(field.name, line);
      line += ':';
      std::visit([&](const auto& value) { AppendValue(value, line); }, field.value);
    }
    line += '}';
    logger_.log(spd_level, spdlog::string_view_t(line.data(), line.size()));
  }

 private:
  static void AppendValue(std::string_view text, std::string& line) { AppendJsonString(text, line); }
  static void AppendValue(int64_t value, std::string& line) { AppendJsonInt(value, line); }
  static void AppendValue(double value, std::string& line) { absl::StrAppend(&line, value); }
  static void AppendValue(bool value, std::string& line) { line += value ? "true" : "false"; }

  spdlog::logger logger_;
};

}  // namespace

absl::StatusOr<LogLevel> ParseLogLevel(std::string_view name) {
  for (int i = 0; i <= static_cast<int>(LogLevel::kOff); ++i) {
    if (name == LevelName(static_cast<LogLevel>(i))) return static_cast<LogLevel>(i);
  }
  return absl::InvalidArgumentError(absl::StrCat("unknown log level '", absl::string_view(name.data(), name.size()),
                                                 "' (debug, info, warning, error, off)"));
}

absl::StatusOr<std::unique_ptr<Log>> Log::Create(LogLevel level, const std::string& path) {
  if (path.empty()) return std::make_unique<SpdLog>(level, std::make_shared<spdlog::sinks::stderr_sink_mt>());
  try {
    return std::make_unique<SpdLog>(level, std::make_shared<spdlog::sinks::basic_file_sink_mt>(path));
  } catch (const spdlog::spdlog_ex& error) {
    return absl::InvalidArgumentError(absl::StrCat("log file ", path, ": ", error.what()));
  }
}

}  // namespace millrace
