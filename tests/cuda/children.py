# SPDX-License-Identifier: Apache-2.0
"""Programs run with a limit on their time and on what they print, ended with all that they started. For gpu_check.py."""
import os
import signal
import subprocess
import tempfile
import threading
import time

MOST_BYTES = 64 << 20  # printed; who prints more is ended
KEPT_BYTES = 1 << 20   # of the end
KEPT_COLUMNS = 4000    # of a line
LOOK_SECONDS = 0.2     # between looks at how much was printed
DYING_SECONDS = 5      # a program in the driver's hands may not die at all

stopping = threading.Event()  # set where somebody asks this run to end
_running = set()
_lock = threading.Lock()


class Stopped(BaseException):
    """Not raised by the signal itself, which may come while a program is being started; no step may take it for a fault."""


def look():
    if stopping.is_set():
        raise Stopped


def run(command, seconds, folder=None, environment=None):
    """(exit status or None where it was ended, lines of output)."""
    # A file, not a pipe: what was said before the end is kept, and nobody's child can hold it open.
    with tempfile.TemporaryFile() as output:
        try:
            child = subprocess.Popen([str(word) for word in command], stdout=output, stderr=subprocess.STDOUT,
                                     stdin=subprocess.DEVNULL, start_new_session=True, cwd=folder,
                                     env={**os.environ, "PYTHONUNBUFFERED": "1", **(environment or {})})
        except OSError as error:
            return 126, [str(error)]
        with _lock:
            _running.add(child)
        try:
            code, why = _wait(child, output, seconds)
        finally:
            is_dead = end(child)
            with _lock:
                _running.discard(child)
        lines = _lines(output)
    if why is not None:
        lines.append(why)
    if not is_dead:
        lines.append("and it cannot be ended: the driver may be holding it")
    return code, lines


def _wait(child, output, seconds):
    """(exit status, None) or (None, why it is to be ended)."""
    deadline = time.monotonic() + seconds
    while True:
        look()
        try:
            return child.wait(max(0.0, min(LOOK_SECONDS, deadline - time.monotonic()))), None
        except subprocess.TimeoutExpired:
            if os.fstat(output.fileno()).st_size > MOST_BYTES:
                return None, f"it printed more than {MOST_BYTES >> 20} MiB"
            if time.monotonic() >= deadline:
                return None, f"out of time after {seconds:.0f} s"


def _lines(output):
    size = output.seek(0, os.SEEK_END)
    output.seek(max(0, size - KEPT_BYTES))
    lines = output.read(KEPT_BYTES).decode(errors="replace").splitlines()
    if size > KEPT_BYTES:
        lines[:1] = ["... the first lines are left out"]
    return [line[:KEPT_COLUMNS] for line in lines]


def end(child):
    """The program, and whatever it left running; whether it is gone."""
    try:
        os.killpg(child.pid, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        pass
    try:
        child.wait(DYING_SECONDS)
    except subprocess.TimeoutExpired:
        return False
    return True


def end_all():
    """Those that other threads still wait for."""
    with _lock:
        left = list(_running)
    for child in left:
        try:
            os.killpg(child.pid, signal.SIGKILL)
        except (ProcessLookupError, PermissionError):
            pass
