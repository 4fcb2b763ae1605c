// SPDX-License-Identifier: Apache-2.0
#include "server/api/rate_headers.h"

#include <utility>

#include "absl/strings/str_cat.h"

namespace millrace {
namespace {

void AddBucket(const char* what, const BucketState& bucket, std::vector<HttpHeader>& headers) {
  if (bucket.limit == 0) return;
  headers.push_back({absl::StrCat("x-ratelimit-limit-", what), absl::StrCat(bucket.limit)});
  headers.push_back({absl::StrCat("x-ratelimit-remaining-", what), absl::StrCat(bucket.remaining)});
  headers.push_back({absl::StrCat("x-ratelimit-reset-", what), FormatRateDuration(bucket.reset)});
}

class RateHeaderWriter : public ResponseWriter {
 public:
  RateHeaderWriter(std::shared_ptr<ResponseWriter> writer, std::shared_ptr<const Quota> quota)
      : writer_(std::move(writer)), quota_(std::move(quota)) {}
  void Send(HttpResponse response) override {
    AddRateHeaders(quota_->state(), response.headers);
    writer_->Send(std::move(response));
  }
  void BeginStream(StreamOptions options) override {
    AddRateHeaders(quota_->state(), options.headers);
    writer_->BeginStream(std::move(options));
  }
  bool Write(std::string_view bytes) override { return writer_->Write(bytes); }
  void End() override { writer_->End(); }
  void OnClose(std::function<void()> callback) override { writer_->OnClose(std::move(callback)); }
  bool is_closed() const override { return writer_->is_closed(); }

 private:
  const std::shared_ptr<ResponseWriter> writer_;
  const std::shared_ptr<const Quota> quota_;
};

}  // namespace

void AddRateHeaders(const RateState& state, std::vector<HttpHeader>& headers) {
  AddBucket("requests", state.requests, headers);
  AddBucket("tokens", state.tokens, headers);
}

std::shared_ptr<ResponseWriter> WithRateHeaders(std::shared_ptr<ResponseWriter> writer,
                                                std::shared_ptr<const Quota> quota) {
  if (quota == nullptr) return writer;
  return std::make_shared<RateHeaderWriter>(std::move(writer), std::move(quota));
}

}  // namespace millrace
