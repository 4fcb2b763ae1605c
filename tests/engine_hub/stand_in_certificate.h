// SPDX-License-Identifier: Apache-2.0
#pragma once
// A certificate that signs itself, made anew for each test: whoever has its file trusts the servers that show it.
#include <openssl/evp.h>
#include <openssl/x509.h>

#include <filesystem>
#include <memory>
#include <string>

namespace millrace {

class StandInCertificate {
 public:
  // `names` as OpenSSL writes alternative names: "IP:127.0.0.1", "DNS:hub.example".
  explicit StandInCertificate(const std::string& names);
  ~StandInCertificate();
  StandInCertificate(const StandInCertificate&) = delete;
  StandInCertificate& operator=(const StandInCertificate&) = delete;

  std::string file() const { return (folder_ / "ca.pem").string(); }
  EVP_PKEY* key() const { return key_.get(); }
  X509* certificate() const { return certificate_.get(); }

 private:
  const std::unique_ptr<EVP_PKEY, decltype(&EVP_PKEY_free)> key_;
  const std::unique_ptr<X509, decltype(&X509_free)> certificate_;
  std::filesystem::path folder_;
};

}  // namespace millrace
