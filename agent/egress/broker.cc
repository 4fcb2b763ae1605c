// SPDX-License-Identifier: Apache-2.0
#include "agent/egress/broker.h"

#include <curl/curl.h>
#include <unistd.h>

#include <algorithm>
#include <memory>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "agent/egress/address.h"

namespace millrace {
namespace {

struct FreeEasy {
  void operator()(CURL* curl) const { curl_easy_cleanup(curl); }
};
struct FreeMulti {
  void operator()(CURLM* multi) const { curl_multi_cleanup(multi); }
};
struct FreeList {
  void operator()(curl_slist* list) const { curl_slist_free_all(list); }
};

// One request, without its redirects.
class Request {
 public:
  Request(const EgressPolicy& policy, const EgressTestHook& hook) : policy_(policy), hook_(hook) {}
  ~Request() {
    if (is_added_) curl_multi_remove_handle(multi_.get(), curl_.get());
  }

  absl::StatusOr<EgressAnswer> Run(const WebUrl& url, absl::Time deadline, const Cancellation& cancellation) {
    if (curl_ == nullptr || multi_ == nullptr) return absl::ResourceExhaustedError("libcurl does not start");
    answer_.url = ToString(url);
    Prepare();
    is_added_ = curl_multi_add_handle(multi_.get(), curl_.get()) == CURLM_OK;
    if (!is_added_) return absl::InternalError("libcurl takes no request");
    int running = 1;
    while (running > 0) {
      if (cancellation.is_cancelled()) return absl::CancelledError("the call was cancelled");
      const absl::Duration left = deadline - absl::Now();
      if (left <= absl::ZeroDuration()) return absl::DeadlineExceededError("no answer in time");
      if (curl_multi_perform(multi_.get(), &running) != CURLM_OK) return absl::InternalError("libcurl failed");
      if (running == 0) break;
      curl_waitfd cancelled{.fd = cancellation.fd(), .events = CURL_WAIT_POLLIN, .revents = 0};
      const int64_t wait = std::clamp<int64_t>(absl::ToInt64Milliseconds(left) + 1, 0, 1000);
      curl_multi_poll(multi_.get(), &cancelled, cancelled.fd >= 0 ? 1 : 0, static_cast<int>(wait), nullptr);
    }
    return Finish();
  }
  const std::string& location() const { return location_; }

 private:
  void Prepare() {
    CURL* curl = curl_.get();
    curl_easy_setopt(curl, CURLOPT_URL, answer_.url.c_str());
    curl_easy_setopt(curl, CURLOPT_PATH_AS_IS, 1L);
    curl_easy_setopt(curl, CURLOPT_PROTOCOLS_STR, "http,https");
    curl_easy_setopt(curl, CURLOPT_HTTP_VERSION, CURL_HTTP_VERSION_1_1);
    curl_easy_setopt(curl, CURLOPT_FOLLOWLOCATION, 0L);
    curl_easy_setopt(curl, CURLOPT_PROXY, "");  // not even what the environment names
    curl_easy_setopt(curl, CURLOPT_NETRC, static_cast<long>(CURL_NETRC_IGNORED));
    curl_easy_setopt(curl, CURLOPT_NOSIGNAL, 1L);
    curl_easy_setopt(curl, CURLOPT_QUICK_EXIT, 1L);  // a name server that is silent holds nobody up
    curl_easy_setopt(curl, CURLOPT_FRESH_CONNECT, 1L);
    curl_easy_setopt(curl, CURLOPT_FORBID_REUSE, 1L);
    curl_easy_setopt(curl, CURLOPT_USERAGENT, "millrace");
    curl_easy_setopt(curl, CURLOPT_OPENSOCKETFUNCTION, &Request::OnSocket);
    curl_easy_setopt(curl, CURLOPT_OPENSOCKETDATA, this);
    curl_easy_setopt(curl, CURLOPT_HEADERFUNCTION, &Request::OnHeader);
    curl_easy_setopt(curl, CURLOPT_HEADERDATA, this);
    curl_easy_setopt(curl, CURLOPT_WRITEFUNCTION, &Request::OnBody);
    curl_easy_setopt(curl, CURLOPT_WRITEDATA, this);
    curl_easy_setopt(curl, CURLOPT_ERRORBUFFER, detail_);
    for (const std::string& entry : hook_.resolved) {
      resolved_.reset(curl_slist_append(resolved_.release(), entry.c_str()));
    }
    if (resolved_ != nullptr) curl_easy_setopt(curl, CURLOPT_RESOLVE, resolved_.get());
  }

  absl::StatusOr<EgressAnswer> Finish() {
    if (!status_.ok()) return status_;
    int left = 0;
    const CURLMsg* message = curl_multi_info_read(multi_.get(), &left);
    const CURLcode code = message == nullptr ? CURLE_RECV_ERROR : message->data.result;
    if (code != CURLE_OK) {
      if (!refused_address_.ok()) return refused_address_;
      return absl::UnavailableError(absl::StrCat("no answer: ", detail_[0] != 0 ? detail_ : curl_easy_strerror(code)));
    }
    long http_code = 0;
    curl_easy_getinfo(curl_.get(), CURLINFO_RESPONSE_CODE, &http_code);
    const char* text = nullptr;
    curl_easy_getinfo(curl_.get(), CURLINFO_CONTENT_TYPE, &text);
    if (text != nullptr) answer_.content_type = text;
    answer_.code = static_cast<int>(http_code);
    return std::move(answer_);
  }

  // The address of a socket that is about to be connected: what is allowed here is what is dialled.
  static curl_socket_t OnSocket(void* context, curlsocktype purpose, curl_sockaddr* address) {
    auto& request = *static_cast<Request*>(context);
    absl::Status status =
        request.hook_.check_address ? request.hook_.check_address(&address->addr) : CheckPublicAddress(&address->addr);
    if (purpose != CURLSOCKTYPE_IPCXN) status = absl::PermissionDeniedError("only connections out are made");
    if (!status.ok()) {
      request.refused_address_ = std::move(status);
      return CURL_SOCKET_BAD;
    }
    return socket(address->family, address->socktype | SOCK_CLOEXEC, address->protocol);
  }

  static size_t OnHeader(char* data, size_t unit, size_t count, void* context) {
    auto& request = *static_cast<Request*>(context);
    const std::string_view line(data, unit * count);
    request.header_bytes_ += static_cast<int64_t>(line.size());
    if (request.header_bytes_ > request.policy_.max_header_bytes) {
      request.status_ = absl::ResourceExhaustedError("the answer's head is too long");
      return 0;
    }
    constexpr std::string_view kLocation = "location:";
    if (line.size() > kLocation.size() &&
        std::equal(kLocation.begin(), kLocation.end(), line.begin(),
                   [](char a, char b) { return a == (b >= 'A' && b <= 'Z' ? b + ('a' - 'A') : b); })) {
      const std::string_view value = line.substr(kLocation.size());
      const size_t begin = value.find_first_not_of(" \t\r\n");
      const size_t end = value.find_last_not_of(" \t\r\n");
      request.location_ = begin == value.npos ? "" : value.substr(begin, end - begin + 1);
    }
    return line.size();
  }

  static size_t OnBody(char* data, size_t unit, size_t count, void* context) {
    auto& request = *static_cast<Request*>(context);
    const size_t bytes = unit * count;
    if (static_cast<int64_t>(request.answer_.body.size() + bytes) > request.policy_.max_body_bytes) {
      request.status_ = absl::ResourceExhaustedError(
          absl::StrCat("the answer has more than ", request.policy_.max_body_bytes, " bytes"));
      return 0;
    }
    request.answer_.body.append(data, bytes);
    return bytes;
  }

  const EgressPolicy& policy_;
  const EgressTestHook& hook_;
  std::unique_ptr<curl_slist, FreeList> resolved_;
  std::unique_ptr<CURLM, FreeMulti> multi_{curl_multi_init()};
  std::unique_ptr<CURL, FreeEasy> curl_{curl_easy_init()};
  bool is_added_ = false;
  EgressAnswer answer_;
  std::string location_;
  int64_t header_bytes_ = 0;
  absl::Status status_;           // why the answer was given up
  absl::Status refused_address_;  // the last that was not dialled; another of the same name may have been
  char detail_[CURL_ERROR_SIZE] = "";
};

bool IsRedirect(int code) { return code == 301 || code == 302 || code == 303 || code == 307 || code == 308; }

}  // namespace

absl::Status EgressBroker::CheckHost(const WebUrl& url) const {
  for (const std::string& entry : policy_.hosts) {
    const size_t colon = entry.find(':');
    const std::string_view host = std::string_view(entry).substr(0, colon);
    const std::string port = colon == entry.npos ? absl::StrCat(url.is_https ? 443 : 80) : entry.substr(colon + 1);
    if (port != absl::StrCat(static_cast<int>(url.port))) continue;
    if (url.host == host ||
        (host.starts_with("*.") && url.host.size() > host.size() - 1 && url.host.ends_with(host.substr(1)))) {
      return absl::OkStatus();
    }
  }
  return absl::PermissionDeniedError(
      absl::StrCat(url.host, ":", static_cast<int>(url.port), " is not among the hosts that this tool may ask"));
}

absl::StatusOr<EgressAnswer> EgressBroker::Get(std::string_view text, absl::Time deadline,
                                               const Cancellation& cancellation) const {
  absl::StatusOr<WebUrl> url = ParseWebUrl(text);
  for (int redirects = 0;; ++redirects) {
    if (!url.ok()) return url.status();
    if (absl::Status status = CheckHost(*url); !status.ok()) return status;
    Request request(policy_, hook_);
    absl::StatusOr<EgressAnswer> answer = request.Run(*url, deadline, cancellation);
    if (!answer.ok() || !IsRedirect(answer->code) || request.location().empty()) return answer;
    if (redirects == policy_.max_redirects) {
      return absl::ResourceExhaustedError(absl::StrCat("more than ", policy_.max_redirects, " redirects"));
    }
    url = ResolveLocation(*url, request.location());
  }
}

}  // namespace millrace
