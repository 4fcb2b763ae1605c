// SPDX-License-Identifier: Apache-2.0
// A hostile template gets an error that names the limit, quickly; never a crash, a hang or all the memory.
#include <catch2/catch.hpp>
#include <string>
#include <string_view>

#include "engine/text/jinja_template.h"
#include "engine/text/template_json.h"

namespace millrace {
namespace {

std::string Render(std::string_view source, const JinjaLimits& limits = {}) {
  const auto jinja = JinjaTemplate::Parse(source, limits);
  if (!jinja.ok()) return "!!" + std::string(jinja.status().message());
  const auto rendered = jinja->Render(TemplateValue::Dict());
  if (!rendered.ok()) return "!!" + std::string(rendered.status().message());
  return std::string(rendered->view());
}

std::string Repeat(std::string_view text, int times) {
  std::string out;
  for (int i = 0; i < times; ++i) out += text;
  return out;
}

void CheckRefused(std::string_view source, std::string_view reason, const JinjaLimits& limits = {}) {
  INFO(source.substr(0, 200));
  const std::string result = Render(source, limits);
  INFO(result.substr(0, 300));
  CHECK(result.substr(0, 2) == "!!");
  CHECK(result.find(reason) != std::string::npos);
}

}  // namespace

TEST_CASE("Jinja limits: recursion is refused, parsed or run", "[jinja]") {
  CheckRefused("{% macro m() %}{{ m() }}{% endmacro %}\n{{ m() }}", "nested deeper than the limit of 400");
  CheckRefused("{% macro m(x) %}{% call m(x) %}{% endcall %}{{ caller }}{% endmacro %}{{ m(1) }}", "nested deeper");
  CheckRefused("{{ " + Repeat("(", 100'000) + "1" + Repeat(")", 100'000) + " }}",
               "nested deeper than the limit of 200");
  CheckRefused("{{ " + Repeat("[", 100'000) + Repeat("]", 100'000) + " }}", "nested deeper");
  CheckRefused("{{ " + Repeat("not ", 100'000) + "1 }}", "nested deeper");
  CheckRefused("{{ " + Repeat("-", 100'000) + "1 }}", "nested deeper");
  CheckRefused("{{ 1" + Repeat(" if 1 else 1", 10'000) + " }}", "nested deeper");
  CheckRefused("{{ 1" + Repeat(" + 1", 100'000) + " }}", "longer than the limit of 300");
  CheckRefused("{{ x" + Repeat(".y", 100'000) + " }}", "longer than the limit of 300");
  CheckRefused("{{ x" + Repeat("|list", 100'000) + " }}", "longer than the limit of 300");
  CheckRefused(Repeat("{% if 1 %}", 10'000), "nested deeper");
  CheckRefused("{% set " + Repeat("(", 10'000) + "a" + Repeat(")", 10'000) + " = 1 %}", "nested deeper");
  CheckRefused("{% for x in [[1]] recursive %}{{ loop([[1]]) }}{% endfor %}", "nested deeper");
  CHECK(Render("{{ " + Repeat("(", 50) + "1" + Repeat(")", 50) + " }}") == "1");
  CHECK(Render("{% macro m(n) %}{{ n }}{% if n %}{{ m(n - 1) }}{% endif %}{% endmacro %}{{ m(9) }}") == "9876543210");
}

TEST_CASE("Jinja limits: values that contain themselves are printed, compared and freed", "[jinja]") {
  CheckRefused("{% set l = [] %}{% set _ = l.append(l) %}{{ l }}", "nested deeper than 200");
  CheckRefused("{% set l = [] %}{% set _ = l.append(l) %}{{ l|tojson }}", "nested too deep");
  CHECK(Render("{% set n = namespace() %}{% set n.n = n %}{% set n.f = n.f %}ok") == "ok");
  CHECK(Render("{% set l = [] %}{% set _ = l.append(l.append) %}{% set a = [] %}{% set b = [a] %}"
               "{% set _ = a.append(b) %}{{ a == b }}") == "False");
  CheckRefused("{% set n = namespace(x=[]) %}{% for i in range(300) %}{% set n.x = [n.x] %}{% endfor %}{{ n.x }}",
               "nested deeper");
  // A hundred thousand levels are freed without recursion.
  CHECK(Render("{% set n = namespace(x=[]) %}{% for i in range(99999) %}{% set n.x = [n.x] %}{% endfor %}ok") == "ok");
  CHECK(Render("{% set n = namespace(x={}) %}{% for i in range(99999) %}{% set n.x = {1: n.x} %}{% endfor %}ok") ==
        "ok");
  CHECK(Render("{% set n = namespace(x=[]) %}{% for i in range(9999) %}{% set n.x = [n.x.append] %}{% endfor %}ok") ==
        "ok");
  CHECK(
      Render("{% set n = namespace(x=1) %}{% for i in range(9999) %}{% set n.x = namespace(y=n.x) %}{% endfor %}ok") ==
      "ok");
  // The same list twice at each level would be 2^60 comparisons or characters.
  const std::string doubled =
      "{% set n = namespace(x=[1], y=[1]) %}{% for i in range(60) %}{% set n.x = [n.x, n.x] %}"
      "{% set n.y = [n.y, n.y] %}{% endfor %}";
  CheckRefused(doubled + "{{ n.x == n.y }}", "steps is reached");
  CheckRefused(doubled + "{{ n.x }}", "too long");
  CheckRefused(doubled + "{{ n.x|tojson }}", "longer than the limit");
}

TEST_CASE("Jinja limits: time and memory are bounded", "[jinja]") {
  CheckRefused("{{ range(1000000000) }}", "range longer than the limit of 100000");
  CheckRefused("{{ range(-9223372036854775807, 9223372036854775807)|length }}", "range longer");
  CheckRefused("{{ 'x' * 1000000000000 }}", "more than the limit of 67108864");
  CheckRefused("{{ 'xxxxxxxx' * 9223372036854775807 }}", "more than the limit");
  CheckRefused("{{ [1] * 1000000000 }}", "more than the limit");
  CheckRefused("{{ 'a'.center(1000000000000) }}", "more than the limit");
  CheckRefused("{{ 'a'.zfill(9223372036854775807) }}", "more than the limit");
  CheckRefused("{{ '%1000000000d' % 1 }}", "limit of 1000");
  CheckRefused("{{ '{:1000000000}'.format(1) }}", "limit of 1000");
  CheckRefused("{{ '%.1000000000f' % 1 }}", "limit of 1000");
  CheckRefused("{{ 'a'|indent(1000000000) }}", "limit of 1000");
  CheckRefused("{{ strftime_now('%c' * 100000) }}", "limit of 1000 bytes");
  const std::string loops = Repeat("{% for i in range(100000) %}", 5) + "x" + Repeat("{% endfor %}", 5);
  CheckRefused(loops, "limit of 5000000 steps");
  CheckRefused("{% set n = namespace(s='x') %}{% for i in range(100) %}{% set n.s = n.s ~ n.s %}{% endfor %}",
               "more than the limit");
  CheckRefused("{% set s = ('x' * 1000) * 60000 %}{% for i in range(100) %}{{ s }}{% endfor %}",
               "limit of 67108864 bytes");
  CheckRefused("{% set s = ('x' * 1000) * 60000 %}{% for i in range(100) %}{% set y = s ~ 'a' %}{% endfor %}",
               "bytes of memory is reached");
  CheckRefused("{% set s = [('x' * 1000) * 60000] * 9 %}{{ s|join }}", "more than the limit");
  CheckRefused("{% set s = 'x' * 1000000 %}{{ s.replace('', s) }}", "more than the limit");
  CheckRefused("{% set s = ('x' * 1000) * 4000 %}{{ s|list|length }}", "more than the limit");
  CheckRefused("{% set l = [1] %}{% for i in range(100) %}{% set _ = l.extend(l) %}{% endfor %}", "bytes");
  CheckRefused("{{ 10 ** 19 }}", "64 bits");
  CheckRefused("{{ 10 ** 9223372036854775807 }}", "64 bits");
  CHECK(Render("{{ (-9223372036854775807 - 1) // -1 if false }}{{ (-9223372036854775807 - 1) % -1 }}") == "0");
  CheckRefused("{{ (-9223372036854775807 - 1) // -1 }}", "64 bits");
}

TEST_CASE("Jinja limits: they can be set, and a large template is refused", "[jinja]") {
  JinjaLimits limits;
  limits.max_steps = 100;
  CheckRefused("{% for i in range(99) %}x{% endfor %}", "limit of 100 steps", limits);
  limits = {};
  limits.max_output_bytes = 10;
  CheckRefused("12345678901", "limit of 10 bytes of output", limits);
  limits = {};
  limits.max_source_bytes = 10;
  CheckRefused("12345678901", "more than the limit of 10", limits);
}

TEST_CASE("JSON values: broken and hostile documents are refused", "[jinja]") {
  for (const char* text : {"", "{", "[1,]", "{\"a\" 1}", "{\"a\":1,}", "01", "1.", "-", "1e", "\"\\x\"", "\"\\u12\"",
                           "\"a", "\"\n\"", "tru", "nullx", "[1] 2", "NaN", "{1: 2}", "\"\\ud800\\u\""}) {
    INFO(text);
    CHECK_FALSE(ParseJsonValue(text).ok());
  }
  CHECK_FALSE(ParseJsonValue(Repeat("[", 100'000)).ok());
  TemplateJsonLimits limits;
  limits.max_values = 3;
  CHECK_FALSE(ParseJsonValue("[1,2,3,4]", limits).ok());
  const auto value = ParseJsonValue(R"({"a": [1, -2.5e1, true, null, "\u00e9\ud83d\ude00\ud800\n"], "a": 2, "b": {}})");
  REQUIRE(value.ok());
  CHECK(value->as_dict().size() == 2);
  CHECK(value->as_dict().Find("a")->as_int() == 2);
  CHECK(ParseJsonValue("12345678901234567890")->is_float());
}

}  // namespace millrace
