// SPDX-License-Identifier: Apache-2.0
#include "tests/engine_hub/stand_in_hub.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <openssl/evp.h>
#include <poll.h>
#include <signal.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>

#include "absl/strings/str_cat.h"
#include "kernels/check.h"

namespace millrace {
namespace {

bool IsLarge(const std::string& name) { return name.ends_with(".safetensors") || name.ends_with(".gguf"); }

std::string Digest(const EVP_MD* kind, const std::string& bytes) {
  unsigned char digest[EVP_MAX_MD_SIZE];
  unsigned int count = 0;
  EVP_Digest(bytes.data(), bytes.size(), digest, &count, kind, nullptr);
  std::string out;
  for (unsigned int i = 0; i < count; ++i) absl::StrAppend(&out, absl::Hex(digest[i], absl::kZeroPad2));
  return out;
}

std::string HeaderValue(const std::string& head, const std::string& name) {
  const size_t at = head.find("\r\n" + name + ": ");
  if (at == head.npos) return "";
  const size_t begin = at + name.size() + 4;
  return head.substr(begin, head.find("\r\n", begin) - begin);
}

}  // namespace

std::string Sha256Hex(const std::string& bytes) { return Digest(EVP_sha256(), bytes); }
std::string GitSha1Hex(const std::string& bytes) {
  return Digest(EVP_sha1(), absl::StrCat("blob ", bytes.size()) + '\0' + bytes);
}

// An accepted connection, with or without TLS.
class StandInServer::Wire {
 public:
  Wire(int connection, SSL_CTX* tls) : connection_(connection), ssl_(tls == nullptr ? nullptr : SSL_new(tls)) {
    if (ssl_ != nullptr) SSL_set_fd(ssl_, connection);
  }
  ~Wire() {
    if (is_open_ && ssl_ != nullptr) SSL_shutdown(ssl_);
    SSL_free(ssl_);
    close(connection_);
  }
  Wire(const Wire&) = delete;
  Wire& operator=(const Wire&) = delete;

  // False: the client refuses our certificate, or hung up.
  bool Open() { return is_open_ = ssl_ == nullptr || SSL_accept(ssl_) == 1; }
  ssize_t Read(char* bytes, size_t count) {
    return ssl_ == nullptr ? recv(connection_, bytes, count, 0) : SSL_read(ssl_, bytes, static_cast<int>(count));
  }
  ssize_t Write(const char* bytes, size_t count) {
    return ssl_ == nullptr ? send(connection_, bytes, count, 0) : SSL_write(ssl_, bytes, static_cast<int>(count));
  }

 private:
  const int connection_;
  SSL* const ssl_;
  bool is_open_ = false;
};

StandInServer::StandInServer(StandInHandler handler, const StandInCertificate* certificate)
    : handler_(std::move(handler)) {
  if (certificate != nullptr) {
    tls_ = SSL_CTX_new(TLS_server_method());
    MILLRACE_CHECK(SSL_CTX_use_certificate(tls_, certificate->certificate()) == 1 &&
                       SSL_CTX_use_PrivateKey(tls_, certificate->key()) == 1,
                   "the certificate must have its key");
  }
  listener_ = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t address_bytes = sizeof address;
  auto* generic = reinterpret_cast<sockaddr*>(&address);
  MILLRACE_CHECK(bind(listener_, generic, sizeof address) == 0 && listen(listener_, 16) == 0 &&
                     getsockname(listener_, generic, &address_bytes) == 0,
                 "a loopback port must be free");
  port_ = ntohs(address.sin_port);
  thread_ = std::thread([this] { Serve(); });
}

StandInServer::~StandInServer() {
  is_stopping_ = true;
  thread_.join();
  close(listener_);
  SSL_CTX_free(tls_);
}

std::string StandInServer::url() const {
  return absl::StrCat(tls_ == nullptr ? "http" : "https", "://127.0.0.1:", port_);
}

std::vector<StandInRequest> StandInServer::requests() const {
  absl::MutexLock lock(&mu_);
  return requests_;
}

int StandInServer::CountRequests(const std::string& method, const std::string& path_part) const {
  const std::vector<StandInRequest> all = requests();
  return static_cast<int>(std::count_if(all.begin(), all.end(), [&](const StandInRequest& request) {
    return request.method == method && request.path.find(path_part) != std::string::npos;
  }));
}

void StandInServer::Serve() {
  // A client that hung up makes writing fail, not the process end; OpenSSL offers no MSG_NOSIGNAL.
  sigset_t pipe;
  sigemptyset(&pipe);
  sigaddset(&pipe, SIGPIPE);
  pthread_sigmask(SIG_BLOCK, &pipe, nullptr);
  while (!is_stopping_) {
    pollfd waiting{listener_, POLLIN, 0};
    if (poll(&waiting, 1, 20) <= 0) continue;
    const int connection = accept(listener_, nullptr, nullptr);
    if (connection < 0) continue;
    Wire wire(connection, tls_);
    if (wire.Open()) Answer(wire);
  }
}

void StandInServer::Answer(Wire& wire) {
  std::string head;
  char buffer[4096];
  while (head.find("\r\n\r\n") == head.npos) {
    const ssize_t count = wire.Read(buffer, sizeof buffer);
    if (count <= 0) return;
    head.append(buffer, static_cast<size_t>(count));
  }
  StandInRequest request;
  request.method = head.substr(0, head.find(' '));
  const size_t path = request.method.size() + 1;
  request.path = head.substr(path, head.find(' ', path) - path);
  request.token = HeaderValue(head, "Authorization");
  request.range = HeaderValue(head, "Range");
  {
    absl::MutexLock lock(&mu_);
    requests_.push_back(request);
  }
  const StandInReply reply = handler_(request);
  std::string out = absl::StrCat("HTTP/1.1 ", reply.code, " X\r\nConnection: close\r\n");
  bool has_length = false;
  for (const auto& [name, value] : reply.headers) {
    absl::StrAppend(&out, name, ": ", value, "\r\n");
    has_length |= name == "Content-Length";
  }
  if (!has_length) absl::StrAppend(&out, "Content-Length: ", reply.body.size(), "\r\n");
  out += "\r\n";
  if (request.method != "HEAD") out += reply.body.substr(0, reply.cut_after_bytes);
  for (size_t sent = 0; sent < out.size();) {
    const ssize_t count = wire.Write(out.data() + sent, out.size() - sent);
    if (count <= 0) return;
    sent += static_cast<size_t>(count);
  }
}

StandInHub::StandInHub(const StandInCertificate* hub_certificate, const StandInCertificate* storage_certificate)
    : storage_([this](const StandInRequest& request) { return AnswerStorage(request); }, storage_certificate),
      hub_([this](const StandInRequest& request) { return AnswerHub(request); }, hub_certificate) {}

StandInReply StandInHub::AnswerHub(const StandInRequest& request) {
  if (num_failures > 0) {
    --num_failures;
    return {503, {}, "busy"};
  }
  if (error_status != 0) return {error_status, {{"X-Error-Code", error_code}}, "no"};
  if (!wanted_token.empty() && request.token != "Bearer " + wanted_token) return {401, {}, "who?"};
  if (redirects_in_circles) return {302, {{"Location", request.path}}, ""};
  if (request.path.starts_with("/api/models/org/old/")) {
    return {307, {{"Location", "/api/models/org/tiny/" + request.path.substr(20)}}, ""};
  }
  if (request.path == "/api/models/org/tiny/revision/main" ||
      request.path == "/api/models/org/tiny/revision/" + commit ||
      request.path == "/api/models/org/tiny/revision/feature%2Fx") {
    return AnswerInfo();
  }
  for (const char* repo : {"/org/tiny/resolve/", "/org/old/resolve/"}) {
    const std::string prefix = repo + commit + "/";
    if (request.path.starts_with(prefix)) return AnswerFile(request.path.substr(prefix.size()), request);
  }
  return {404, {{"X-Error-Code", "RepoNotFound"}}, "no"};
}

StandInReply StandInHub::AnswerInfo() const {
  std::string names;
  for (const auto& [name, bytes] : files)
    absl::StrAppend(&names, names.empty() ? "" : ",", R"({"rfilename":")", name, R"("})");
  for (const std::string& name : extra_names)
    absl::StrAppend(&names, names.empty() ? "" : ",", R"({"rfilename":")", name, R"("})");
  return {200,
          {{"Content-Type", "application/json"}},
          absl::StrCat(R"({"sha":")", commit, R"(","siblings":[)", names, "]}")};
}

StandInReply StandInHub::AnswerFile(const std::string& name, const StandInRequest& request) {
  const auto file = files.find(name);
  if (file == files.end()) return {404, {{"X-Error-Code", "EntryNotFound"}}, ""};
  if (!IsLarge(name)) {
    StandInReply reply = SendBytes(file->second, request);
    reply.headers.emplace_back("ETag", "W/\"" + GitSha1Hex(file->second) + "\"");
    return reply;
  }
  return {302,
          {{"Location", storage_.url() + "/store/" + name + "?signature=x"},
           {"X-Linked-Etag", "\"" + Sha256Hex(file->second) + "\""},
           {"X-Linked-Size", absl::StrCat(file->second.size())},
           {"X-Repo-Commit", commit}},
          "Found. Redirecting"};
}

StandInReply StandInHub::SendBytes(std::string bytes, const StandInRequest& request) const {
  if (request.range.empty() || ignores_ranges) return {200, {}, std::move(bytes)};
  const auto begin = static_cast<size_t>(std::strtoull(request.range.c_str() + 6, nullptr, 10));
  if (begin >= bytes.size()) return {416, {}, ""};
  return {206,
          {{"Content-Range", absl::StrCat("bytes ", begin, "-", bytes.size() - 1, "/", bytes.size())}},
          bytes.substr(begin)};
}

StandInReply StandInHub::AnswerStorage(const StandInRequest& request) {
  const std::string name = request.path.substr(7, request.path.find('?') - 7);
  const auto file = files.find(name);
  if (file == files.end()) return {404, {}, ""};
  std::string bytes = file->second;
  if (num_damaged > 0) {
    --num_damaged;
    bytes[bytes.size() / 2] ^= 1;
  }
  StandInReply reply = SendBytes(std::move(bytes), request);
  if (num_cuts > 0) {
    --num_cuts;
    reply.cut_after_bytes = cut_bytes;
  }
  return reply;
}

}  // namespace millrace
