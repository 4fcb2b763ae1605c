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
from kernel_sources import closure, digest, relative

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2] / "benches" / "cuda"))
import goals  # noqa: E402

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

    def test_a_file_that_is_no_record_is_named_and_attests_nothing(self):
        for text in ('{"sources": {', "[]", '{"steps": {"kernels": 1}}'):
            (self.root / "benches" / "results" / "gpu_x.json").write_text(text, encoding="utf-8")
            said = self.said()
            self.assertIn("gpu_x.json is no record", said)
            self.assertIn("2 of 2 kernel files: a, b", said)

    def test_a_kernel_is_made_of_all_it_includes(self):
        self.assertEqual([path.name for path in closure(self.root, self.kernels()[0])], ["a.cu", "a.h"])


def record_of(engine_line, bench):
    steps = {"engine": {"lines": ["== llama: exit 0", json.dumps(engine_line), '{"what": "cut o']},
             "bench": {"lines": [json.dumps(line) for line in bench]}}
    return {"gpu": {"name": "A GPU"}, "date": "2026-01-02T03:04:05", "commit": "abc", "steps": steps}


class Goals(unittest.TestCase):
    ROOFS = [{"what": "memory roofs", "read GB/s": 4000, "copy GB/s": 3500},
             {"what": "warpgroup roofs", "bf16 TFLOP/s": 800, "int8 TOP/s": 1600}]
    STEP = {"what": "engine decode", "model": "m", "layers": 2, "weights": "bf16", "kv": "bf16", "sequences": 1,
            "tokens": 1024, "us": 2000, "tokens_per_second": 500, "host_waits_us": 1, "late_share": 0.01,
            "bytes": 4e9, "flops": 8e9, "head_flops": 0, "attention_flops": 0}

    def test_a_kernel_is_held_against_its_goal_at_its_best_shape(self):
        lines = [{"what": "attention prefill, warpgroups", "TFLOP/s": rate} for rate in (310.4, 612.3)]
        text = goals.table(record_of(self.STEP, [*self.ROOFS, *lines, {"what": "attention prefill", "TFLOP/s": 700}]))
        self.assertIn("\n\nattention prefill, warpgroups: 612 TFLOP/s at best; goal 550.", text)
        self.assertNotIn("attention", goals.table(record_of(self.STEP, self.ROOFS)))

    def test_a_share_is_of_the_nearer_roof_of_the_same_run(self):
        (_, share, goal), = goals.figures(record_of(self.STEP, self.ROOFS))
        self.assertAlmostEqual(share, 0.5)  # 4 GB at 4 TB/s are 1 ms of 2
        self.assertEqual(goal, 0.70)
        (_, share, _), = goals.figures(record_of(dict(self.STEP, flops=1.2e12), self.ROOFS))
        self.assertAlmostEqual(share, 0.75)
        (_, share, _), = goals.figures(record_of(dict(self.STEP, flops=1.2e12, weights="int8"), self.ROOFS))
        self.assertAlmostEqual(share, 0.5)

    def test_without_roofs_nothing_is_said(self):
        self.assertEqual(goals.figures(record_of(self.STEP, self.ROOFS[:1])), [])

    def test_lines_that_are_no_steps_are_passed_over(self):
        """Cut off, of other types, without what is needed, or not of this world."""
        without = {key: value for key, value in self.STEP.items() if key != "flops"}
        record = record_of(self.STEP, [*self.ROOFS, {"what": 3, "GB/s": "fast"}, {"what": "copy", "GB/s": None}])
        record["steps"]["bench"]["lines"] += ['{"what": "roofs", "GB/s": Infinity, "bf16 TFLOP/s": NaN}', "{}", "{" * 5000]
        for wrong in (without, dict(self.STEP, us=0), dict(self.STEP, us="2"), dict(self.STEP, what=None),
                      dict(self.STEP, bytes=float("nan")), dict(self.STEP, late_share=None), dict(self.STEP, model=[])):
            record["steps"]["engine"]["lines"].append(json.dumps(wrong))
        (_, share, _), = goals.figures(record)
        self.assertAlmostEqual(share, 0.5)
        self.assertEqual(goals.table(record).count("\n| m, "), 1)

    def test_a_host_that_was_compiling_meanwhile_is_named(self):
        record = record_of(self.STEP, self.ROOFS)
        self.assertNotIn("compiling", goals.table(record))
        record["steps"]["engine"]["while_building"] = True
        self.assertIn("The host was compiling meanwhile.", goals.table(record))

    def test_a_file_that_is_no_record_hides_none_that_is(self):
        with tempfile.TemporaryDirectory() as folder:
            results = pathlib.Path(folder) / "benches" / "results"
            results.mkdir(parents=True)
            (results / "gpu_1.json").write_text(json.dumps(record_of(self.STEP, self.ROOFS)), encoding="utf-8")
            for name, text in {"gpu_2": '{"steps": {"eng', "gpu_3": "[]", "gpu_4": '{"steps": {"engine": 3}}'}.items():
                (results / f"{name}.json").write_text(text, encoding="utf-8")
            self.assertEqual(goals.newest(pathlib.Path(folder))["commit"], "abc")

    def test_the_page_says_what_the_newest_record_says_or_that_there_is_none(self):
        page = f"before\n{goals.BEGIN}\nold\n{goals.END}\nafter"
        self.assertEqual(goals.page_with(page, None), f"before\n{goals.BEGIN}\n{goals.NOTHING}\n{goals.END}\nafter")
        written = goals.page_with(page, record_of(self.STEP, self.ROOFS))
        self.assertIn("| m, 2 layers | bf16, bf16 | decode, 1 at 1024 | 2.00 | 500 | 50 % | 70 % | 1.0 % (5 %) |", written)
        self.assertEqual(goals.page_with(written, record_of(self.STEP, self.ROOFS)), written)

    def test_the_page_is_up_to_date(self):
        text = goals.PAGE.read_text(encoding="utf-8")
        self.assertIn(goals.BEGIN, text)
        self.assertEqual(goals.page_with(text, goals.newest(goals.ROOT)), text)


if __name__ == "__main__":
    unittest.main()
