// SPDX-License-Identifier: Apache-2.0
#include "engine/hub/hub_http.h"

#include <curl/curl.h>

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "kernels/check.h"

namespace millrace {
namespace {

constexpr size_t kMaxHeaders = 200;
constexpr size_t kMaxHeaderBytes = 64 << 10;

std::string Lower(std::string_view text) {
  std::string out(text);
  std::transform(out.begin(), out.end(), out.begin(),
                 [](char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c + 32) : c; });
  return out;
}

std::string_view Trim(std::string_view text) {
  const auto is_space = [](char c) { return c == ' ' || c == '\t' || c == '\r' || c == '\n'; };
  while (!text.empty() && is_space(text.front())) text.remove_prefix(1);
  while (!text.empty() && is_space(text.back())) text.remove_suffix(1);
  return text;
}

absl::Status ToStatus(CURLcode code, const std::string& url, const char* detail) {
  const std::string message =
      absl::StrCat(url.substr(0, url.find('?')), ": ", detail[0] != 0 ? detail : curl_easy_strerror(code));
  switch (code) {
    case CURLE_PEER_FAILED_VERIFICATION:
      return absl::FailedPreconditionError(absl::StrCat(
          message, "; if an authority of your own signs the hub's certificate, name its PEM file in SSL_CERT_FILE"));
    case CURLE_SSL_CACERT_BADFILE:
      return absl::FailedPreconditionError(
          absl::StrCat(message, "; REQUESTS_CA_BUNDLE or SSL_CERT_FILE must name a PEM file of certificates"));
    case CURLE_UNSUPPORTED_PROTOCOL:
    case CURLE_URL_MALFORMAT:
      return absl::InvalidArgumentError(message);
    default:
      return absl::UnavailableError(message);
  }
}

// One part of a URL, empty when it has none.
std::string UrlPart(const std::string& url, CURLUPart part) {
  CURLU* parsed = curl_url();
  std::string out;
  if (parsed != nullptr && curl_url_set(parsed, CURLUPART_URL, url.c_str(), 0) == CURLUE_OK) {
    char* text = nullptr;
    if (curl_url_get(parsed, part, &text, CURLU_DEFAULT_PORT) == CURLUE_OK) out = Lower(text);
    curl_free(text);
  }
  curl_url_cleanup(parsed);
  return out;
}

}  // namespace

struct HubHttp::Transfer {
  HubHttpResponse response;
  const HubBodySink& sink;
  size_t header_bytes = 0;
  absl::Status status;
};

const std::string* HubHttpResponse::Header(std::string_view name) const {
  for (const auto& [known, value] : headers) {
    if (known == name) return &value;
  }
  return nullptr;
}

HubHttp::HubHttp(absl::Duration stall_timeout, std::string ca_file)
    : curl_(curl_easy_init()), stall_timeout_(stall_timeout), ca_file_(std::move(ca_file)) {
  MILLRACE_CHECK(curl_ != nullptr, "libcurl must start");
}

HubHttp::~HubHttp() { curl_easy_cleanup(curl_); }

size_t HubHttp::OnHeader(char* data, size_t unit, size_t count, void* context) {
  auto& transfer = *static_cast<Transfer*>(context);
  const std::string_view line(data, unit * count);
  if (line.starts_with("HTTP/")) {
    // A new answer: what came before was an interim one.
    transfer.response = {};
    const size_t space = line.find(' ');
    if (space != line.npos) transfer.response.code = std::atoi(std::string(line.substr(space + 1, 3)).c_str());
    return line.size();
  }
  transfer.header_bytes += line.size();
  if (transfer.header_bytes > kMaxHeaderBytes || transfer.response.headers.size() >= kMaxHeaders) {
    transfer.status = absl::InvalidArgumentError("the hub's answer has too many headers");
    return 0;
  }
  const size_t colon = line.find(':');
  if (colon != line.npos) {
    transfer.response.headers.emplace_back(Lower(line.substr(0, colon)), std::string(Trim(line.substr(colon + 1))));
  }
  return line.size();
}

size_t HubHttp::OnBody(char* data, size_t unit, size_t count, void* context) {
  auto& transfer = *static_cast<Transfer*>(context);
  const std::string_view piece(data, unit * count);
  if (transfer.sink) transfer.status = transfer.sink(transfer.response, piece);
  return transfer.status.ok() ? piece.size() : 0;
}

absl::StatusOr<HubHttpResponse> HubHttp::Fetch(const HubHttpRequest& request, const HubBodySink& sink) {
  Transfer transfer{.response = {}, .sink = sink, .header_bytes = 0, .status = {}};
  char detail[CURL_ERROR_SIZE] = "";
  CURL* curl = curl_;
  curl_easy_reset(curl);
  curl_easy_setopt(curl, CURLOPT_URL, request.url.c_str());
  curl_easy_setopt(curl, CURLOPT_PROTOCOLS_STR, "http,https");
  curl_easy_setopt(curl, CURLOPT_FOLLOWLOCATION, 0L);
  if (!ca_file_.empty()) curl_easy_setopt(curl, CURLOPT_CAINFO, ca_file_.c_str());
  curl_easy_setopt(curl, CURLOPT_NOSIGNAL, 1L);
  curl_easy_setopt(curl, CURLOPT_USERAGENT, "millrace");
  curl_easy_setopt(curl, CURLOPT_ERRORBUFFER, detail);
  const auto stall_seconds = static_cast<long>(std::max<int64_t>(absl::ToInt64Seconds(stall_timeout_), 1));
  curl_easy_setopt(curl, CURLOPT_CONNECTTIMEOUT, stall_seconds);
  curl_easy_setopt(curl, CURLOPT_LOW_SPEED_LIMIT, 1L);
  curl_easy_setopt(curl, CURLOPT_LOW_SPEED_TIME, stall_seconds);
  curl_easy_setopt(curl, CURLOPT_HEADERFUNCTION, &HubHttp::OnHeader);
  curl_easy_setopt(curl, CURLOPT_HEADERDATA, &transfer);
  curl_easy_setopt(curl, CURLOPT_WRITEFUNCTION, &HubHttp::OnBody);
  curl_easy_setopt(curl, CURLOPT_WRITEDATA, &transfer);
  if (request.method == HubMethod::kHead) curl_easy_setopt(curl, CURLOPT_NOBODY, 1L);
  // Sizes and checksums are those of the bytes as they are stored.
  curl_slist* headers = curl_slist_append(nullptr, "Accept-Encoding: identity");
  if (!request.token.empty()) headers = curl_slist_append(headers, ("Authorization: Bearer " + request.token).c_str());
  curl_easy_setopt(curl, CURLOPT_HTTPHEADER, headers);
  const std::string range = absl::StrCat(request.resume_bytes, "-");
  if (request.resume_bytes > 0) curl_easy_setopt(curl, CURLOPT_RANGE, range.c_str());

  const CURLcode code = curl_easy_perform(curl);
  curl_slist_free_all(headers);
  if (!transfer.status.ok()) return transfer.status;
  if (code != CURLE_OK) return ToStatus(code, request.url, detail);
  const char* redirect = nullptr;
  curl_easy_getinfo(curl, CURLINFO_REDIRECT_URL, &redirect);
  if (redirect != nullptr) transfer.response.redirect_url = redirect;
  return std::move(transfer.response);
}

bool IsSameOrigin(const std::string& a, const std::string& b) {
  const std::string host = UrlPart(a, CURLUPART_HOST);
  return !host.empty() && host == UrlPart(b, CURLUPART_HOST) &&
         UrlPart(a, CURLUPART_SCHEME) == UrlPart(b, CURLUPART_SCHEME) &&
         UrlPart(a, CURLUPART_PORT) == UrlPart(b, CURLUPART_PORT);
}

std::string UrlScheme(const std::string& url) { return UrlPart(url, CURLUPART_SCHEME); }

std::string UrlEscape(std::string_view text, Slashes slashes) {
  static constexpr char kHex[] = "0123456789ABCDEF";
  std::string out;
  for (const char c : text) {
    const bool is_plain = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' ||
                          c == '.' || c == '_' || c == '~' || (c == '/' && slashes == Slashes::kKept);
    if (is_plain) {
      out += c;
    } else {
      out += '%';
      out += kHex[static_cast<unsigned char>(c) >> 4];
      out += kHex[static_cast<unsigned char>(c) & 15];
    }
  }
  return out;
}

}  // namespace millrace
