// SPDX-License-Identifier: Apache-2.0
#include "engine/hub/hub_api.h"

#include <algorithm>
#include <charconv>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "engine/hub/hub_cache.h"
#include "engine/text/template_json.h"
#include "kernels/status_macros.h"

namespace millrace {
namespace {

constexpr int kMaxRedirects = 5;
constexpr size_t kMaxInfoBytes = 32 << 20;
constexpr size_t kMaxFiles = 20'000;
constexpr uint64_t kMaxFileBytes = uint64_t{1} << 42;
constexpr absl::Duration kMaxRetryDelay = absl::Seconds(30);

std::string WithoutSlash(std::string endpoint) {
  if (endpoint.empty()) endpoint = "https://huggingface.co";
  while (endpoint.ends_with('/')) endpoint.pop_back();
  return endpoint;
}

// W/"abc" and "abc" become abc.
std::string_view Unquote(std::string_view etag) {
  if (etag.starts_with("W/")) etag.remove_prefix(2);
  if (etag.size() >= 2 && etag.front() == '"' && etag.back() == '"') etag = etag.substr(1, etag.size() - 2);
  return etag;
}

absl::StatusOr<uint64_t> ParseBytes(const std::string* text) {
  uint64_t value = 0;
  if (text == nullptr) return absl::InvalidArgumentError("the hub does not tell a file's size");
  const auto [end, error] = std::from_chars(text->data(), text->data() + text->size(), value);
  if (error != std::errc() || end != text->data() + text->size() || value > kMaxFileBytes) {
    return absl::InvalidArgumentError(absl::StrCat("the hub tells a file's size as '", text->substr(0, 40), "'"));
  }
  return value;
}

bool IsRedirect(int code) { return code == 301 || code == 302 || code == 303 || code == 307 || code == 308; }
bool MayPass(int code) { return code == 408 || code == 425 || code == 429 || code >= 500; }

}  // namespace

absl::StatusOr<HubRepoInfo> ParseRepoInfo(std::string_view body) {
  TemplateJsonLimits limits;
  limits.max_bytes = kMaxInfoBytes;
  absl::StatusOr<TemplateValue> json = ParseJsonValue(body, limits);
  if (!json.ok()) {
    return absl::InvalidArgumentError(absl::StrCat("the hub's answer: ", std::string(json.status().message())));
  }
  const TemplateValue* sha = json->is_dict() ? json->as_dict().Find("sha") : nullptr;
  const TemplateValue* siblings = json->is_dict() ? json->as_dict().Find("siblings") : nullptr;
  if (sha == nullptr || !sha->is_string() || !IsCommitId(sha->text()) || siblings == nullptr || !siblings->is_list()) {
    return absl::InvalidArgumentError("the hub's answer has no commit or no list of files");
  }
  HubRepoInfo info;
  info.commit = std::string(sha->text());
  if (siblings->as_list().items.size() > kMaxFiles) return absl::InvalidArgumentError("a repository of too many files");
  for (const TemplateValue& sibling : siblings->as_list().items) {
    const TemplateValue* name = sibling.is_dict() ? sibling.as_dict().Find("rfilename") : nullptr;
    if (name == nullptr || !name->is_string())
      return absl::InvalidArgumentError("a file without name in the hub's answer");
    if (!IsSafeFileName(name->text())) {
      return absl::InvalidArgumentError(absl::StrCat("the hub lists a file that would leave the cache: '",
                                                     std::string(name->text().substr(0, 200)), "'"));
    }
    info.files.emplace_back(name->text());
  }
  return info;
}

HubApi::HubApi(const HubOptions& options, std::string repo)
    : options_(options),
      repo_(std::move(repo)),
      endpoint_(WithoutSlash(options.endpoint)),
      http_(options.stall_timeout, options.ca_file) {}

std::string HubApi::FileUrl(const std::string& commit, const std::string& file) const {
  return absl::StrCat(endpoint_, "/", UrlEscape(repo_, Slashes::kKept), "/resolve/",
                      UrlEscape(commit, Slashes::kEscaped), "/", UrlEscape(file, Slashes::kKept));
}

absl::Status HubApi::Retry(int max_attempts, const std::function<absl::Status()>& attempt) const {
  absl::Duration delay = options_.retry_delay;
  for (int i = 1;; ++i) {
    absl::Status status = attempt();
    if (!absl::IsUnavailable(status) || i >= max_attempts) return status;
    // Nobody can wake this thread earlier: the network is not ready before the time.
    absl::SleepFor(std::min(delay, kMaxRetryDelay));
    delay *= 2;
  }
}

// The answer behind redirects. The token goes to the endpoint's own origin alone, and never from https to http.
absl::StatusOr<HubHttpResponse> HubApi::Follow(HubHttpRequest request, StopAt stop_at, const HubBodySink& sink) {
  // The body of a redirect or of an error is not the file.
  const HubBodySink body_only = [&sink](const HubHttpResponse& head, std::string_view piece) {
    return head.code >= 200 && head.code < 300 && sink ? sink(head, piece) : absl::OkStatus();
  };
  for (int i = 0; i <= kMaxRedirects; ++i) {
    request.token = IsSameOrigin(request.url, endpoint_) ? options_.token : std::string();
    ASSIGN_OR_RETURN(HubHttpResponse response, http_.Fetch(request, body_only));
    const bool is_linked = stop_at == StopAt::kLinkedFile && response.Header("x-linked-etag") != nullptr;
    if (!IsRedirect(response.code) || is_linked) return response;
    if (response.redirect_url.empty()) return absl::InvalidArgumentError("the hub redirects to nowhere");
    if (UrlScheme(request.url) == "https" && UrlScheme(response.redirect_url) != "https") {
      return absl::InvalidArgumentError("the hub redirects from https to an unprotected address");
    }
    request.url = response.redirect_url;
  }
  return absl::InvalidArgumentError("the hub redirects in circles");
}

absl::Status HubApi::CheckCode(const HubHttpResponse& response, std::string_view what) const {
  const int code = response.code;
  if (code >= 200 && code < 300) return absl::OkStatus();
  const std::string prefix = absl::StrCat(repo_, ": ", std::string(what), ": ");
  const std::string* fault = response.Header("x-error-code");
  const std::string fault_code = fault == nullptr ? "" : *fault;
  const bool is_gated = fault_code == "GatedRepo";
  if (code == 403 || is_gated) {
    return absl::PermissionDeniedError(absl::StrCat(prefix, "access is restricted (", code, "): ask for it at ",
                                                    endpoint_, "/", repo_,
                                                    " and set HF_TOKEN to a token of that account"));
  }
  if (code == 401) {
    return absl::UnauthenticatedError(absl::StrCat(
        prefix,
        options_.token.empty()
            ? "the hub wants to know who asks (401): the model is private, or its name is misspelt; set HF_TOKEN"
            : "the hub does not accept the token in HF_TOKEN (401), or knows no such model"));
  }
  if (code == 404) {
    return absl::NotFoundError(absl::StrCat(
        prefix, fault_code == "RevisionNotFound" ? "no such revision" : "there is no such model, revision or file",
        " at ", endpoint_, " (404)"));
  }
  const std::string message = absl::StrCat(prefix, endpoint_, " answered ", code);
  return MayPass(code) ? absl::UnavailableError(message) : absl::InvalidArgumentError(message);
}

absl::StatusOr<HubRepoInfo> HubApi::GetRepoInfo(const std::string& revision, int max_attempts) {
  HubHttpRequest request;
  request.url = absl::StrCat(endpoint_, "/api/models/", UrlEscape(repo_, Slashes::kKept), "/revision/",
                             UrlEscape(revision, Slashes::kEscaped));
  std::string body;
  RETURN_IF_ERROR(Retry(max_attempts, [&]() -> absl::Status {
    body.clear();
    ASSIGN_OR_RETURN(const HubHttpResponse response,
                     Follow(request, StopAt::kFinalAnswer, [&](const HubHttpResponse&, std::string_view piece) {
                       if (body.size() + piece.size() > kMaxInfoBytes) {
                         return absl::InvalidArgumentError("the hub's answer is too long");
                       }
                       body += piece;
                       return absl::OkStatus();
                     }));
    return CheckCode(response, absl::StrCat("revision ", revision));
  }));
  return ParseRepoInfo(body);
}

absl::StatusOr<HubFileInfo> HubApi::GetFileInfo(const std::string& commit, const std::string& file) {
  HubHttpRequest request;
  request.method = HubMethod::kHead;
  request.url = FileUrl(commit, file);
  HubHttpResponse response;
  RETURN_IF_ERROR(Retry(options_.max_attempts, [&]() -> absl::Status {
    ASSIGN_OR_RETURN(response, Follow(request, StopAt::kLinkedFile, nullptr));
    return response.Header("x-linked-etag") != nullptr ? absl::OkStatus() : CheckCode(response, file);
  }));
  HubFileInfo info;
  info.name = file;
  const std::string* etag = response.Header("x-linked-etag");
  if (etag == nullptr) etag = response.Header("etag");
  if (etag != nullptr) info.etag = std::string(Unquote(*etag));
  if (!IsSafeEtag(info.etag)) {
    return absl::InvalidArgumentError(absl::StrCat(repo_, ": ", file, ": the hub gives no usable checksum (ETag)"));
  }
  const std::string* size = response.Header("x-linked-size");
  ASSIGN_OR_RETURN(info.file_bytes, ParseBytes(size != nullptr ? size : response.Header("content-length")));
  return info;
}

absl::Status HubApi::GetFile(const std::string& commit, const std::string& file, uint64_t resume_bytes,
                             const Receiver& receiver) {
  HubHttpRequest request;
  request.url = FileUrl(commit, file);
  request.resume_bytes = resume_bytes;
  bool is_first = true;
  const absl::StatusOr<HubHttpResponse> response =
      Follow(request, StopAt::kFinalAnswer, [&](const HubHttpResponse& head, std::string_view piece) -> absl::Status {
        if (is_first && resume_bytes > 0) {
          const std::string* range = head.Header("content-range");
          const bool continues =
              head.code == 206 && range != nullptr && range->starts_with(absl::StrCat("bytes ", resume_bytes, "-"));
          if (!continues) {
            if (head.code == 206) return absl::UnavailableError("the hub sends another part than asked for");
            RETURN_IF_ERROR(receiver.restart());
          }
        }
        is_first = false;
        return receiver.append(piece);
      });
  if (!response.ok()) return response.status();
  if (response->code == 416) {
    // What is there is no beginning of the file any more.
    RETURN_IF_ERROR(receiver.restart());
    return absl::UnavailableError(absl::StrCat(repo_, ": ", file, ": cannot be resumed"));
  }
  return CheckCode(*response, file);
}

}  // namespace millrace
