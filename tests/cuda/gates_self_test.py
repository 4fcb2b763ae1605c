#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The compile gate and the list of attested kernels see what they are for. Standard library only, without nvcc."""
import contextlib
import io
import json
import pathlib
import sys
import tempfile
import unittest

import attested_test
import compile_gate
import gpu_check
from kernel_sources import closure, digest, relative

MANGLED = "_ZN8millrace4cuda49_GLOBAL__N__9c39c1a1_16_sample_passes_cu_c253bc6213CollectKernelILi1EEEvi"
LOG = f"""ptxas info    : Compiling entry function '{MANGLED}' for 'sm_90a'
ptxas info    : Function properties for {MANGLED}
    %d bytes stack frame, %d bytes spill stores, 0 bytes spill loads
ptxas info    : Used %d registers, used 1 barriers, 4096 bytes smem
"""
NAME = "CollectKernel<1>"
KNOWN = {"registers": 40, "shared_bytes": 4096, "stack_bytes": 0, "spill_bytes": 0}


def judge(log, cold=(), known=KNOWN, is_comparable=True):
    table = {"cold": list(cold), "kernels": {"x.cu": {NAME: known} if known else {}}}
    return list(compile_gate.judge("x.cu", log, table, is_comparable))


class CompileGate(unittest.TestCase):
    def test_kernels_have_names_without_hashes(self):
        self.assertEqual(compile_gate.parse(LOG % (0, 0, 40)), {NAME: KNOWN})
        self.assertEqual(compile_gate.short_name("void a::(anonymous namespace)::K<(a::Mode)2, a::T>(a::P)"), "K<2, T>")

    def test_what_is_in_the_table_passes(self):
        self.assertEqual(judge(LOG % (0, 0, 40)), [])
        self.assertEqual(judge(LOG % (0, 0, 38)), [])

    def test_growth_is_seen_where_the_compilers_are_the_same(self):
        self.assertIn("registers grew from 40 to 41", judge(LOG % (0, 0, 41))[0])
        self.assertEqual(judge(LOG % (0, 0, 41), is_comparable=False), [])

    def test_stack_and_spills_are_for_cold_kernels_only(self):
        self.assertIn("8 bytes of stack, 20 bytes spilled", judge(LOG % (8, 20, 40), is_comparable=False)[0])
        spilling = dict(KNOWN, stack_bytes=8, spill_bytes=20)
        self.assertEqual(judge(LOG % (8, 20, 40), cold=["Collect.*"], known=spilling), [])

    def test_new_and_lost_kernels_and_warnings_are_named(self):
        self.assertIn("is not in", judge(LOG % (0, 0, 40), known=None)[0])
        self.assertIn("is gone", judge("")[0])
        self.assertIn("C7510", judge("ptxas warning : (C7510) wgmma serialized\n" + LOG % (0, 0, 40))[0])

    def test_the_table_is_written_as_it_is_read(self):
        table = {"nvcc": "13.0", "arch": "90a", "cold": ["a"], "kernels": {"x.cu": {NAME: KNOWN}, "y.cu": {"K": KNOWN}}}
        self.assertEqual(json.loads(compile_gate.table_text(table)), table)


class Attested(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.TemporaryDirectory()
        self.root = pathlib.Path(self.folder.name)
        for name, text in {"kernels/cuda/a.cu": '#include "kernels/cuda/a.h"\n', "kernels/cuda/a.h": "int a;\n",
                           "kernels/cuda/b.cu": "int b;\n"}.items():
            (self.root / name).parent.mkdir(parents=True, exist_ok=True)
            (self.root / name).write_text(text, encoding="utf-8")
        (self.root / "benches" / "results").mkdir(parents=True)

    def tearDown(self):
        self.folder.cleanup()

    def record(self, result):
        sources = {relative(self.root, path): digest(self.root, path) for path in self.kernels()}
        (self.root / "benches" / "results" / "gpu_x.json").write_text(
            json.dumps({"sources": sources, "steps": {"kernels": {"result": result}}}), encoding="utf-8")

    def kernels(self):
        return [self.root / "kernels" / "cuda" / name for name in ("a.cu", "b.cu")]

    def said(self):
        """Hashes are read once a process: the header's text is forgotten between the looks."""
        compile_gate.kernel_files.__globals__["includes"].cache_clear()
        sys.argv[1:] = [str(self.root)]
        with contextlib.redirect_stdout(io.StringIO()) as text:
            self.assertEqual(attested_test.main(), 0)
        return text.getvalue()

    def test_kernels_are_named_until_their_tests_passed_and_again_when_a_header_changes(self):
        self.assertIn("2 of 2 kernel files: a, b", self.said())
        self.record("failed")
        self.assertIn("2 of 2 kernel files: a, b", self.said())
        self.record("passed")
        self.assertIn("all 2 kernel files", self.said())
        (self.root / "kernels" / "cuda" / "a.h").write_text("int changed;\n", encoding="utf-8")
        self.assertIn("1 of 2 kernel files: a\n", self.said())

    def test_a_kernel_is_made_of_all_it_includes(self):
        self.assertEqual([path.name for path in closure(self.root, self.kernels()[0])], ["a.cu", "a.h"])


class GpuCheck(unittest.TestCase):
    def test_every_step_says_what_it_is(self):
        self.assertTrue(all(step.__doc__ for step in gpu_check.STEPS.values()))

    def test_sources_that_need_our_libraries_are_not_built_from_source(self):
        self.assertTrue(gpu_check.is_plain(gpu_check.ROOT / "kernels" / "cuda" / "rms_norm.cu"))
        self.assertFalse(gpu_check.is_plain(gpu_check.ROOT / "kernels" / "cpu" / "cpu_ops.cc"))


if __name__ == "__main__":
    unittest.main()
