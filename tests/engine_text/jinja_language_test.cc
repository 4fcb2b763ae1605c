// SPDX-License-Identifier: Apache-2.0
// The template language piece by piece. The expectations were checked against Jinja2 3.1.6 in transformers' settings;
// ours differs where it is wider (from_json, changing lists) or narrower (64-bit integers).
#include <catch2/catch.hpp>
#include <string>
#include <string_view>

#include "engine/text/jinja_template.h"
#include "engine/text/template_json.h"

namespace millrace {
namespace {

struct Case {
  std::string_view source;
  std::string_view expected;
};

// The output, or "!!" and the message.
std::string Render(std::string_view source, std::string_view variables = "{}") {
  const auto jinja = JinjaTemplate::Parse(source);
  if (!jinja.ok()) return "!!" + std::string(jinja.status().message());
  const auto values = ParseJsonValue(variables);
  REQUIRE(values.ok());
  JinjaRenderOptions options;
  options.now = absl::FromCivil(absl::CivilSecond(2025, 1, 2, 3, 4, 5), absl::UTCTimeZone());
  const auto rendered = jinja->Render(*values, options);
  if (!rendered.ok()) return "!!" + std::string(rendered.status().message());
  return std::string(rendered->view());
}

constexpr std::string_view kVariables = R"({
  "s": "Grüße, Welt", "n": null, "i": 7, "f": 2.5, "t": true, "l": [3, 1, 2], "e": [],
  "d": {"b": 1, "a": {"items": 5}, "get": 9}, "words": ["b", "A", "c"],
  "people": [{"name": "Ann", "age": 3, "tags": ["x"]}, {"name": "bob", "age": 1}, {"name": "Cy", "age": 3}]})";

template <size_t count>
void CheckAll(const Case (&cases)[count]) {
  for (const Case& one : cases) {
    INFO(one.source);
    CHECK(Render(one.source, kVariables) == one.expected);
  }
}

}  // namespace

TEST_CASE("Jinja: expressions have Python's meaning", "[jinja]") {
  constexpr Case kCases[] = {
      {"{{ 7 // 2 }} {{ -7 // 2 }} {{ -7 % 3 }} {{ 7 / 2 }} {{ 2 ** 10 }} {{ 2 ** -1 }}", "3 -4 2 3.5 1024 0.5"},
      {"{{ 7.5 // 2 }} {{ -7.5 % 2 }} {{ 1e20 }} {{ 1e16 }} {{ 123456789012345.0 }} {{ 0.0001 }} {{ 0.00001 }}",
       "3.0 0.5 1e+20 1e+16 123456789012345.0 0.0001 1e-05"},
      {"{{ 1 + 2 ~ 3 + 4 }}", "!!chat template line 1: unsupported operand type(s) for +: 'int' and 'str'"},
      {"{{ 'a' ~ 1 + 2 }}", "!!chat template line 1: can only concatenate str (not \"int\") to str"},
      {"{{ -2 ** 2 }} {{ 2 ** 3 ** 2 }} {{ -f|abs }}", "4 64 2.5"},
      {"{{ 1 < 2 < 3 }} {{ 1 < 3 < 2 }} {{ 1 == 1.0 }} {{ true == 1 }} {{ 'a' < 'b' }}", "True False True True True"},
      {"{{ not i == 7 }} {{ i in l }} {{ 3 in l }} {{ 3 not in l }} {{ 'b' in d }} {{ 'ü' in s }}",
       "False False True False True True"},
      {"{{ 'x' if i > 5 else 'y' }}{{ 'z' if false }}|{{ 1 if 0 else 2 if 0 else 3 }}", "x|3"},
      {"{{ s[0] }}{{ s[2] }}{{ s[-1] }} {{ s[1:4] }} {{ s[::-1] }} {{ s|length }}", "Güt rüß tleW ,eßürG 11"},
      {"{{ l[1:] }} {{ l[::-1] }} {{ l[5:] }} {{ (1,) }} {{ () }} {{ (1, 'a')[1] }}", "[1, 2] [2, 1, 3] [] (1,) () a"},
      {"{{ d.a.items() }} {{ d['a']['items'] }} {{ d.get }}", "dict_items([('items', 5)]) 5 <object object>"},
      {"{{ d.missing }}|{{ d['missing'] }}|{{ n.x }}|{{ l[9] }}|{{ l.x }}", "||||"},
      {"{{ missing.x }}", "!!chat template line 1: 'missing' is undefined"},
      {"{{ d.missing.x }}", "!!chat template line 1: 'dict object' has no attribute 'missing'"},
      {"{{ missing ~ 'x' }}{{ missing == other }}{{ missing|length }}{{ 'a' in missing }}", "xTrue0False"},
      {"{{ missing + 'x' }}", "!!chat template line 1: 'missing' is undefined"},
      {"{{ 'a' 'b' \"c\" }} {{ '\\n\\x41\\u00e9\\'\\q'|tojson }}", "abc \"\\nAé'\\\\q\""},
      {"{{ 0x1f + 0b11 + 0o17 + 1_000 }} {{ 1.5e3 }}", "1049 1500.0"},
      {"{{ [1, 'a', none, true, 2.0, {'k': (1,)}] }}", "[1, 'a', None, True, 2.0, {'k': (1,)}]"},
      {"{{ [\"it's\", 'say \"x\"', 'both \\'\"', 'tab\\t'] }}", "[\"it's\", 'say \"x\"', 'both \\'\"', 'tab\\t']"},
      {"{{ {'a': 1, 'b': 2, 'a': 3} }} {{ {1: 'x', 1.0: 'y', true: 'z'} }}", "{'a': 3, 'b': 2} {1: 'z'}"},
      {"{{ 'ab' * 3 }} {{ [1] * 2 }} {{ 'a' * -1 }}|", "ababab [1, 1] |"},
      {"{{ 9223372036854775807 + 1 }}", "!!chat template line 1: an integer leaves 64 bits"},
      {"{{ 1 / 0 }}", "!!chat template line 1: division by zero"},
      {"{{ 'x' in n }}", "!!chat template line 1: argument of type 'NoneType' is not iterable"},
      {"{{ i }}{{ 'abc'.1 }}", "7b"},
      {"{{ 1, 2 }}", "(1, 2)"},
      {"{{ -1.0 % 1 }} {{ missing is callable }}", "0.0 True"},
      {"{{ i[1:] }}", "!!chat template line 1: a value of type int cannot be sliced"},
  };
  CheckAll(kCases);
}

TEST_CASE("Jinja: methods of str, list and dict", "[jinja]") {
  constexpr Case kCases[] = {
      {"{{ ' a b '.strip() }}|{{ ' a '.lstrip() }}|{{ 'xxaxx'.strip('x') }}|{{ 'abc'.rstrip('bc') }}", "a b|a |a|a"},
      {"{{ 'a,b,,c'.split(',') }} {{ ' a  b '.split() }} {{ 'a b c'.split(none, 1) }} {{ 'a-b-c'.rsplit('-', 1) }}",
       "['a', 'b', '', 'c'] ['a', 'b'] ['a', 'b c'] ['a-b', 'c']"},
      {"{{ 'a b c '.rsplit(none, 1) }} {{ 'x'.split('xx') }} {{ ''.split() }} {{ ''.split(',') }}",
       "['a b', 'c'] ['x'] [] ['']"},
      {"{{ 'a\\nb\\r\\nc'.splitlines() }} {{ 'k=v=w'.partition('=') }} {{ 'k=v=w'.rpartition('=') }}",
       "['a', 'b', 'c'] ('k', '=', 'v=w') ('k=v', '=', 'w')"},
      {"{{ 'Straße'.upper() }} {{ 'ÄÖ'.lower() }} {{ \"they're\".title() }} {{ 'hELLO wORLD'.capitalize() }}",
       "STRASSE äö They'Re Hello world"},
      {"{{ 'aXbX'.replace('X', '-', 1) }} {{ s.find('Welt') }} {{ s.rfind('zz') }} {{ 'banana'.count('an') }}",
       "a-bX 7 -1 2"},
      {"{{ 'abc'.startswith(('x', 'ab')) }} {{ 'abc'.endswith('bc') }} {{ 'abc'.startswith('b', 1) }}",
       "True True True"},
      {"{{ '-'.join(words) }} {{ ','.join('abc') }} {{ 'a'.join([1]) }}",
       "!!chat template line 1: sequence item 0: expected str instance, int found"},
      {"{{ '{} {}'.format(1, 2) }}", "1 2"},
      {"{{ '{:>5}|{:05.1f}|{!r}|{:,}'.format('a', 2.25, 'q', 1234567) }}", "    a|002.2|'q'|1,234,567"},
      {"{{ '%s is %05.2f %d%% %r' % ('x', 3.14159, 7, 'y') }} {{ '%(a)s' % {'a': 1} }}", "x is 03.14 7% 'y' 1"},
      {"{{ '42'.zfill(5) }} {{ '-42'.zfill(5) }} {{ 'a'.center(4, '*') }} {{ 'a'.ljust(3) }}| {{ 'a'.rjust(3) }}",
       "00042 -0042 *a** a  |   a"},
      {"{{ '12'.isdigit() }} {{ 'ab1'.isalpha() }} {{ ' '.isspace() }} {{ 'AB'.isupper() }}", "True False True True"},
      {"{{ 'prefix-x'.removeprefix('prefix-') }} {{ 'x.py'.removesuffix('.py') }}", "x x"},
      {"{% set l2 = [] %}{% set _ = l2.append(4) %}{% set _ = l2.extend([5, 6]) %}{% set _ = l2.insert(0, 3) %}"
       "{{ l2 }} {{ l2.pop() }} {{ l2.pop(0) }} {{ l2.index(5) }} {{ l2 }}",
       "[3, 4, 5, 6] 6 3 1 [4, 5]"},
      {"{{ d.keys()|list }} {{ d.values()|list|length }} {{ d.items()|first }}", "['b', 'a', 'get'] 3 ('b', 1)"},
      {"{% set x = {'a': 1} %}{% set _ = x.update({'b': 2}) %}{{ x }} {{ x.pop('a') }} {{ x.setdefault('c', 5) }} {{ x "
       "}}",
       "{'a': 1, 'b': 2} 1 5 {'b': 2, 'c': 5}"},
  };
  CheckAll(kCases);
}

TEST_CASE("Jinja: filters and tests", "[jinja]") {
  constexpr Case kCases[] = {
      {"{{ people|map(attribute='name')|join(', ') }} {{ people|map(attribute='tags.0', default='-')|list }}",
       "Ann, bob, Cy ['x', '-', '-']"},
      {"{{ people|selectattr('age', 'eq', 3)|map(attribute='name')|list }} {{ people|rejectattr('tags')|list|length }}",
       "['Ann', 'Cy'] 2"},
      {"{{ people|sort(attribute='name')|map(attribute='name')|join }} {{ words|sort }} {{ words|sort(true, true) }}",
       "AnnbobCy ['A', 'b', 'c'] ['c', 'b', 'A']"},
      {"{% for age, group in people|groupby('age') %}{{ age }}:{{ group|map(attribute='name')|join('+') }} {% endfor "
       "%}",
       "1:bob 3:Ann+Cy "},
      {"{{ l|sort }} {{ l|sum }} {{ l|min }} {{ l|max }} {{ [1, 1.0, 2]|unique|list }} {{ l|reverse|list }}",
       "[1, 2, 3] 6 1 3 [1, 2] [2, 1, 3]"},
      {"{{ d|dictsort }} {{ {'b': 1, 'A': 2}|dictsort(by='value', reverse=true) }}",
       "[('a', {'items': 5}), ('b', 1), ('get', 9)] [('A', 2), ('b', 1)]"},
      {"{{ d|items|list|length }} {{ e|first }}|{{ 'abc'|last }} {{ 'abc'|reverse }}", "3 |c cba"},
      {"{{ d|tojson }} {{ {'a': [1, {}], 'b': []}|tojson(indent=2) }}",
       "{\"b\": 1, \"a\": {\"items\": 5}, \"get\": 9} {\n  \"a\": [\n    1,\n    {}\n  ],\n  \"b\": []\n}"},
      {"{{ '<é\"\\\\/\\x01>'|tojson }} {{ 'é😀'|tojson(ensure_ascii=true) }} {{ {1: none, none: 2.0}|tojson }}",
       "\"<é\\\"\\\\/\\u0001>\" \"\\u00e9\\ud83d\\ude00\" {\"1\": null, \"null\": 2.0}"},
      {"{{ missing|tojson }}", "!!chat template line 1: an object of type Undefined is not JSON serializable"},
      {"{{ '  x '|trim }}{{ 'a-b c'|title }}{{ 'ABC'|lower }}{{ n|default('d') }}{{ ''|default('d', true) }}",
       "xA-B CabcNoned"},
      {"{{ 'x'|int }} {{ '0x1f'|int(base=16) }} {{ '3.9'|int }} {{ 'y'|float(1.5) }} {{ ' 5 '|int }} {{ f|int }}",
       "0 31 3 1.5 5 2"},
      {"{{ 2.5|round }} {{ 2.675|round(2) }} {{ 2.1|round(0, 'ceil') }} {{ 7|round }}", "2.0 2.67 3.0 7"},
      {"{{ [1,2,3,4,5]|batch(2)|list }} {{ [1,2,3]|batch(2, 0)|list }} {{ [1,2,3,4]|slice(3)|list }}",
       "[[1, 2], [3, 4], [5]] [[1, 2], [3, 0]] [[1, 2], [3], [4]]"},
      {"{{ '<a> & \"b\"'|e }} {{ ('<'|safe) + '<' }} {{ '<'|safe ~ '<' }}", "&lt;a&gt; &amp; &#34;b&#34; <&lt; <<"},
      {"{{ 'a\\nb\\n\\nc'|indent(2) }}|{{ 'the quick brown fox'|truncate(12) }}|{{ 'a bb c'|wordcount }}",
       "a\n  b\n\n  c|the...|3"},
      {"{{ l|select('odd')|list }} {{ l|reject('gt', 1)|list }} {{ [0, 1, '']|select|list }}", "[3, 1] [1] [1]"},
      {"{{ 'a b'|urlencode }} {{ 'x%sy'|format(1) }} {{ l|map('string')|join }} {{ '{\"a\": 1}'|from_json }}",
       "a%20b x1y 312 {'a': 1}"},
      {"{{ i is odd }} {{ i is divisibleby 7 }} {{ i is not number }} {{ n is none }} {{ t is boolean }} {{ t is "
       "number }}",
       "True True False True True True"},
      {"{{ s is string }} {{ l is sequence }} {{ d is mapping }} {{ d is iterable }} {{ missing is defined }}",
       "True True True True False"},
      {"{{ 3 is in l }} {{ 'a' is eq 'a' }} {{ 'trim' is filter }} {{ 'odd' is test }} {{ s.strip is callable }}",
       "True True True True True"},
      {"{{ l|map('upper')|nope }}", "!!chat template line 1: no filter named 'nope'"},
      {"{{ 'x' if false and (l|nope) else 'fine' }}", "fine"},
      {"{{ (l|map('string'))|length }}", "!!chat template line 1: object of type 'generator' has no len()"},
      {"{% set g = l|map('string') %}{{ g|join }}{{ g|join }}{{ 'yes' if e|select else 'no' }}", "312yes"},
  };
  CheckAll(kCases);
}

TEST_CASE("Jinja: statements, scopes and white space", "[jinja]") {
  constexpr Case kCases[] = {
      {"{% for x in l %}{{ loop.index }}/{{ loop.length }}{{ ',' if not loop.last }}{% endfor %}", "1/3,2/3,3/3"},
      {"{% for x in l if x > 1 %}{{ loop.index0 }}{{ x }} {% else %}none{% endfor %}", "03 12 "},
      {"{% for x in e %}{% else %}none{% endfor %}{% for k in d %}{{ k }}{% endfor %}", "nonebaget"},
      {"{% for x in l %}{% if x == 1 %}{% continue %}{% endif %}{{ x }}{% if x == 2 %}{% break %}{% endif %}{% endfor "
       "%}",
       "32"},
      {"{% set x = 1 %}{% for y in l %}{% set x = x + y %}{{ x }} {% endfor %}{{ x }}", "4 2 3 1"},
      {"{% set ns = namespace(x=0) %}{% for y in l %}{% set ns.x = ns.x + y %}{% endfor %}{{ ns.x }}", "6"},
      {"{% for a, (b, c) in [(1, (2, 3))] %}{{ a }}{{ b }}{{ c }}{% endfor %}", "123"},
      {"{% for x in [1, [2, [3]]] recursive %}{{ loop(x) if x is sequence else x }}{{ loop.depth }}{% endfor %}",
       "11223321"},
      {"{% for x in l %}{{ loop.previtem }}<{{ x }}>{{ loop.nextitem }}{{ loop.cycle('a', 'b') }} {% endfor %}",
       "<3>1a 3<1>2b 1<2>a "},
      {"{% for x in [1, 1, 2] %}{{ loop.changed(x) }} {% endfor %}", "True False True "},
      {"{% macro m(a, b='B', c=a) %}[{{ a }}{{ b }}{{ c }}]{% endmacro %}{{ m(1) }}{{ m(1, c=3) }}{{ m(b=2, a=1) }}",
       "[1B1][1B3][121]"},
      {"{% macro m() %}{{ varargs }}{{ kwargs }}{% endmacro %}{{ m(1, 2, k=3) }}", "(1, 2){'k': 3}"},
      {"{% macro m(a) %}{{ a }}{% endmacro %}{{ m(1, 2) }}",
       "!!chat template line 1: macro 'm' takes not more than 1 argument(s)"},
      {"{% macro m() %}<{{ caller(5) }}>{% endmacro %}{% call(x) m() %}{{ x }}{{ i }}{% endcall %}", "<57>"},
      {"{% macro fact(n) %}{% if n > 1 %}{{ n * fact(n - 1)|int }}{% else %}1{% endif %}{% endmacro %}{{ fact(5) }}",
       "120"},
      {"{% set x = 1 %}{% macro m() %}{{ x }}{% endmacro %}{% set x = 2 %}{{ m() }}", "2"},
      {"{% set x %}a{{ i }}{% endset %}{{ x|upper }}{% set y | upper %}b{% endset %}{{ y }}", "A7B"},
      {"{% filter upper | replace('A', 'x') %}abc{% endfilter %}{% with a = 1, b = 2 %}{{ a + b }}{% endwith %}{{ a }}",
       "xBC3"},
      {"{% generation %}g{% endgeneration %}{% block b %}k{% endblock b %}{% raw %}{{ x }}{% endraw %}{# {{ #}",
       "gk{{ x }}"},
      {"a\n  {% if t %}\n  b\n  {% endif %}\nc\n", "a\n  b\nc"},
      {"a\n  {%+ if t %}\n  b\n  {%- endif +%}\nc\n\n", "a\n    b\nc\n"},
      {"  {{- 'x' -}}  \n  y  {#- c -#}  z", "xyz"},
      {"{{ 'a' }}\n{# c #}\n{{ 'b' }}", "a\nb"},
      {"a\r\nb\rc\r\n", "a\nb\nc"},
      {"{{ strftime_now('%d %b %Y %H:%M') }} {{ strftime_now('%-d') }}", "02 Jan 2025 03:04 2"},
      {"\n\n{{ raise_exception('no ' ~ i) }}", "!!chat template line 3: no 7"},
      {"{{ range(3)|list }} {{ range(5, 1, -2)|list }} {{ range(2) }} {{ dict(a=1) }}",
       "[0, 1, 2] [5, 3] range(0, 2) {'a': 1}"},
      {"{% set c = cycler('a', 'b') %}{{ c.next() }}{{ c.next() }}{{ c.next() }}{{ c.current }}"
       "{% set j = joiner('|') %}{{ j() }}x{{ j() }}y",
       "abab"
       "x|y"},
      {"{% set a, b = 1, 2 %}{{ a }}{{ b }}{% set a, b = l %}",
       "!!chat template line 1: too many values to unpack (expected 2, got 3)"},
  };
  CheckAll(kCases);
}

TEST_CASE("Jinja: what does not parse is refused with its line", "[jinja]") {
  constexpr Case kCases[] = {
      {"a\n{% if x %}", "!!chat template line 2: the block of line 2 is not closed, expected 'endif'"},
      {"{{ x", "!!chat template line 1: the tag is not closed"},
      {"{{ 'x }}", "!!chat template line 1: the string is not closed"},
      {"{# x", "!!chat template line 1: the comment is not closed"},
      {"{% raw %}x", "!!chat template line 1: the raw block is not closed"},
      {"{{ ) }}", "!!chat template line 1: unexpected ')'"},
      {"{{ (1] }}", "!!chat template line 1: unexpected ']', expected ')'"},
      {"{{ ? }}", "!!chat template line 1: unexpected character '?'"},
      {"{% include 'x' %}", "!!chat template line 1: 'include' is not supported: a chat template is one file"},
      {"{% extends 'x' %}", "!!chat template line 1: 'extends' is not supported: a chat template is one file"},
      {"{% import 'x' as y %}", "!!chat template line 1: 'import' is not supported: a chat template is one file"},
      {"{% nope %}", "!!chat template line 1: unknown tag 'nope'"},
      {"{% break %}", "!!chat template line 1: 'break' outside of a loop"},
      {"{% endif %}", "!!chat template line 1: unknown tag 'endif'"},
      {"{% set true = 1 %}", "!!chat template line 1: can't assign to 'true'"},
      {"{{ 99999999999999999999 }}", "!!chat template line 1: the number 99999999999999999999 does not fit in 64 bits"},
      {"{{ }}", "!!chat template line 1: expected an expression, found '}}'"},
  };
  CheckAll(kCases);
}

}  // namespace millrace
