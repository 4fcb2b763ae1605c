# SPDX-License-Identifier: Apache-2.0
"""Headless Chromium over its DevTools pipe: JSON messages, each ended by a zero byte, on descriptors 3 and 4."""
import fcntl
import json
import os
import shutil
import subprocess

BINARY = shutil.which("chromium")


class Page:
    """One page. Expressions that give promises are awaited; what the page complained of is in `complaints`."""

    def __init__(self, folder, width=1200, height=800):
        down_read, self.down = os.pipe()
        self.up, up_write = os.pipe()

        def place_pipes():
            # From out of their way first: one of them may be 3 or 4 already.
            far = [fcntl.fcntl(end, fcntl.F_DUPFD, 10) for end in (down_read, up_write)]
            os.dup2(far[0], 3)
            os.dup2(far[1], 4)

        self.process = subprocess.Popen(
            [BINARY, "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--remote-debugging-pipe",
             f"--user-data-dir={folder}", f"--window-size={width},{height}", "about:blank"],
            preexec_fn=place_pipes, close_fds=False, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        os.close(down_read)
        os.close(up_write)
        self.buffer, self.last_id, self.session, self.complaints = b"", 0, None, []
        [target] = [t for t in self.call("Target.getTargets")["targetInfos"] if t["type"] == "page"]
        self.session = self.call("Target.attachToTarget", targetId=target["targetId"], flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(domain + ".enable")

    def _receive(self):
        while b"\0" not in self.buffer:
            more = os.read(self.up, 1 << 16)
            if not more:
                raise RuntimeError("Chromium has ended")
            self.buffer += more
        message, self.buffer = self.buffer.split(b"\0", 1)
        return json.loads(message)

    def call(self, method, **params):
        self.last_id += 1
        message = {"id": self.last_id, "method": method, "params": params}
        if self.session:
            message["sessionId"] = self.session
        os.write(self.down, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._receive()
            entry = answer.get("params", {}).get("entry", {"level": "error"})
            if answer.get("method") in ("Runtime.exceptionThrown", "Log.entryAdded") and entry["level"] in ("warning", "error"):
                self.complaints.append(answer["params"])
            if answer.get("id") == self.last_id:
                assert "error" not in answer, answer
                return answer["result"]

    def run(self, expression):
        result = self.call("Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in result, result
        return result["result"].get("value")

    def wait_for(self, condition, seconds=60):
        """Until the expression is true; the page looks itself, at every frame."""
        done = self.run(f"""new Promise((resolve) => {{
            const end = performance.now() + {seconds * 1000};
            const look = () => ({condition}) ? resolve(true) : performance.now() > end ? resolve(false) : setTimeout(look, 20);
            look();
        }})""")
        assert done, f"{condition} never came true; the page shows:\n{self.run('document.body.innerText')}"

    def open(self, url):
        self.call("Page.navigate", url=url)
        self.wait_for("document.readyState === 'complete' && location.href !== 'about:blank'")

    def screenshot(self) -> bytes:
        import base64
        return base64.b64decode(self.call("Page.captureScreenshot", format="png")["data"])

    def close(self):
        self.process.kill()
        self.process.wait()
        os.close(self.down)
        os.close(self.up)
