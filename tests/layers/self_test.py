# SPDX-License-Identifier: Apache-2.0
"""The checks of this folder on small trees with one fault each: a check that sees nothing would pass for ever."""
import pathlib
import tempfile
import unittest

import layers_test
import sizes_test


class TreeTest(unittest.TestCase):
    def offences(self, check, files, **arguments):
        with tempfile.TemporaryDirectory() as folder:
            for name, text in files.items():
                path = pathlib.Path(folder, name)
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(text, encoding="utf-8")
            return list(check(pathlib.Path(folder), **arguments))


class Layers(TreeTest):
    RIGHT = {
        "kernels/ops.h": "#include <vector>\n#include <immintrin.h>\n#include \"absl/status/status.h\"\n",
        "scheduler/plan.h": "#include \"scheduler/request.h\"\n#include \"absl/time/time.h\"\n",
        "engine/run/model.cc": "#include \"kernels/ops.h\"\n#include \"scheduler/plan.h\"\n#include <simdjson.h>\n",
        "server/app.cc": "#include \"engine/engine.h\"\n#include <boost/asio/post.hpp>\n",
    }

    def test_a_right_tree_has_no_offences(self):
        self.assertEqual(self.offences(layers_test.offences, self.RIGHT), [])

    def test_each_wrong_arrow_is_seen(self):
        wrong = [
            ("kernels/ops.cc", "#include \"engine/engine.h\"", "must not include engine/"),
            ("scheduler/plan.cc", "#include \"kernels/ops.h\"", "must not include kernels/"),
            ("engine/engine.cc", "#include \"server/app.h\"", "must not include server/"),
            ("engine/engine.cc", "  #  include <server/app.h>", "must not include server/"),
            ("server/app.h", "#include <scheduler/plan.h>", "must not include scheduler/"),
            ("server/app.h", "#include \"engine/run/model.h\"", "is engine/'s own"),
            ("engine/engine.cc", "#include \"tests/support/reference.h\"", "must not include tests/"),
            ("kernels/ops.h", "#include <simdjson.h>", "has no business with <simdjson.h>"),
            ("scheduler/plan.h", "#include <sys/mman.h>", "has no business with <sys/mman.h>"),
            ("engine/engine.h", "#include <grpcpp/grpcpp.h>", "has no business with <grpcpp/grpcpp.h>"),
            ("scheduler/plan.h", "std::mutex mu;", "must not know"),
        ]
        for name, line, fault in wrong:
            with self.subTest(name=name, line=line):
                found = self.offences(layers_test.offences, {**self.RIGHT, name: "// one\n" + line + "\n"})
                self.assertTrue(found)
                self.assertTrue(all(f"{name}:2: " in one for one in found), found)
                self.assertTrue(any(fault in one for one in found), found)


def body(lines):
    return "int Run(int a) {\n" + "  a += 1;\n" * (lines - 2) + "}\n"


class Sizes(TreeTest):
    def found(self, name, text, **arguments):
        return self.offences(sizes_test.offences, {name: text}, **{"long_files": {}, "long_functions": {}, **arguments})

    def test_limits_are_met_exactly(self):
        self.assertEqual(self.found("engine/a.h", "\n" * 200), [])
        self.assertEqual(len(self.found("engine/a.h", "\n" * 201)), 1)
        self.assertEqual(self.found("engine/a.cc", "\n" * 500), [])
        self.assertEqual(len(self.found("engine/a.cc", "\n" * 501)), 1)
        self.assertEqual(self.found("engine/a.cc", body(60)), [])
        self.assertIn("engine/a.cc:1: a function of 61 lines", self.found("engine/a.cc", body(61))[0])

    def test_an_exception_holds_for_its_length_alone(self):
        self.assertEqual(self.found("engine/a.cc", body(70), long_functions={"engine/a.cc": 70}), [])
        self.assertEqual(len(self.found("engine/a.cc", body(71), long_functions={"engine/a.cc": 70})), 1)
        self.assertEqual(self.found("engine/a.h", "\n" * 210, long_files={"engine/a.h": 210}), [])

    def test_scopes_are_no_functions_and_functions_in_them_are(self):
        inside = "namespace {\nclass A final : public B<(1 > 2)> {\n" + body(61) + "};\n" + body(10) + "}\n"
        found = self.found("engine/a.cc", inside)
        self.assertEqual(len(found), 1, found)
        self.assertIn("engine/a.cc:3: ", found[0])

    def test_braces_in_comments_and_literals_do_not_count(self):
        noise = "const char* k = \"{\"; // {\n/* { */ char c = '{'; auto r = R\"x({ \" { )x\"; int n = 1'000;\n"
        self.assertEqual(self.found("engine/a.cc", noise + body(60)), [])
        self.assertEqual(len(self.found("engine/a.cc", noise + body(61))), 1)

    def test_a_constructor_with_initialisers_counts(self):
        text = "A::A(int x) : a_(x), b_{1} {\n" + "  x += 1;\n" * 60 + "}\n"
        self.assertEqual(len(self.found("engine/a.cc", text)), 1)


if __name__ == "__main__":
    unittest.main()
