#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The compile gate and the list of attested kernels see what they are for. Standard library only, without nvcc."""
import argparse
import concurrent.futures
import contextlib
import fnmatch
import io
import json
import pathlib
import re
import subprocess
import sys
import tempfile
import time
import unittest
import unittest.mock

import attested_test
import compile_gate
import gpu_check
import goals  # after gpu_check, which knows where it is
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
    GPU = gpu_check.Gpu("A GPU", "90a", "580", "1 GiB")

    def setUp(self):
        self.folder = tempfile.TemporaryDirectory()
        self.steps = dict(gpu_check.STEPS)

    def tearDown(self):
        gpu_check.STEPS.clear()
        gpu_check.STEPS.update(self.steps)
        self.folder.cleanup()

    def run_steps(self, steps, programs=None):
        """The record's file after these {name: (function, seconds)}."""
        gpu_check.STEPS.clear()
        gpu_check.STEPS.update(steps)
        building = concurrent.futures.Future()
        building.set_result(programs or {})
        options = argparse.Namespace(only=list(steps), out=pathlib.Path(self.folder.name), arch="90a", inputs="1")
        record = gpu_check.Record(options, self.GPU)
        check = gpu_check.Check(options, self.GPU, building, time.monotonic() + 600)
        with contextlib.redirect_stdout(io.StringIO()):
            gpu_check.run_steps(check, record)
        return json.loads(record.path.read_text(encoding="utf-8"))

    def test_every_step_says_what_it_is(self):
        self.assertTrue(all(step.__doc__ for step, _ in gpu_check.STEPS.values()))

    def test_the_steps_fit_into_nine_minutes(self):
        self.assertLess(sum(seconds for _, seconds in gpu_check.STEPS.values()), 9 * 60)

    def test_sources_that_need_our_libraries_are_not_built_from_source(self):
        self.assertTrue(gpu_check.is_plain(gpu_check.ROOT / "kernels" / "cuda" / "rms_norm.cu"))
        self.assertFalse(gpu_check.is_plain(gpu_check.ROOT / "kernels" / "cpu" / "cpu_ops.cc"))

    def test_a_bundle_holds_all_that_is_built_from_source(self):
        script = (gpu_check.ROOT / "scripts" / "gpu-bundle").read_text(encoding="utf-8")
        copied = re.search(r"cp -r --parents (.*?) \"\$stage/\"", script, re.DOTALL).group(1).replace("\\", "").split()
        built = gpu_check.sources(gpu_check.ROOT)
        self.assertGreater(len(built["tests"]), 5)
        for path in {path for group in built.values() for source in group for path in closure(gpu_check.ROOT, source)}:
            name = relative(gpu_check.ROOT, path)
            self.assertTrue(any(fnmatch.fnmatch(name, word) or name.startswith(word + "/") for word in copied), name)

    def test_a_step_that_fails_stops_no_other_and_what_it_said_is_kept(self):
        record = self.run_steps({
            "raises": (lambda check: 1 / 0, 300),
            "hangs": (lambda check: check.run_all({"sleep": ["sh", "-c", "echo begun; sleep 600 & wait"]}), 1),
            "is_missing": (lambda check: check.run_all({"no such": "it was not built"}), 300),
            "does_not_start": (lambda check: check.run_all({"no such": ["/no/such"], "true": ["true"]}), 300),
            "passes": (lambda check: check.run_all({"true": ["true"]}), 300)})
        results = {name: step["result"] for name, step in record["steps"].items()}
        self.assertEqual(results, {"raises": "failed", "hangs": "failed", "is_missing": "failed",
                                   "does_not_start": "failed", "passes": "passed"})
        self.assertIn("== true: exit 0", record["steps"]["does_not_start"]["lines"])
        self.assertIn("begun", record["steps"]["hangs"]["lines"])
        self.assertIn("ZeroDivisionError", record["steps"]["raises"]["lines"][-1])
        self.assertIsNone(record["running"])

    def test_a_program_that_cannot_run_here_is_skipped_beside_nothing_else(self):
        cannot, passes, fails = (["sh", "-c", f"exit {code}"] for code in (77, 0, 1))
        for commands, result in (([cannot], "skipped"), ([cannot, passes], "passed"), ([cannot, fails], "failed")):
            named = {str(i): command for i, command in enumerate(commands)}
            record = self.run_steps({"step": (lambda check, named=named: check.run_all(named), 300)})
            self.assertEqual(record["steps"]["step"]["result"], result)

    def test_the_record_is_whole_while_a_step_runs(self):
        seen = []

        def look(check):
            path = next(pathlib.Path(self.folder.name).glob("gpu_*.json"))
            seen.append(json.loads(path.read_text(encoding="utf-8")))
            return "passed", []
        self.run_steps({"first": (lambda check: ("passed", []), 300), "second": (look, 300)})
        self.assertEqual(seen[0]["running"], "second")
        self.assertEqual(seen[0]["steps"]["first"]["result"], "passed")
        self.assertIn("kernels/cuda/rms_norm.cu", seen[0]["sources"])

    def test_a_run_that_is_stopped_leaves_what_it_knew_and_where_it_was(self):
        def be_stopped(check):
            raise gpu_check.Stopped
        with self.assertRaises(gpu_check.Stopped):
            self.run_steps({"first": (lambda check: ("passed", []), 300), "second": (be_stopped, 300)})
        path, = pathlib.Path(self.folder.name).glob("gpu_*.json")
        record = json.loads(path.read_text(encoding="utf-8"))
        self.assertEqual((record["running"], record["steps"]["first"]["result"]), ("second", "passed"))

    def test_without_time_left_steps_are_left_out(self):
        record = self.run_steps({"slow": (lambda check: setattr(check, "end", 0) or ("passed", []), 300),
                                 "late": (lambda check: ("passed", []), 300)})
        self.assertEqual(record["steps"]["late"]["result"], "skipped")


@unittest.skipIf(compile_gate.find_nvcc(None) is None, "there is no nvcc here")
class Build(unittest.TestCase):
    FILES = {"kernels/tensor.cc": "", "kernels/cuda/good.cu": "int Good() { return 0; }",
             "kernels/cuda/broken.cu": "int Broken() { return }",
             "kernels/cuda/calls.cu": "int Broken(); int Calls() { return Broken(); }",
             "tests/cuda/harness_main.cc": "int Test(); int main() { return Test(); }",
             "tests/cuda/good_test.cc": "int Good(); int Test() { return Good(); }",
             "tests/cuda/calls_test.cc": "int Calls(); int Test() { return Calls(); }"}

    def test_a_kernel_that_does_not_compile_takes_only_those_along_that_call_it(self):
        with tempfile.TemporaryDirectory() as folder:
            root = pathlib.Path(folder)
            for name, text in self.FILES.items():
                (root / name).parent.mkdir(parents=True, exist_ok=True)
                (root / name).write_text(text + "\n", encoding="utf-8")
            options = argparse.Namespace(nvcc=compile_gate.find_nvcc(None), host=compile_gate.host_compiler(), arch="90a",
                                         jobs=1)
            with unittest.mock.patch.object(gpu_check, "ROOT", root):
                programs = gpu_check.Builder(options).build()
            self.assertEqual(subprocess.run([programs["good_test"]], check=False).returncode, 0)
            self.assertIn("broken.cu", programs["calls_test"])


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
