// SPDX-License-Identifier: Apache-2.0
#define CATCH_CONFIG_MAIN
#include <catch2/catch.hpp>
#include <iostream>
#include <set>
#include <string>

namespace {

// A case that cannot run here says WARN("[SKIPPED] why"). Those are told again at the end, one a line, where
// list_skips.py finds them: a green run must not hide what it left out.
class SkipListener : public Catch::TestEventListenerBase {
 public:
  using TestEventListenerBase::TestEventListenerBase;

  void testCaseStarting(const Catch::TestCaseInfo& info) override { case_name_ = info.name; }
  bool assertionEnded(const Catch::AssertionStats& stats) override {
    const Catch::AssertionResult& result = stats.assertionResult;
    static const std::string kMark = "[SKIPPED] ";
    const std::string message = result.getMessage();
    if (result.getResultType() == Catch::ResultWas::Warning && message.compare(0, kMark.size(), kMark) == 0) {
      skips_.insert(case_name_ + ": " + message.substr(kMark.size()));
    }
    return false;
  }
  void testRunEnded(const Catch::TestRunStats&) override {
    for (const std::string& skip : skips_) std::cout << "skipped: " << skip << "\n";
  }

 private:
  std::string case_name_;
  std::set<std::string> skips_;
};

CATCH_REGISTER_LISTENER(SkipListener)

}  // namespace
