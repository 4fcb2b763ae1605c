// SPDX-License-Identifier: Apache-2.0
#include "agent/tools/calculator.h"

#include <catch2/catch.hpp>

using millrace::Calculate;
using millrace::CalculatorTool;

namespace {

std::string Value(std::string_view expression) {
  const absl::StatusOr<std::string> value = Calculate(expression);
  return value.ok() ? *value : "error: " + std::string(value.status().message());
}

}  // namespace

TEST_CASE("calculator: integers are exact") {
  CHECK(Value("2+3*4") == "14");
  CHECK(Value("(2+3)*4") == "20");
  CHECK(Value("123456789012345678 * 987654321") == "121932631124828531222374638");
  CHECK(Value("2**100") == "1267650600228229401496703205376");
  CHECK(Value("170141183460469231731687303715884105727") == "170141183460469231731687303715884105727");
  CHECK(Value("2^10") == "1024");
  CHECK(Value("10/4") == "2.5");
  CHECK(Value("10/5") == "2");
}

TEST_CASE("calculator: what an integer cannot hold becomes a double that looks like one") {
  CHECK(Value("2**127") == "1.7014118346046923e+38");
  CHECK(Value("170141183460469231731687303715884105727 + 1") == "1.7014118346046923e+38");
  CHECK(Value("-170141183460469231731687303715884105727 - 1") == "-170141183460469231731687303715884105728");
  CHECK(Value("(-170141183460469231731687303715884105727 - 1) // -1") == "1.7014118346046923e+38");
  CHECK(Value("4 * 0.5") == "2.0");
}

TEST_CASE("calculator: precedence, signs and rounding are Python's") {
  CHECK(Value("-2**2") == "-4");
  CHECK(Value("2**-1") == "0.5");
  CHECK(Value("2**3**2") == "512");
  CHECK(Value("--3") == "3");
  CHECK(Value("7 - 2 - 1") == "4");
  CHECK(Value("100 / 10 / 2") == "5");
  CHECK(Value("-7 // 2") == "-4");
  CHECK(Value("-7 % 3") == "2");
  CHECK(Value("7 % -3") == "-2");
  CHECK(Value("-7.5 % 2") == "0.5");
  CHECK(Value("1e3 + .5") == "1000.5");
}

TEST_CASE("calculator: names and functions") {
  CHECK(Value("sqrt(2)") == "1.4142135623730951");
  CHECK(Value("cos(pi)") == "-1.0");
  CHECK(Value("ln(e)") == "1.0");
  CHECK(Value("floor(2.7) + ceil(2.1) + round(2.5)") == "8");
  CHECK(Value("max(1, 2.5, min(9, 3))") == "3");
  CHECK(Value("abs(-5)") == "5");
}

TEST_CASE("calculator: faults say what and where") {
  CHECK(Value("1/0") == "error: division by zero at character 4");
  CHECK(Value("0 % 0").starts_with("error: division by zero"));
  CHECK(Value("2+") == "error: a number is missing at character 3");
  CHECK(Value("") == "error: a number is missing at character 1");
  CHECK(Value("(1") == "error: ')' expected at character 3");
  CHECK(Value("1 2") == "error: something is left over at character 3");
  CHECK(Value("__import__('os')").starts_with("error: a number is missing"));
  CHECK(Value("system(1)") == "error: 'system' is not known at character 10");
  CHECK(Value("sqrt(-1)").starts_with("error: the result is no finite number"));
  CHECK(Value("10.0**400").starts_with("error: the result is no finite number"));
  CHECK(Value("1e999").starts_with("error: this is no number"));
}

TEST_CASE("calculator: depth and length are bounded") {
  CHECK(Value(std::string(400, '(') + "1" + std::string(400, ')')).starts_with("error: too deep"));
  CHECK(Value(std::string(900, '-') + "1").starts_with("error: too deep"));
  CHECK(Value("1" + std::string(1000, ' ')).starts_with("error: the expression has 1001 bytes"));
  // Towers are cut by the size of a double, not computed.
  CHECK(Value("9**9**9**9").starts_with("error: the result is no finite number"));
}

TEST_CASE("calculator tool: the model reads the value or the fault") {
  CalculatorTool tool;
  const millrace::Cancellation cancellation;
  const auto call = [&](std::string_view arguments) {
    return tool.Call(arguments, absl::InfiniteFuture(), cancellation);
  };
  CHECK(call(R"({"expression":"6*7"})").text == "42");
  CHECK_FALSE(call(R"({"expression":"6*7"})").is_error);
  CHECK(call(R"({"expression":"6*"})").is_error);
  CHECK(call(R"({"expression":42})").text == "the argument 'expression' must be a string");
  CHECK(call(R"({"expression":"1","code":"2"})").text == "there is no argument 'code'");
  CHECK(call(R"({"expression":"1","expression":"2"})").text == "the argument 'expression' is there twice");
  CHECK(call("{}").text == "the argument 'expression' is missing");
  CHECK(call("[]").text == "the arguments are no JSON object");
  CHECK(call("{\"expression\":\"\xff\"}").text == "the arguments are no JSON object");
  CHECK(call(std::string(100'000, ' ')).text.starts_with("the arguments have 100000 bytes"));
}
