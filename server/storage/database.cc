// SPDX-License-Identifier: Apache-2.0
#include "server/storage/database.h"

#include <fcntl.h>
#include <sqlite3.h>
#include <unistd.h>

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"

namespace millrace {
namespace {

constexpr int kBusyMilliseconds = 2000;

absl::Status ToStatus(int code, const char* message) {
  switch (code & 0xff) {
    case SQLITE_FULL:
    case SQLITE_TOOBIG:
      return absl::ResourceExhaustedError(message);
    case SQLITE_BUSY:
    case SQLITE_LOCKED:
      return absl::UnavailableError(message);
    case SQLITE_CONSTRAINT:
      return absl::AlreadyExistsError(message);
    case SQLITE_CORRUPT:
    case SQLITE_NOTADB:
      return absl::DataLossError(message);
    default:
      return absl::InternalError(message);
  }
}

}  // namespace

Statement::Statement(sqlite3* connection, std::string_view sql) : connection_(connection) {
  Note(sqlite3_prepare_v2(connection, sql.data(), static_cast<int>(sql.size()), &statement_, nullptr));
}

Statement::Statement(Statement&& other) noexcept
    : connection_(other.connection_),
      statement_(std::exchange(other.statement_, nullptr)),
      num_bound_(other.num_bound_),
      status_(std::move(other.status_)) {}

Statement::~Statement() { sqlite3_finalize(statement_); }

void Statement::Note(int code) {
  if (status_.ok() && code != SQLITE_OK) status_ = ToStatus(code, sqlite3_errmsg(connection_));
}

Statement& Statement::Bind(int64_t value) {
  if (status_.ok()) Note(sqlite3_bind_int64(statement_, ++num_bound_, value));
  return *this;
}

Statement& Statement::Bind(std::string_view text) {
  if (status_.ok()) {
    Note(sqlite3_bind_text64(statement_, ++num_bound_, text.empty() ? "" : text.data(), text.size(), SQLITE_STATIC,
                             SQLITE_UTF8));
  }
  return *this;
}

absl::StatusOr<bool> Statement::Step() {
  if (!status_.ok()) return status_;
  const int code = sqlite3_step(statement_);
  if (code == SQLITE_ROW) return true;
  if (code != SQLITE_DONE) Note(code);
  if (!status_.ok()) return status_;
  return false;
}

absl::Status Statement::Run() {
  absl::StatusOr<bool> has_row = true;
  while (has_row.ok() && *has_row) has_row = Step();
  return has_row.status();
}

int64_t Statement::Int(int column) const { return sqlite3_column_int64(statement_, column); }

std::string Statement::Text(int column) const {
  const auto* text = reinterpret_cast<const char*>(sqlite3_column_text(statement_, column));
  if (text == nullptr) return {};
  return {text, static_cast<size_t>(sqlite3_column_bytes(statement_, column))};
}

absl::StatusOr<std::unique_ptr<Database>> Database::Open(const DatabaseOptions& options) {
  const char* path = options.path.empty() ? ":memory:" : options.path.c_str();
  const std::string where = options.path.empty() ? "the database in memory" : options.path;
  // Made here, so that what clients said is nobody else's to read; SQLite's own files beside it follow.
  if (!options.path.empty()) close(open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600));
  sqlite3* connection = nullptr;
  const int flags = SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_NOMUTEX;
  const int code = sqlite3_open_v2(path, &connection, flags, nullptr);
  std::unique_ptr<Database> database(new Database(connection));
  if (code != SQLITE_OK) {
    return absl::FailedPreconditionError(absl::StrCat(where, ": ", sqlite3_errstr(code)));
  }
  absl::Status status = database->Configure();
  if (status.ok()) status = database->Adopt(options);
  if (status.ok()) return database;
  const std::string message = absl::StrCat(where, ": ", status.message());
  return absl::IsUnavailable(status) ? absl::UnavailableError(message) : absl::FailedPreconditionError(message);
}

Database::~Database() { sqlite3_close_v2(connection_); }

// A file may come from anywhere: what its schema says is not trusted, and what it deletes is really gone.
absl::Status Database::Configure() {
  sqlite3_busy_timeout(connection_, kBusyMilliseconds);
  sqlite3_db_config(connection_, SQLITE_DBCONFIG_DEFENSIVE, 1, nullptr);
  sqlite3_db_config(connection_, SQLITE_DBCONFIG_TRUSTED_SCHEMA, 0, nullptr);
  sqlite3_db_config(connection_, SQLITE_DBCONFIG_ENABLE_TRIGGER, 0, nullptr);
  sqlite3_db_config(connection_, SQLITE_DBCONFIG_ENABLE_VIEW, 0, nullptr);
  for (const char* sql : {"PRAGMA locking_mode=EXCLUSIVE", "PRAGMA journal_mode=WAL", "PRAGMA synchronous=NORMAL",
                          "PRAGMA secure_delete=ON", "PRAGMA cell_size_check=ON", "PRAGMA foreign_keys=OFF"}) {
    if (absl::Status status = Run(sql); !status.ok()) return status;
  }
  return absl::OkStatus();
}

absl::StatusOr<int64_t> Database::Pragma(std::string_view name) {
  Statement statement = Prepare(absl::StrCat("PRAGMA ", absl::string_view(name.data(), name.size())));
  auto has_row = statement.Step();
  if (!has_row.ok()) return has_row.status();
  return *has_row ? statement.Int(0) : 0;
}

absl::Status Database::Adopt(const DatabaseOptions& options) {
  Statement check = Prepare("PRAGMA quick_check(1)");
  auto has_row = check.Step();
  if (!has_row.ok()) return has_row.status();
  if (const std::string found = check.Text(0); *has_row && found != "ok") return absl::DataLossError(found);

  std::vector<std::string> found;
  Statement schema = Prepare("SELECT sql FROM sqlite_schema WHERE sql IS NOT NULL");
  while (true) {
    has_row = schema.Step();
    if (!has_row.ok()) return has_row.status();
    if (!*has_row) break;
    found.push_back(schema.Text(0));
  }
  if (found.empty()) {
    for (const std::string& sql : options.schema) {
      if (absl::Status status = Run(sql); !status.ok()) return status;
    }
    if (absl::Status status = Run(absl::StrCat("PRAGMA application_id=", options.application_id)); !status.ok()) {
      return status;
    }
    return Run(absl::StrCat("PRAGMA user_version=", options.version));
  }
  const auto application_id = Pragma("application_id");
  if (!application_id.ok()) return application_id.status();
  if (*application_id != options.application_id) return absl::DataLossError("is a database of another program");
  const auto version = Pragma("user_version");
  if (!version.ok()) return version.status();
  if (*version != options.version) {
    return absl::DataLossError(
        absl::StrCat("has version ", *version, " of its layout, and this server works with ", options.version));
  }
  std::vector<std::string> expected = options.schema;
  std::sort(found.begin(), found.end());
  std::sort(expected.begin(), expected.end());
  return found == expected ? absl::OkStatus() : absl::DataLossError("has other tables than this server makes");
}

absl::Status Database::Commit() {
  absl::Status status = Run("COMMIT");
  if (!status.ok()) Rollback();
  return status;
}

void Database::Rollback() {
  if (sqlite3_get_autocommit(connection_) == 0) (void)Run("ROLLBACK");
}

}  // namespace millrace
