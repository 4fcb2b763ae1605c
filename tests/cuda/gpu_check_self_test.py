#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""scripts/gpu-check goes on, stays in its limits and leaves a whole record, whatever its programs do. Standard library
only, without a GPU: its programs are shell scripts (gpu_check_fakes.py)."""
import argparse
import concurrent.futures
import contextlib
import fnmatch
import io
import json
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import unittest
import unittest.mock

import children
import compile_gate
import gpu_build
import gpu_check
from gpu_check_fakes import BEHAVIOURS, Tree
from kernel_sources import closure, includes, relative

ROOT = gpu_check.ROOT


class Sources(unittest.TestCase):
    """What is built where there is nothing but nvcc and a C++ compiler."""

    def setUp(self):
        self.built = gpu_build.sources(ROOT)
        self.everything = {path for group in self.built.values() for path in group}

    def test_every_kernel_test_and_bench_is_built(self):
        for folder, group in (("kernels/cuda", "kernels"), ("tests/cuda", "tests"), ("benches/cuda", "benches")):
            there = {path for path in (ROOT / folder).rglob("*") if path.suffix in (".cu", ".cc")}
            there -= {path for path in there if path.parent.name == "backend" and path.name != "cublaslt.cc"}
            there -= {ROOT / "tests" / "cuda" / "harness_main.cc"}
            self.assertGreater(len(there), 3)
            self.assertEqual(there - set(self.built[group]), set())

    def test_they_include_nothing_that_such_a_machine_may_not_have(self):
        self.assertEqual([line for path in self.everything for line in gpu_build.foreign(ROOT, path)], [])
        with tempfile.TemporaryDirectory() as folder:
            source = pathlib.Path(folder) / "a.cc"
            source.write_text("#include <nccl.h>\n#include <vector>\n", encoding="utf-8")
            self.assertEqual(list(gpu_build.foreign(source.parent, source)), ["a.cc: <nccl.h>"])
        self.assertIn("absl/", "\n".join(gpu_build.foreign(ROOT, ROOT / "kernels" / "cpu" / "cpu_ops.cc")))

    def test_without_cublas_what_asks_for_it_is_left_out(self):
        left = {path.name for group in gpu_build.sources(ROOT, has_cublas=False).values() for path in group}
        self.assertEqual({path.name for path in self.everything} - left, {"cublaslt.cc", "cublaslt_test.cc"})

    def test_what_they_declare_is_built_with_them(self):
        """A header's own source is among what is linked."""
        missing = {source.name for path in self.everything for header in closure(ROOT, path)
                   for source in (header.with_suffix(".cc"), header.with_suffix(".cu"))
                   if header.suffix == ".h" and source.exists() and source not in self.everything}
        self.assertEqual(missing, set())

    def test_a_bundle_holds_all_of_it(self):
        script = (ROOT / "scripts" / "gpu-bundle").read_text(encoding="utf-8")
        copied = re.search(r"cp -r --parents (.*?) \"\$stage/\"", script, re.DOTALL).group(1).replace("\\", "").split()
        read = [ROOT / name for name in ("tests/cuda/gpu_check.py", "tests/python/soak.py", "benches/cuda/peers.py")]
        for path in {found for source in self.everything for found in closure(ROOT, source)} | set(read):
            name = relative(ROOT, path)
            self.assertTrue(any(fnmatch.fnmatch(name, word) or name.startswith(word + "/") for word in copied), name)


class Steps(unittest.TestCase):
    GPU = gpu_check.Gpu("A GPU", "90a", "580", "1 GiB")

    def setUp(self):
        self.folder = tempfile.TemporaryDirectory()
        self.steps = dict(gpu_check.STEPS)

    def tearDown(self):
        gpu_check.STEPS.clear()
        gpu_check.STEPS.update(self.steps)
        self.folder.cleanup()

    def run_steps(self, steps, programs=(), seconds=600):
        """The record's file after these {name: (function, seconds)}; programs None: they are never built."""
        gpu_check.STEPS.clear()
        gpu_check.STEPS.update(steps)
        building = concurrent.futures.Future()
        if programs is not None:
            building.set_result(dict(programs))
        options = argparse.Namespace(only=list(steps), out=pathlib.Path(self.folder.name), arch="90a", inputs="1")
        record = gpu_check.Record(options, self.GPU)
        check = gpu_check.Check(options, self.GPU, building, time.monotonic() + seconds)
        with contextlib.redirect_stdout(io.StringIO()):
            gpu_check.run_steps(check, record)
        return json.loads(record.path.read_text(encoding="utf-8"))

    def test_every_step_says_what_it_is(self):
        self.assertTrue(all(step.__doc__ for step, _ in gpu_check.STEPS.values()))

    def test_the_steps_fit_into_nine_minutes(self):
        self.assertLess(sum(seconds for _, seconds in gpu_check.STEPS.values()), 9 * 60)

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
        self.addCleanup(children.stopping.clear)

        def be_stopped(check):
            children.stopping.set()
            return check.run_all({"sleep": ["sleep", "600"]})
        with self.assertRaises(children.Stopped):
            self.run_steps({"first": (lambda check: ("passed", []), 300), "second": (be_stopped, 300)})
        path, = pathlib.Path(self.folder.name).glob("gpu_*.json")
        record = json.loads(path.read_text(encoding="utf-8"))
        self.assertEqual((record["running"], record["steps"]["first"]["result"]), ("second", "passed"))

    def test_without_time_left_steps_are_left_out(self):
        record = self.run_steps({"slow": (lambda check: setattr(check, "end", 0) or ("passed", []), 300),
                                 "late": (lambda check: ("passed", []), 300)})
        self.assertEqual(record["steps"]["late"]["result"], "skipped")

    def test_a_program_that_hangs_leaves_half_of_the_time_to_those_after_it(self):
        hangs = ["sh", "-c", "sleep 600 & wait"]
        record = self.run_steps({"step": (lambda check: check.run_all({"hangs": hangs, "true": ["true"]}), 8)})
        self.assertEqual([line for line in record["steps"]["step"]["lines"] if line.startswith("==")],
                         ["== hangs: ended", "== true: exit 0"])

    def test_nothing_is_started_without_time(self):
        def late(check):
            check.deadline = time.monotonic() - 1
            return check.run_all({"touch": ["touch", pathlib.Path(self.folder.name) / "it_ran"]})
        record = self.run_steps({"late": (late, 300)})
        self.assertEqual(record["steps"]["late"]["result"], "failed")
        self.assertFalse((pathlib.Path(self.folder.name) / "it_ran").exists())

    def test_a_build_that_does_not_end_costs_no_step_that_needs_none(self):
        passes = (lambda check: ("passed", []), 300)
        kernels = (lambda check: ("passed", list(check.programs)), 300)
        record = self.run_steps({"model": passes, "kernels": kernels, "engine": passes}, programs=None, seconds=1)
        self.assertEqual([(name, step["result"], step["while_building"]) for name, step in record["steps"].items()],
                         [("model", "passed", True), ("engine", "passed", True), ("kernels", "failed", False)])
        self.assertIn("the programs were not built in time", record["steps"]["kernels"]["lines"])

    def test_a_record_that_cannot_be_written_stops_nothing(self):
        with unittest.mock.patch.object(gpu_check.os, "replace", side_effect=OSError("the disk is full")):
            with self.assertRaises(FileNotFoundError):  # of the one who reads it
                self.run_steps({"first": (lambda check: ("passed", []), 300)})


class Children(unittest.TestCase):
    def test_one_that_cannot_be_ended_is_left_behind(self):
        child = unittest.mock.Mock(pid=2**22 + 1)
        child.wait.side_effect = subprocess.TimeoutExpired("x", 1)
        self.assertFalse(children.end(child))

    def test_of_much_that_is_printed_the_end_is_kept(self):
        code, lines = children.run(["seq", "400000"], 600)
        self.assertEqual((code, lines[0], lines[-1]), (0, "... the first lines are left out", "400000"))
        self.assertLess(sum(map(len, lines)), children.KEPT_BYTES)
        self.assertEqual(len(children.run(["head", "-c", "9000", "/dev/zero"], 600)[1][0]), children.KEPT_COLUMNS)

    def test_who_prints_without_end_is_ended(self):
        with unittest.mock.patch.object(children, "MOST_BYTES", 1 << 20):
            code, lines = children.run(["yes"], 600)
        self.assertEqual((code, lines[-1]), (None, "it printed more than 1 MiB"))


class Whole(unittest.TestCase):
    """The command itself, in a tree of fakes."""

    def setUp(self):
        self.folder = tempfile.TemporaryDirectory()
        self.tree = Tree(self.folder.name)
        self.steps = dict(gpu_check.STEPS)
        self.patches = [
            unittest.mock.patch.object(gpu_check, "ROOT", self.tree.root),
            unittest.mock.patch.dict(gpu_check.STEPS),
            unittest.mock.patch.object(gpu_check.sys, "executable", str(self.tree.tools / "python")),
            unittest.mock.patch.object(children, "MOST_BYTES", 1 << 20),
            unittest.mock.patch.object(gpu_check, "SMI_SECONDS", 60),
            unittest.mock.patch.object(gpu_check.signal, "signal"),
            unittest.mock.patch.dict(os.environ, {"PATH": f"{self.tree.tools}:{os.environ['PATH']}"})]
        for patch in self.patches:
            patch.start()
        self.addCleanup(self.folder.cleanup)
        for patch in self.patches:
            self.addCleanup(patch.stop)

    def check(self, *flags):
        """(exit status, the record or None, what was printed). The record is read all the while."""
        broken, is_over = [], threading.Event()

        def look():
            while not is_over.wait(0.005):
                for path in self.results():
                    try:
                        json.loads(path.read_text(encoding="utf-8"))
                    except ValueError as error:
                        broken.append(error)
        reader = threading.Thread(target=look)
        reader.start()
        try:
            with unittest.mock.patch.object(sys, "argv", ["gpu-check", "--jobs", "2", *flags]):
                with contextlib.redirect_stdout(io.StringIO()) as said:
                    status = gpu_check.main()
        finally:
            is_over.set()
            reader.join()
        self.assertEqual(broken, [])
        records = [json.loads(path.read_text(encoding="utf-8")) for path in self.results()]
        return status, records[-1] if records else None, said.getvalue()

    def results(self):
        return sorted((self.tree.root / "benches" / "results").glob("gpu_*.json"))

    def test_whatever_programs_do_every_step_is_told(self):
        expected = {"succeeds": "passed", "cannot": "skipped"}
        for name, body in BEHAVIOURS.items():
            with self.subTest(name):
                self.tree.behave(body)
                divisor = 100 if name == "hangs" else 1  # nothing else here needs a hundredth of its time
                gpu_check.STEPS.update({step: (run, seconds / divisor) for step, (run, seconds) in self.steps.items()})
                shutil.rmtree(self.tree.root / "build", ignore_errors=True)
                begin = time.monotonic()
                status, record, _ = self.check()
                self.assertLess(time.monotonic() - begin, 540)
                self.assertEqual(list(record["steps"]), list(gpu_check.STEPS))
                self.assertIsNone(record["running"])
                results = {step["result"] for step in record["steps"].values()}
                self.assertEqual(results, {expected.get(name, "failed")}, record["steps"])
                self.assertEqual(status, 1 if "failed" in results else 0)

    def test_figures_come_from_what_programs_print(self):
        step = {"what": "engine decode", "model": "m", "layers": 2, "weights": "bf16", "kv": "bf16", "sequences": 1,
                "tokens": 1024, "us": 2000, "tokens_per_second": 500, "late_share": 0.01, "bytes": 4e9, "flops": 8e9,
                "head_flops": 0, "attention_flops": 0}
        roofs = {"what": "roofs", "GB/s": 4000, "bf16 TFLOP/s": 800, "int8 TOP/s": 1600}
        self.tree.behave(f"echo '{json.dumps(step)}'\necho '{json.dumps(roofs)}'\nprintf '{{\"what\": \"engine de'\nexit 1")
        status, _, said = self.check()
        self.assertEqual(status, 1)
        self.assertIn("| m, 2 layers | bf16, bf16 | decode, 1 at 1024 | 2.00 | 500 | 50 % | 70 % | 1.0 % (5 %) |", said)

    def test_a_source_that_breaks_crashes_or_hangs_the_compiler_costs_its_own_program(self):
        for name in ("broken_test.cu", "crashes_test.cu", "hangs_test.cu"):
            self.tree.add(f"tests/cuda/{name}")
        self.tree.add("kernels/cuda/broken_kernel.cu")
        _, record, said = self.check("--only", "wrappers,kernels,bench", "--minutes", str((40 + 75 + 70 + 3) / 60))
        self.assertEqual({name: step["result"] for name, step in record["steps"].items()},
                         {"wrappers": "passed", "kernels": "failed", "bench": "passed"})
        self.assertIn("== row_ops_test: exit 0", record["steps"]["kernels"]["lines"])
        self.assertEqual(set(record["build"]["broken"]), {"broken_test", "crashes_test", "hangs_test", "broken_kernel.cu"})
        self.assertIn("error: broken", record["build"]["broken"]["broken_kernel.cu"])
        self.assertIn("hangs_test was not built:\nout of time after", said)

    def test_without_a_compiler_that_works_the_others_go_on(self):
        for body in ("exit 1", "kill -SEGV $$"):
            self.tree.tool("nvcc", body)
            _, record, _ = self.check("--only", "model,kernels,engine")
            self.assertEqual([step["result"] for step in record["steps"].values()], ["passed", "failed", "passed"])
        with unittest.mock.patch.object(gpu_check, "find_nvcc", return_value=None):
            _, record, _ = self.check("--only", "model,kernels,engine")
        self.assertEqual([step["result"] for step in record["steps"].values()], ["passed", "failed", "passed"])

    def test_a_gpu_is_what_nvidia_smi_names_and_nothing_else(self):
        for body, name in (("echo 'warning: old'; echo 'NVIDIA A10, 8.6, 580.1, 24 GiB'", "NVIDIA A10"),
                           ("echo 'NVIDIA H200, [N/A], 580.1, 1 GiB'", None), ("echo 'NVIDIA H2'", None),
                           ("head -c 1000 /dev/urandom", None), ("echo 'NVIDIA H200, 9.0, 580.1, 1 GiB'; exit 9", None),
                           ("kill -SEGV $$", None), ("exit 0", None)):
            self.tree.tool("nvidia-smi", body)
            gpu, why = gpu_check.find_gpu()
            self.assertEqual((gpu.name if gpu else None, bool(why)), (name, name is None), body)
        self.tree.tool("nvidia-smi", "sleep 600")
        with unittest.mock.patch.object(gpu_check, "SMI_SECONDS", 0.1):
            self.assertIn("out of time", gpu_check.find_gpu()[1])

    def test_without_a_gpu_every_program_must_say_so(self):
        self.tree.tool("nvidia-smi", "echo 'No devices were found'; exit 6")
        for body, status in (("exit 2", 2), ("exit 77", 2), ("exit 0", 1), ("kill -ABRT $$", 1)):
            self.tree.behave(body)
            got, record, said = self.check()
            self.assertEqual((got, record), (status, None), said)
            self.assertIn("there is no NVIDIA GPU here (nvidia-smi names none: No devices were found)", said)
            self.assertEqual("these should say so and do not" in said, status == 1)

    def test_who_is_asked_to_end_ends_and_leaves_nothing_running(self):
        for name in ("gpu_check", "gpu_build", "children", "compile_gate", "kernel_sources"):
            shutil.copy(ROOT / "tests" / "cuda" / f"{name}.py", self.tree.root / "tests" / "cuda")
        shutil.copy(ROOT / "benches" / "cuda" / "goals.py", self.tree.root / "benches" / "cuda")
        self.tree.add("tests/cuda/hangs_test.cu")
        pids = self.tree.root / "pids"
        os.mkfifo(pids)
        self.tree.behave(f"echo $$ >{pids}; sleep 600 & wait")
        run = subprocess.Popen(["python3", self.tree.root / "tests" / "cuda" / "gpu_check.py"], stdout=subprocess.PIPE,
                               text=True)
        pid = int(pids.read_text(encoding="utf-8"))
        run.send_signal(signal.SIGTERM)
        said = run.communicate(timeout=600)[0]
        self.assertEqual((run.returncode, said.splitlines()[-1]), (1, "gpu-check: stopped"))
        path, = self.results()
        self.assertEqual(json.loads(path.read_text(encoding="utf-8"))["running"], "model")
        self.assertFalse(is_running(pid))


def is_running(pid):
    try:
        return pathlib.Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


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
            programs = gpu_build.Builder(root, options, time.monotonic() + 600).build()
            self.assertEqual(subprocess.run([programs["good_test"]], check=False).returncode, 0)
            self.assertIn("broken.cu", programs["calls_test"])
            self.assertIn("error", programs["broken.cu"])


if __name__ == "__main__":
    unittest.main()
