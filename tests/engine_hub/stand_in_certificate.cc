// SPDX-License-Identifier: Apache-2.0
#include "tests/engine_hub/stand_in_certificate.h"

#include <openssl/ec.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>
#include <stdlib.h>

#include <cstdio>

#include "kernels/check.h"

namespace millrace {

StandInCertificate::StandInCertificate(const std::string& names)
    : key_(EVP_EC_gen("P-256"), &EVP_PKEY_free), certificate_(X509_new(), &X509_free) {
  X509* certificate = certificate_.get();
  X509_set_version(certificate, X509_VERSION_3);
  ASN1_INTEGER_set(X509_get_serialNumber(certificate), 1);
  X509_gmtime_adj(X509_getm_notBefore(certificate), -3600);
  X509_gmtime_adj(X509_getm_notAfter(certificate), 3600);
  X509_set_pubkey(certificate, key_.get());
  X509_NAME* subject = X509_get_subject_name(certificate);
  X509_NAME_add_entry_by_txt(subject, "CN", MBSTRING_ASC, reinterpret_cast<const unsigned char*>("stand-in hub"), -1,
                             -1, 0);
  X509_set_issuer_name(certificate, subject);
  X509_EXTENSION* extension = X509V3_EXT_conf_nid(nullptr, nullptr, NID_subject_alt_name, names.c_str());
  MILLRACE_CHECK(extension != nullptr, "the names must be as OpenSSL writes them");
  X509_add_ext(certificate, extension, -1);
  X509_EXTENSION_free(extension);
  MILLRACE_CHECK(X509_sign(certificate, key_.get(), EVP_sha256()) > 0, "a certificate must sign itself");

  std::string pattern = (std::filesystem::temp_directory_path() / "millrace_ca_XXXXXX").string();
  folder_ = mkdtemp(pattern.data());
  FILE* out = std::fopen(file().c_str(), "w");
  MILLRACE_CHECK(out != nullptr && PEM_write_X509(out, certificate) == 1 && std::fclose(out) == 0,
                 "a temporary file must be writable");
}

StandInCertificate::~StandInCertificate() { std::filesystem::remove_all(folder_); }

}  // namespace millrace
