// SPDX-License-Identifier: Apache-2.0
#pragma once
// One run behind POST /v1/responses: its events to the client, its outcome to the store. Used by the run's thread.
#include <memory>
#include <string>

#include "agent/run.h"
#include "server/api/run_stream.h"
#include "server/responses/response_events.h"
#include "server/responses/responses_request.h"
#include "server/storage/response_store.h"

namespace millrace {

struct ResponseRunArgs {
  std::shared_ptr<RunStream> out;
  AnswerMode mode = AnswerMode::kWhole;
  ResponseEventsArgs events;       // but for `stream`
  ResponseStore* store = nullptr;  // null: this response is not stored
  std::string tenant;
  StoredResponse stored;              // but for `body`
  std::vector<std::string> item_ids;  // of its input
};

class ResponseRun {
 public:
  explicit ResponseRun(ResponseRunArgs args);

  void OnEvent(const RunEvent& event);
  void OnDone(const RunResult& result);

 private:
  void Begin();
  absl::Status Store();
  bool is_stream() const { return args_.mode == AnswerMode::kStream; }

  ResponseRunArgs args_;
  ResponseEvents events_;
  bool has_begun_ = false;
};

// The items of a conversation's responses, oldest first, as ItemSource wants them; DataLoss: one cannot be read.
absl::StatusOr<std::vector<std::string>> HistoryItems(const std::vector<StoredResponse>& chain);
// The item of that id in the response. NotFound: it is not there.
absl::StatusOr<std::string> FindItem(const StoredResponse& response, const std::string& item_id);

}  // namespace millrace
