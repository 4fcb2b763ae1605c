// SPDX-License-Identifier: Apache-2.0
#pragma once
// SQLite behind Status: a connection and its statements. One thread at a time; the owner locks.
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

struct sqlite3;
struct sqlite3_stmt;

namespace millrace {

// A statement while it is bound and stepped through. Binds count from 1, columns from 0, as in SQLite. The texts that
// are bound outlive it.
class Statement {
 public:
  Statement(sqlite3* connection, std::string_view sql);
  Statement(Statement&& other) noexcept;
  ~Statement();

  Statement& Bind(int64_t value);
  Statement& Bind(std::string_view text);
  // True: there is a row. The first fault of preparing, binding or stepping is kept and returned from here on.
  absl::StatusOr<bool> Step();
  // For statements without rows.
  absl::Status Run();
  int64_t Int(int column) const;
  std::string Text(int column) const;

 private:
  void Note(int code);

  sqlite3* const connection_;
  sqlite3_stmt* statement_ = nullptr;
  int num_bound_ = 0;
  absl::Status status_;
};

struct DatabaseOptions {
  std::string path;  // empty: in memory
  int32_t application_id = 0;
  int32_t version = 0;              // of the schema
  std::vector<std::string> schema;  // CREATE statements of a new database; one that exists must have been made by these
};

class Database {
 public:
  // Opens or creates, in WAL mode, and checks that the file is whole and ours: FailedPrecondition says what is not.
  // Unavailable: another process has it locked.
  static absl::StatusOr<std::unique_ptr<Database>> Open(const DatabaseOptions& options);
  ~Database();

  Statement Prepare(std::string_view sql) { return {connection_, sql}; }
  absl::Status Run(std::string_view sql) { return Prepare(sql).Run(); }
  // All or nothing: what ran since Begin is undone unless Commit returned OK.
  absl::Status Begin() { return Run("BEGIN IMMEDIATE"); }
  absl::Status Commit();
  void Rollback();

 private:
  explicit Database(sqlite3* connection) : connection_(connection) {}
  absl::Status Configure();
  absl::Status Adopt(const DatabaseOptions& options);
  absl::StatusOr<int64_t> Pragma(std::string_view name);

  sqlite3* const connection_;
};

}  // namespace millrace
