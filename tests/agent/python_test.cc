// SPDX-License-Identifier: Apache-2.0
#include "agent/tools/python.h"

#include <unistd.h>

#include <catch2/catch.hpp>

#include "absl/time/clock.h"
#include "tests/agent/sandbox_fixture.h"

namespace millrace {
namespace {

bool CanRunPython() {
  if (!CanRun(Who::kCaller)) return false;
  if (access("/usr/bin/python3", X_OK) == 0) return true;
  WARN("[SKIPPED] no /usr/bin/python3");
  return false;
}

// `code` may hold no characters that JSON escapes but line breaks, which it holds as \n already.
ToolResult RunPython(const std::string& code, absl::Duration limit = absl::Minutes(1)) {
  PythonTool tool({});
  const Cancellation cancellation;
  return tool.Call(R"({"code":")" + code + R"("})", absl::Now() + limit, cancellation);
}

}  // namespace

TEST_CASE("python tool: what a program prints is the result") {
  if (!CanRunPython()) return;
  const ToolResult result =
      RunPython(R"(import json, math, re, datetime, statistics\nprint(json.dumps([math.comb(5, 2)])))");
  INFO(result.text);
  CHECK_FALSE(result.is_error);
  CHECK(result.text == "[10]\n");
  CHECK(RunPython(R"(open('a.txt', 'w').write('x')\nimport os\nprint(sorted(os.listdir('.'))))").text ==
        "['a.txt', 'main.py']\n");
  CHECK(RunPython(R"(import threading\nt = threading.Thread(target=print, args=(7,))\nt.start()\nt.join())").text ==
        "7\n");
}

TEST_CASE("python tool: nobody without privileges gets the same") {
  if (!CanRunPython()) return;
  if (!CanRun(Who::kNobody)) return;
  CHECK(InProcessOf(Who::kNobody, [] { return RunPython("print(6 * 7)").text; }) == "42\n");
}

TEST_CASE("python tool: a failure is an error that ends with its reason") {
  if (!CanRunPython()) return;
  ToolResult result = RunPython("x = 1\\nprint(x / 0)");
  CHECK(result.is_error);
  CHECK(result.text.find("ZeroDivisionError: division by zero") != result.text.npos);
  CHECK(result.text.find("main.py\", line 2") != result.text.npos);
  CHECK(result.text.ends_with("the program ended with exit code 1"));

  result = RunPython("import sys\\nsys.setrecursionlimit(10000)\\ndef f(n):\\n  raise ValueError('y' * 5000)\\nf(1)");
  CHECK(result.is_error);
  CHECK(result.text.size() < 2200);

  CHECK(RunPython("while True: print('x' * 1000)")
            .text.starts_with("the program was stopped: it printed more than 65536"));
  CHECK(RunPython("import time\\ntime.sleep(1000)", absl::Milliseconds(300))
            .text.ends_with("the program was stopped: its time is over"));
  CHECK(RunPython("x = bytearray(1 << 30)").text.find("MemoryError") != std::string::npos);
  CHECK(RunPython("a\\u0000b").is_error);
}

TEST_CASE("python tool: neither network nor processes nor the server's files") {
  if (!CanRunPython()) return;
  for (const char* code :
       {"import socket\\nsocket.socket()", "import os\\nos.fork()", "import subprocess\\nsubprocess.run(['/bin/true'])",
        "import os\\nos.listdir('/')", "open('/etc/passwd')", "import os\\nos.kill(os.getppid(), 0)",
        "import ctypes\\nassert ctypes.CDLL(None).ptrace(0, 0, 0, 0) == 0, 'PermissionError'",
        "import urllib.request\\nurllib.request.urlopen('http://127.0.0.1:1/')",
        "import os\\nos.chmod('/usr/lib', 0o755)"}) {
    const ToolResult result = RunPython(code);
    INFO(code << ": " << result.text);
    CHECK(result.is_error);
    CHECK((result.text.find("PermissionError") != result.text.npos ||
           result.text.find("Operation not permitted") != result.text.npos));
  }
}

TEST_CASE("python tool: arguments that are none are refused before anything runs") {
  PythonTool tool({});
  const Cancellation cancellation;
  CHECK(tool.Call("{}", absl::InfiniteFuture(), cancellation).text == "the argument 'code' is missing");
}

}  // namespace millrace
