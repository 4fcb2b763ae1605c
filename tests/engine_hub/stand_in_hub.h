// SPDX-License-Identifier: Apache-2.0
#pragma once
// A small hub on loopback for tests: answers as Hugging Face does, and misbehaves where told to. Runs on a thread of
// its own, one connection at a time; the switches may be changed between requests.
#include <openssl/ssl.h>

#include <atomic>
#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <thread>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "tests/engine_hub/stand_in_certificate.h"

namespace millrace {

struct StandInRequest {
  std::string method, path, token, range;
};

struct StandInReply {
  int code = 200;
  std::vector<std::pair<std::string, std::string>> headers;
  std::string body;
  size_t cut_after_bytes = SIZE_MAX;  // closes in the middle of the body
};

using StandInHandler = std::function<StandInReply(const StandInRequest&)>;

class StandInServer {
 public:
  // With a certificate, which must outlive this, it speaks TLS.
  explicit StandInServer(StandInHandler handler, const StandInCertificate* certificate = nullptr);
  ~StandInServer();
  StandInServer(const StandInServer&) = delete;
  StandInServer& operator=(const StandInServer&) = delete;

  std::string url() const;
  std::vector<StandInRequest> requests() const;
  int CountRequests(const std::string& method, const std::string& path_part) const;

 private:
  class Wire;
  void Serve();
  void Answer(Wire& wire);

  const StandInHandler handler_;
  SSL_CTX* tls_ = nullptr;  // null: plain
  int listener_ = -1;
  uint16_t port_ = 0;
  std::atomic<bool> is_stopping_{false};
  mutable absl::Mutex mu_;
  std::vector<StandInRequest> requests_ ABSL_GUARDED_BY(mu_);
  std::thread thread_;
};

std::string Sha256Hex(const std::string& bytes);
std::string GitSha1Hex(const std::string& bytes);

// One repository, org/tiny, with the files as stored; large ones are behind a second server, as on the real hub.
class StandInHub {
 public:
  // Each of the two servers speaks TLS if it is given a certificate.
  explicit StandInHub(const StandInCertificate* hub_certificate = nullptr,
                      const StandInCertificate* storage_certificate = nullptr);

  std::string url() const { return hub_.url(); }
  StandInServer& hub() { return hub_; }
  StandInServer& storage() { return storage_; }

  // Switches; set them before the request they are for.
  std::map<std::string, std::string> files;  // by name
  std::vector<std::string> extra_names;      // listed, but not there
  std::string commit = "0123456789abcdef0123456789abcdef01234567";
  std::string wanted_token;  // others get 401
  std::string error_code;    // X-Error-Code of every answer, with `error_status`
  int error_status = 0;
  std::atomic<int> num_failures{0};  // answers 503 that many times
  std::atomic<int> num_cuts{0};      // breaks off a large file after cut_bytes that many times
  size_t cut_bytes = 1000;
  bool ignores_ranges = false;
  bool redirects_in_circles = false;
  std::atomic<int> num_damaged{0};  // sends wrong bytes for large files that many times

 private:
  StandInReply AnswerHub(const StandInRequest& request);
  StandInReply AnswerStorage(const StandInRequest& request);
  StandInReply AnswerInfo() const;
  StandInReply AnswerFile(const std::string& name, const StandInRequest& request);
  StandInReply SendBytes(std::string bytes, const StandInRequest& request) const;

  StandInServer storage_;
  StandInServer hub_;
};

}  // namespace millrace
