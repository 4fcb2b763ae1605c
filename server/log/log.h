// SPDX-License-Identifier: Apache-2.0
#pragma once
// Structured logs: one JSON object per line on standard error. Thread-safe. Never given prompts, answers or keys.
#include <cstdint>
#include <initializer_list>
#include <memory>
#include <string>
#include <string_view>
#include <variant>

#include "absl/status/statusor.h"

namespace millrace {

enum class LogLevel : uint8_t { kDebug, kInfo, kWarning, kError, kOff };
absl::StatusOr<LogLevel> ParseLogLevel(std::string_view name);  // debug, info, warning, error, off

struct LogField {
  std::string_view name;
  std::variant<std::string_view, int64_t, double, bool> value;
};

class Log {
 public:
  // `path` empty: standard error. InvalidArgument: the file cannot be opened.
  static absl::StatusOr<std::unique_ptr<Log>> Create(LogLevel level, const std::string& path = {});
  virtual ~Log() = default;
  virtual void Write(LogLevel level, std::string_view message, std::initializer_list<LogField> fields) = 0;

  void Debug(std::string_view message, std::initializer_list<LogField> fields = {}) {
    Write(LogLevel::kDebug, message, fields);
  }
  void Info(std::string_view message, std::initializer_list<LogField> fields = {}) {
    Write(LogLevel::kInfo, message, fields);
  }
  void Warning(std::string_view message, std::initializer_list<LogField> fields = {}) {
    Write(LogLevel::kWarning, message, fields);
  }
  void Error(std::string_view message, std::initializer_list<LogField> fields = {}) {
    Write(LogLevel::kError, message, fields);
  }
};

}  // namespace millrace
