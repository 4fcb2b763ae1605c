// SPDX-License-Identifier: Apache-2.0
#include "agent/argument_check.h"

#include <catch2/catch.hpp>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>

#include "absl/strings/str_cat.h"
#include "engine/text/template_json.h"
#include "engine/text/template_string.h"

namespace millrace {
namespace {

std::string Fault(std::string_view schema, std::string_view arguments) {
  return std::string(CheckArguments(schema, arguments).message());
}

TEST_CASE("CheckArguments: says what is wrong and where") {
  constexpr char kSchema[] = R"({"type":"object","properties":{
      "unit":{"enum":["km","mile"]},"count":{"type":"integer","minimum":1,"maximum":9},
      "names":{"type":"array","items":{"type":"string","maxLength":3},"maxItems":2},
      "place":{"type":"object","required":["lat"]},"either":{"anyOf":[{"type":"string"},{"type":"null"}]}},
      "additionalProperties":false})";
  CHECK(Fault(kSchema, R"({"unit":"km","count":9,"names":["abc"],"place":{"lat":1},"either":null})").empty());
  CHECK(Fault(kSchema, R"({"unit":"inch"})") == "unit: must be one of 'km', 'mile'");
  CHECK(Fault(kSchema, R"({"count":10})") == "count: must be at most 9");
  CHECK(Fault(kSchema, R"({"count":1.5})") == "count: must be an integer");
  CHECK(Fault(kSchema, R"({"count":1.0})").empty());
  CHECK(Fault(kSchema, R"({"count":true})") == "count: must be an integer");
  CHECK(Fault(kSchema, R"({"names":["a","bcde"]})") == "names[1]: is too long: 3 at most");
  CHECK(Fault(kSchema, R"({"names":["\u20ac\u20ac\u20ac"]})").empty());  // characters, not bytes
  CHECK(Fault(kSchema, R"({"names":[1]})") == "names[0]: must be a string");
  CHECK(Fault(kSchema, R"({"place":{}})") == "place: 'lat' is missing");
  CHECK(Fault(kSchema, R"({"either":1})") == "either: must be a string");
  CHECK(Fault(kSchema, R"({"colour":1})") == "the arguments there is no 'colour'");
  CHECK(Fault(kSchema, "[]") == "the arguments are no JSON object");
}

TEST_CASE("CheckArguments: a schema that is none allows any object, and deep or long ones end") {
  CHECK(CheckArguments("", "{}").ok());
  CHECK(CheckArguments("[]", R"({"a":1})").ok());
  CHECK(CheckArguments(R"({"type":7,"enum":7,"required":7,"properties":7,"items":7,"anyOf":7})", R"({"a":1})").ok());
  CHECK(!CheckArguments("{}", "{\"a\":\"" + std::string(70'000, 'x') + "\"}").ok());
  std::string schema = "{}";
  std::string arguments = "1";
  for (int i = 0; i < 90; ++i) {
    schema = absl::StrCat(R"({"properties":{"a":)", schema, "}}");
    arguments = absl::StrCat(R"({"a":)", arguments, "}");
  }
  CHECK(!CheckArguments(schema, std::string(200, '[')).ok());
  CHECK(CheckArguments(schema, arguments).ok());
}

TEST_CASE("CheckArguments: lists of a schema are looked at so often and no more") {
  std::string objects;
  for (int i = 0; i < 4000; ++i) absl::StrAppend(&objects, R"({"a":1},)");
  const std::string last_is_wrong = absl::StrCat(R"({"x":[)", objects, R"({}]})");
  for (const int num_names : {1, 400}) {
    std::string names, types;
    for (int i = 0; i < num_names; ++i) {
      absl::StrAppend(&names, i == 0 ? "" : ",", R"("a")");
      absl::StrAppend(&types, i == 0 ? "" : ",", R"("string")");
    }
    const bool ends = num_names > 1;
    INFO(num_names);
    CHECK(CheckArguments(absl::StrCat(R"({"properties":{"x":{"items":{"required":[)", names, "]}}}}"), last_is_wrong)
              .ok() == ends);
    CHECK(CheckArguments(absl::StrCat(R"({"properties":{"x":{"items":{"anyOf":[{"type":[)", types,
                                      R"(]},{"required":["a"]}]}}}})"),
                         last_is_wrong)
              .ok() == ends);
  }
}

// The suite's values are put into an argument of their own, so that any type may come.
TEST_CASE("CheckArguments: agrees with the JSON Schema Test Suite on what it follows") {
  const std::filesystem::path folder =
      std::filesystem::path(MILLRACE_SHARED_DATA_DIR) / "schemas/JSON-Schema-Test-Suite/draft7";
  if (!std::filesystem::exists(folder)) {
    WARN("SKIPPED: " << folder << " is not there");
    return;
  }
  int num_cases = 0;
  for (const char* name :
       {"type", "enum", "const", "properties", "required", "additionalProperties", "items", "minItems", "maxItems",
        "minLength", "maxLength", "minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "anyOf", "allOf"}) {
    std::ifstream file(folder / absl::StrCat(name, ".json"));
    const std::string text((std::istreambuf_iterator<char>(file)), std::istreambuf_iterator<char>());
    const auto groups = ParseJsonValue(text);
    REQUIRE(groups.ok());
    for (const TemplateValue& group : groups->as_list().items) {
      const TemplateValue& schema = *group.as_dict().Find("schema");
      TemplateStringBuilder schema_text;
      REQUIRE(AppendJson(schema, {}, schema_text).ok());
      const std::string whole = std::string(schema_text.Build().view());
      // Keywords that are not followed allow anything, by contract.
      if (whole.find("$ref") != whole.npos || whole.find("$defs") != whole.npos ||
          whole.find("patternProperties") != whole.npos || whole.find("\"items\": [") != whole.npos ||
          whole.find("prefixItems") != whole.npos || whole.find("unevaluated") != whole.npos ||
          whole.find("multipleOf") != whole.npos || whole.find("propertyNames") != whole.npos) {
        continue;
      }
      for (const TemplateValue& test : group.as_dict().Find("tests")->as_list().items) {
        TemplateStringBuilder data;
        REQUIRE(AppendJson(*test.as_dict().Find("data"), {}, data).ok());
        const std::string arguments = absl::StrCat("{\"x\":", std::string(data.Build().view()), "}");
        INFO(name << ": " << whole << " with " << arguments);
        CHECK(CheckArguments(absl::StrCat("{\"properties\":{\"x\":", whole, "}}"), arguments).ok() ==
              test.as_dict().Find("valid")->as_bool());
        ++num_cases;
      }
    }
  }
  CHECK(num_cases > 150);
}

}  // namespace
}  // namespace millrace
