// SPDX-License-Identifier: Apache-2.0
#include "server/responses/response_run.h"

#include <nlohmann/json.hpp>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "server/wire/api_error.h"

namespace millrace {
namespace {

using nlohmann::json;

constexpr char kTooLong[] = "context_length_exceeded";

ResponseEventsArgs WithStream(const ResponseRunArgs& args) {
  ResponseEventsArgs events = args.events;
  if (args.mode == AnswerMode::kStream) {
    events.stream = [out = args.out.get()](std::string_view bytes) { out->Write(bytes); };
  }
  return events;
}

// What the pipeline calls messages is the input here.
absl::Status InInputsTerms(const absl::Status& status) {
  return ErrorParam(status) == "messages" ? WithErrorParam(status, "input") : status;
}

}  // namespace

ResponseRun::ResponseRun(ResponseRunArgs args) : args_(std::move(args)), events_(WithStream(args_)) {}

void ResponseRun::Begin() {
  if (is_stream() && !std::exchange(has_begun_, true)) events_.Begin();
}

// Until the prompt is taken, what is wrong with it can still be an error of HTTP.
void ResponseRun::OnEvent(const RunEvent& event) {
  const bool is_certain = !std::holds_alternative<TurnBegan>(event) && !std::holds_alternative<TurnEnded>(event) &&
                          !std::holds_alternative<RunEnded>(event);
  if (is_certain) Begin();
  events_.Handle(event);
}

void ResponseRun::OnDone(const RunResult& result) {
  if (!events_.error().ok() && !has_begun_ && events_.items().empty()) {
    const absl::Status error = InInputsTerms(events_.error());
    // Agents that shorten their history look for this in the stream.
    if (!is_stream() || ToApiError(error).code != kTooLong) return args_.out->Send(ErrorResponse(error));
    events_.Fail(error);
  }
  Begin();
  events_.Finish();
  if (args_.store != nullptr && result.end != RunEnd::kCancelled) {
    if (absl::Status stored = Store(); !stored.ok()) {
      events_.Fail(absl::InternalError(absl::StrCat("the response could not be stored: ", stored.message())));
      if (!is_stream()) return args_.out->Send(ErrorResponse(events_.error()));
    }
  }
  if (!is_stream()) return args_.out->Send({.body = events_.Object()});
  events_.End();
  args_.out->End();
}

// Before the client hears the end: it may come back to it at once.
absl::Status ResponseRun::Store() {
  args_.stored.body = events_.Object();
  std::vector<std::string> item_ids = args_.item_ids;
  item_ids.insert(item_ids.end(), events_.item_ids().begin(), events_.item_ids().end());
  return args_.store->Put(args_.tenant, args_.stored, item_ids, absl::Now());
}

absl::StatusOr<std::vector<std::string>> HistoryItems(const std::vector<StoredResponse>& chain) {
  std::vector<std::string> lists;
  for (const StoredResponse& response : chain) {
    const json body = json::parse(response.body, nullptr, /*allow_exceptions=*/false);
    if (!body.is_object() || !body.contains("output")) return absl::DataLossError("a stored response cannot be read");
    lists.push_back(response.input);
    lists.push_back(body["output"].dump(-1, ' ', false, json::error_handler_t::replace));
  }
  return lists;
}

absl::StatusOr<std::string> FindItem(const StoredResponse& response, const std::string& item_id) {
  const json body = json::parse(response.body, nullptr, /*allow_exceptions=*/false);
  const json input = json::parse(response.input, nullptr, /*allow_exceptions=*/false);
  const json output = body.is_object() && body.contains("output") ? body["output"] : json();
  for (const json& list : {input, output}) {
    if (!list.is_array()) continue;
    for (const json& item : list) {
      if (item.is_object() && item.contains("id") && item["id"] == item_id) {
        return item.dump(-1, ' ', false, json::error_handler_t::replace);
      }
    }
  }
  return absl::NotFoundError("Item not found.");
}

}  // namespace millrace
