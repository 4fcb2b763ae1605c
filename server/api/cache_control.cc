// SPDX-License-Identifier: Apache-2.0
#include "server/api/cache_control.h"

#include <algorithm>
#include <charconv>
#include <string>

#include "absl/strings/ascii.h"

namespace millrace {
namespace {

std::string_view Trim(std::string_view text) {
  while (!text.empty() && absl::ascii_isspace(static_cast<unsigned char>(text.front()))) text.remove_prefix(1);
  while (!text.empty() && absl::ascii_isspace(static_cast<unsigned char>(text.back()))) text.remove_suffix(1);
  return text;
}

absl::Duration Seconds(std::string_view text) {
  if (text.size() >= 2 && text.front() == '"' && text.back() == '"') text = text.substr(1, text.size() - 2);
  int32_t seconds = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), seconds);
  if (error == std::errc::result_out_of_range && text.find_first_not_of("0123456789") == std::string_view::npos) {
    return absl::InfiniteDuration();
  }
  const bool is_number = error == std::errc() && end == text.data() + text.size() && seconds >= 0;
  return is_number ? absl::Seconds(seconds) : absl::ZeroDuration();
}

void ApplyDirective(std::string_view directive, CacheControl& control) {
  const size_t equals = directive.find('=');
  std::string name(Trim(directive.substr(0, equals)));
  absl::AsciiStrToLower(&name);
  if (name == "no-store") {
    control.may_read = control.may_store = false;
  } else if (name == "no-cache") {
    control.may_read = false;
  } else if (name == "only-if-cached") {
    control.needs_hit = true;
  } else if (name == "max-age") {
    const std::string_view value = equals == std::string_view::npos ? "" : Trim(directive.substr(equals + 1));
    control.max_age = std::min(control.max_age, Seconds(value));
  }
}

}  // namespace

void ApplyCacheControl(std::string_view header, CacheControl& control) {
  while (!header.empty()) {
    const size_t comma = std::min(header.find(','), header.size());
    ApplyDirective(header.substr(0, comma), control);
    header.remove_prefix(std::min(comma + 1, header.size()));
  }
}

}  // namespace millrace
